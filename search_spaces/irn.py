"""What is searched for `irn`: irn.md section 6, but for knobs that change cost or the stages themselves.

Rates are searched by factors, as the presets of other tiers have other ones; the boundary head's has no preset of its
own. The background score of masks is searched because masks are label maps, which leave no curve to take it from.
"""

from __future__ import annotations

from harness.api.space import Choice, Float, Gap, Int, Space

SPACE = Space(
    {
        ("conf_bg", "conf_fg"): Gap(low=(0.03, 0.3), gap=(0.05, 0.3)),
        "mask_background": Float(0.1, 0.5),
        "cam_background": Float(0.05, 0.4),
        "crf_gt_prob": Float(0.5, 0.9),
        "crf_rgb_std": Float(3, 13),
        "crf_xy_std": Float(30, 80),
        "aff_lr": Float(0.01, 0.3, log=True),
        "aff_radius": Float(5, 15),
        "rw_radius": Float(3, 8),
        "rw_beta": Float(4, 16),
        "rw_steps": Int(4, 9),
        "rw_power": Float(1, 2),
        "rw_damp": Choice(True, False),
        "rw_norm": Choice("global", "class"),
        "lr_factor": Float(0.2, 2, log=True),
        "seg_lr_factor": Float(1 / 3, 3, log=True),
    }
)
