"""UniA keeps the promises of `harness.testing`."""

from __future__ import annotations

from harness.testing import MethodTests

MCR = {"seg_label": "mcr", "aff_label": "mcr"}

# Low thresholds leave classes to compete; from the first step on, before weights saturate on these few pictures.
COMPETING = {**MCR, "pseudo_low": 0.1, "pseudo_high": 0.15, "seg_start": 0.0, "seg_mcr_start": 0.0}


class TestUnia(MethodTests):
    method = "unia"
    refused = frozenset({"compile_blocks"})
    # Their targets move with CAMs that still form.
    may_rise = frozenset({"kl", "ptc", "seg", "reg"})
    other = {"uncertainty": False, "aff_source": "probabilities"}
    together = {
        "warmup_start": {"warmup": 0.5},
        "uncertainty": {"w_kl": 0.0},
        "seg_mcr_start": MCR,
        "aff_mcr_start": MCR,
        "mcr_prior_start": COMPETING,
        "mcr_trust_cam": MCR,
        "mcr_trust_start": {**MCR, "mcr_trust_cam": True},
        "aff_norm": COMPETING,
        "bilinear_label_ids": MCR,
    }


class TestUniaReleased(TestUnia):
    variant = "released"
    # Every knob is turned in the other variant, from other values.
    test_every_knob_acts = None
