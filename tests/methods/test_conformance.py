"""Every method keeps the promises of `harness.testing`."""

from harness.testing import MethodTests


class TestCam(MethodTests):
    method = "cam"
    refused = frozenset({"compile_blocks"})
    # Pseudo labels grow while the CAM forms: the decoder's task gets harder.
    may_rise = frozenset({"seg"})
    together = {"warmup_start": {"warmup": 0.5}}


class TestFull(MethodTests):
    method = "full"
    together = {"warmup_start": {"warmup": 0.5}}


class TestFullDeepLab(TestFull):
    words = {"decoder": "deeplabv3plus"}


class TestPce(MethodTests):
    method = "pce"
    labels = "scribbles"
    together = {"warmup_start": {"warmup": 0.5}}


class TestFsr(MethodTests):
    method = "fsr"
    refused = frozenset({"compile_blocks"})
    # Their targets move: a teacher that sharpens while it learns, token and pseudo labels of CAMs that still form.
    may_rise = frozenset({"class", "patch", "ptc", "seg"})
    together = {
        "warmup_start": {"warmup": 0.5},
        "tau_teacher_start": {"tau_rise": 1.0},
        "teacher_momentum": {"card_iterations": 6},
        "centre_momentum": {"card_iterations": 6},
        "card_iterations": {"teacher_momentum": 0.99999},
        "reuse_cam": {"drop_path": 0.5},
        "mask_single_scale": {"random_phase": 0.0},
        "mask_cam": {"random_phase": 0.0},
    }
    other = {
        "mask_view": "view1",
        "mask_cam": "top",
        "selection": "edge_strict",
        "aggregation": "gap",
        "augmentation": "autoaugment",
    }


class TestFsrReleased(TestFsr):
    variant = "released"
    # Every knob is turned in the default variant.
    test_every_knob_acts = None
