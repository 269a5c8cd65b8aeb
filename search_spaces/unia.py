"""What is searched for `unia`: unia.md section 6 and its flags, but for knobs that change cost or width.

Refined labels wait for `seg_start` by themselves, so no draw is illegal. The upper threshold is `pseudo_low` plus a
gap, and starts reach from COCO's to tier lab's: these ranges hold the values of every preset, and so are wider than the
card's. `n_samples` is free: one draw stands for all.
"""

from __future__ import annotations

from harness.api.space import Choice, Float, Gap, Int, Space

SPACE = Space(
    {
        ("pseudo_low", "pseudo_high"): Gap(low=(0.15, 0.35), gap=(0.25, 0.45)),
        "w_kl": Float(0.01, 1, log=True),
        "w_ptc": Float(0, 0.6),
        "w_aff": Float(0.003, 0.05, log=True),
        "w_seg": Float(0.05, 0.3, log=True),
        "w_reg": Float(0, 0.1),
        "aff_temperature": Float(0.1, 1, log=True),
        "radius": Int(4, 10),
        "pooling_size": Int(2, 7),
        "n_samples": Int(8, 64, log=True),
        "seg_start": Float(0.05, 0.45),
        "kl_mcr_start": Float(0.2, 0.7),
        "aff_mcr_start": Float(0.2, 0.7),
        "seg_mcr_start": Float(0.2, 0.7),
        "mcr_prior_start": Float(0.05, 0.5),
        "aux_block": Int(9, 11),
        "seg_label": Choice("par", "mcr"),
        "aff_label": Choice("aux", "mcr"),
        "kl_label": Choice("aux", "mcr"),
        "separate_mu_head": Choice(False, True),
        "aff_norm": Choice("none", "colnorm", "sinkhorn"),
        "lr_factor": Float(1 / 3, 2, log=True),
    }
)
