"""ToCo keeps the promises of `harness.testing`."""

from harness.testing import MethodTests


class TestToco(MethodTests):
    method = "toco"
    refused = frozenset({"compile_blocks"})
    steps = 5
    # Their targets move: relations, crops and pseudo labels of CAMs that still form; the energy falls to be negative.
    may_rise = frozenset({"ptc", "ctc", "seg", "reg"})
    other = {"drop_path": 0.5, "scale_max": 1.5, "blur_radius_min": 0.4, "w_reg": 1.0, "negative_limit": 1.0}
    together = {
        "warmup_start": {"warmup": 0.5},
        "solarise_probability": {"blur_view2": 0.0},
        "top_start": {"seg_start": 0.0},
        "separate_flips": {"scale_min": 0.5},
        "literal_token_box": {"scale_min": 0.5},
    }


class TestTocoReleased(TestToco):
    variant = "released"
    # Every knob is turned in the other variant, from other values.
    test_every_knob_acts = None
