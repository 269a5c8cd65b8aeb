"""The first network of `irn` keeps the promises of `harness.testing`; its further stages are tested in test_irn.py."""

from harness.testing import MethodTests


class TestIrn(MethodTests):
    method = "irn"
    other = {"clip_norm": 0.01}


class TestIrnReleased(TestIrn):
    variant = "released"
