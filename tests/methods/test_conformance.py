"""Every method keeps the promises of `harness.testing`."""

from harness.testing import MethodTests


class TestCam(MethodTests):
    method = "cam"


class TestFull(MethodTests):
    method = "full"


class TestFsr(MethodTests):
    method = "fsr"


class TestFsrReleased(MethodTests):
    method = "fsr"
    variant = "released"
