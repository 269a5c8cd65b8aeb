"""What is searched for `sipe`: sipe.md section 6, but for knobs that change cost, width or the stages themselves."""

from __future__ import annotations

from harness.api.space import Choice, Float, Int, Space

SPACE = Space(
    {
        "lr_factor": Float(0.1, 2, log=True),
        "head_lr_scale": Float(1, 20, log=True),
        "w_gsc": Float(0.1, 5, log=True),
        "gsc_start": Float(0, 0.2),
        "gsc_mean": Choice("all", "present"),
        "gsc_stop": Choice("none", "cam", "is_cam"),
        "background_factor": Float(0.2, 1),
        "seeds_train": Choice("x4", "H"),
        "seeds_infer": Choice("H", "x4"),
        "mask_cam": Choice(False, True),
        "present_background": Choice(False, True),
        "label_factor": Float(0.3, 0.8),
        "rw_power": Float(1, 2),
        "rw_beta": Float(4, 16),
        "rw_steps": Int(4, 8),
        "seg_lr_factor": Float(0.3, 3, log=True),
    }
)
