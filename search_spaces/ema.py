"""What is searched for `ema`: sparse_baselines.md 2.5. Momenta are of the card's T, by half decades of 1 - m."""

from __future__ import annotations

from harness.api.space import Choice, Float, Space

SPACE = Space(
    {
        "m": Choice(0.99, 0.997, 0.999, 0.9997, 0.9999),
        "tau": Float(0.6, 0.99),
        "w_u": Float(0.1, 4, log=True),
        "target": Choice("hard", "kl", "kl_mean"),
        "mask": Choice("threshold", "share", "none"),
        "ramp": Float(0, 0.4),
        "strong_colour": Choice(False, True),
        "cutout": Choice(False, True),
        "cutmix": Choice(0.0, 0.5),
        "lr_factor": Float(1 / 3, 10, log=True),
        "lr_mult_head": Float(1, 20, log=True),
    }
)
