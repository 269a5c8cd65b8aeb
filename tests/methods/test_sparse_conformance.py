"""The methods of sparse labels keep the promises of `harness.testing`."""

from harness.testing import MethodTests

SGD = {"optimizer": "sgd", "schedule": "poly", "warmup": 0.0}
LONG_SIDE = {"geometry": "long_side"}
SURE = {"tau": 0.1}
"""A teacher of nine labels is this sure from the start."""
FRAME = {
    "momentum": SGD,
    "power": SGD,
    "warmup_start": {"warmup": 0.5},
    "scale_min": LONG_SIDE,
    "scale_max": LONG_SIDE,
    "blur_radius_max": {"blur_probability": 1.0},
}
"""Knobs of the shared frame that act beside others alone, as its small presets are those of `pce`."""
OTHER = {"geometry": "long_side", "optimizer": "sgd", "schedule": "poly", "drop_path": 0.5, "rates": (1, 3, 5)}


class Sparse(MethodTests):
    labels = "scribbles"
    steps = 5
    other = OTHER
    together = FRAME
    # shapes_vit cannot be dilated.
    refused = frozenset({"output_stride", "multi_grid"})


class TestAgmm(Sparse):
    method = "agmm"
    # Maps and prediction teach each other, and both start nearly flat.
    may_rise = frozenset({"gmm_self", "gmm_label", "sep"})
    together = {**FRAME, "bank_momentum": {"pooling": "ema"}, "literal_corners": {"align_corners": True}}


class TestAgmmReleased(TestAgmm):
    variant = "released"
    # Every knob is turned in the other variant, from other values.
    test_every_knob_acts = None


class TestEma(Sparse):
    method = "ema"
    # Long enough that the momentum, which warms up as 1 - 1/(step+1), passes the fitted one of .9.
    steps = 12
    # The teacher grows surer, so more pixels count.
    may_rise = frozenset({"consistency"})
    together = {
        **FRAME,
        **dict.fromkeys(("target", "ramp", "cutmix", "teacher_training", "teacher_restart", "card_iterations"), SURE),
        "m": {**SURE, "card_iterations": 12},
        "count_padding": {**SURE, **LONG_SIDE, "scale_min": 0.3, "scale_max": 0.4},
    }
    other = {**OTHER, **SURE, "cutmix": 1.0, "teacher_restart": 0.4, "ramp": 0.9, "card_iterations": 12}


class TestEmaReleased(TestEma):
    variant = "released"
    test_every_knob_acts = None


class TestGatedCrf(Sparse):
    method = "gatedcrf"
    # It starts at once, where all pixels agree on nothing, and rises while labels sharpen.
    may_rise = frozenset({"crf"})
    together = {**FRAME, "gate_padding": LONG_SIDE}
    other = {**OTHER, "crf_start": 0.5}


class TestGatedCrfReleased(TestGatedCrf):
    variant = "released"
    test_every_knob_acts = None
