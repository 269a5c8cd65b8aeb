"""What is searched for `fsr`: fsr.md section 6, but for knobs that change cost or width; see that card's
defaults."""

from __future__ import annotations

from harness.api.space import Choice, Float, Gap, Space

SPACE = Space(
    {
        "mask_ratio": Float(0.1, 0.6),
        ("mask_low", "mask_high"): Gap(low=(0.05, 0.45), gap=(0.1, 0.55)),
        "mask_block": Choice(1, 2, 4, 7),
        "random_phase": Float(0, 0.5),
        ("pseudo_low", "pseudo_high"): Gap(low=(0.15, 0.4), gap=(0.2, 0.5)),
        "w_class": Float(0.01, 1, log=True),
        "w_patch": Float(0.01, 1, log=True),
        "w_ptc": Float(0.05, 0.5, log=True),
        "w_seg": Float(0.05, 0.3, log=True),
        "w_reg": Float(0, 0.1),
        ("tau_teacher", "tau_student"): Gap(low=(0.04, 0.1), gap=(0.02, 0.1)),
        "teacher_momentum": Float(0.99, 0.9999),
        "seg_start": Float(0.05, 0.6),
        "lr_factor": Float(1 / 3, 2.5, log=True),
        "head_lr_scale": Float(1, 20, log=True),
        "weight_decay": Float(0.01, 0.1, log=True),
        "drop_path": Float(0, 0.2),
        "crop_area_min": Float(0.2, 0.6),
    }
)
