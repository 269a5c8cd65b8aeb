"""What is searched for `fsae`: fsae.md section 6, but for knobs that change cost.

`con_start` reaches up to the .6 of small presets, further than the card's .2. The cutoff of the ring lies below the
confident one: drawn are itself and the gap.
"""

from __future__ import annotations

from harness.api.space import Choice, Float, Gap, Space

SPACE = Space(
    {
        ("bdry_cutoff", "p_cutoff"): Gap(low=(0.65, 0.84), gap=(0.03, 0.15)),
        "w_con": Float(0.1, 3, log=True),
        "bdry_size": Choice(1, 3, 5, 7),
        "rings": Choice(1, 2, 3),
        "n_strong_augs": Choice(0, 2, 3, 5, 8),
        "blur": Choice(True, False),
        "temperature": Float(0.05, 0.3, log=True),
        "over": Choice("all", "selected"),
        "label_filter": Choice("all", "foreground"),
        "con_start": Float(0, 0.7),
        "ema": Choice(0.99, 0.999, 0.9995, 0.9999),
    }
)
