"""What is searched for `cam`: the knobs that it shares with fsr.md section 6, in that card's ranges."""

from __future__ import annotations

from harness.api.space import Float, Gap, Space

SPACE = Space(
    {
        ("pseudo_low", "pseudo_high"): Gap(low=(0.15, 0.4), gap=(0.2, 0.5)),
        "w_seg": Float(0.05, 0.3, log=True),
        "seg_start": Float(0.05, 0.6),
        "lr_factor": Float(1 / 3, 2.5, log=True),
        "head_lr_scale": Float(1, 20, log=True),
        "weight_decay": Float(0.01, 0.1, log=True),
        "drop_path": Float(0, 0.2),
        "crop_area_min": Float(0.2, 0.6),
    }
)
