"""What is searched for `agmm`: agmm.md section 6, but for knobs that change cost.

Rates are searched by `lr_factor`, as the presets of other tiers have other ones. `w_sep` and the scale range start
where their presets lie.
"""

from __future__ import annotations

from harness.api.space import Choice, Float, Space

SPACE = Space(
    {
        "w_gmm": Float(0.1, 2, log=True),
        "w_1": Float(0.1, 2, log=True),
        "w_2": Float(0.1, 2, log=True),
        "w_sep": Float(0, 1),
        "w_cls": Float(0, 2),
        "variance": Choice("constant", "weighted", "unweighted", "learned"),
        "sharpness": Float(0.5, 30, log=True),
        "distance": Choice("l1", "l2", "cosine"),
        "detach": Choice("none", "g", "p"),
        "l1_start": Float(0, 0.2),
        "l1_ramp": Float(0, 0.2),
        "pooling": Choice("image", "batch", "ema"),
        "sep_pool": Choice("mean", "sum"),
        "lr_factor": Float(1 / 3, 10, log=True),
        "lr_mult_head": Float(1, 20, log=True),
        "dropout": Float(0, 0.5),
        "scale_min": Float(0.5, 1),
        "scale_max": Float(1, 2),
        "strong_colour": Choice(False, True),
    }
)
"""Drawn settings are all legal."""
