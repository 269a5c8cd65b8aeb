"""What is searched for `gatedcrf`: sparse_baselines.md 3.5, but for the resolution, which changes cost; so does the
radius, whose cost is small beside the network's."""

from __future__ import annotations

from harness.api.space import Choice, Float, Int, Space

SPACE = Space(
    {
        "w_crf": Float(0.01, 1, log=True),
        "sigma_xy": Float(3, 12),
        "sigma_rgb": Float(0.05, 0.5, log=True),
        "radius": Int(3, 9),
        "w_place": Float(0, 0.3),
        "crf_start": Float(0, 0.2),
        "gate_labelled": Choice(False, True),
        "lr_factor": Float(1 / 3, 10, log=True),
        "lr_mult_head": Float(1, 20, log=True),
    }
)
