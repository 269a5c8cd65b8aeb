"""What is searched for `toco`: toco.md section 6, but for knobs that change cost.

The upper threshold is `pseudo_low` plus a gap, and `seg_start` reaches up to tier lab's .4: both ranges hold the values
of every preset, and so are wider than the card's.
"""

from __future__ import annotations

from harness.api.space import Choice, Float, Gap, Int, Space

SPACE = Space(
    {
        ("pseudo_low", "pseudo_high"): Gap(low=(0.15, 0.4), gap=(0.25, 0.45)),
        "w_ptc": Float(0.05, 1, log=True),
        "w_ctc": Float(0.05, 1, log=True),
        "w_seg": Float(0.05, 0.3, log=True),
        "w_reg": Float(0, 0.1),
        "ctc_tau": Float(0.1, 1, log=True),
        "head_momentum": Choice(0.0, 0.5, 0.9, 0.99, 0.999),
        "negative_limit": Float(0.05, 0.6),
        "aux_block": Int(7, 11),
        "seg_start": Float(0.05, 0.45),
        "lr_factor": Float(1 / 3, 2.5, log=True),
        "head_lr_scale": Float(1, 20, log=True),
        "weight_decay": Float(0.001, 0.05, log=True),
        "power": Float(0.9, 1),
    }
)
