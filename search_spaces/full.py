"""What is searched for `full`: optimiser and crops, in the ranges of fsr.md section 6."""

from __future__ import annotations

from harness.api.space import Float, Space

SPACE = Space(
    {
        "lr_factor": Float(1 / 3, 2.5, log=True),
        "head_lr_scale": Float(1, 20, log=True),
        "weight_decay": Float(0.01, 0.1, log=True),
        "drop_path": Float(0, 0.2),
        "crop_area_min": Float(0.2, 0.6),
    }
)
