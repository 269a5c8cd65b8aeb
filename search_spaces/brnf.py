"""What is searched for `brnf`: brnf.md section 6, but for knobs that change cost, widths or stages; and of what follows
its CAM network the knobs that are searched for `sipe`, whose recipe it is (sipe.md section 6)."""

from __future__ import annotations

from harness.api.space import Choice, Float, Gap, Int, Space

SPACE = Space(
    {
        ("flow_start", "use_start"): Gap(low=(0.05, 0.4), gap=(0.08, 0.4)),
        "lr_factor": Float(0.2, 5.0, log=True),
        "w_gui": Float(0.25, 2.0, log=True),
        "w_gsc": Float(0.0, 1.0),
        "w_cal": Float(0.05, 2.0, log=True),
        "w_nce": Float(0.01, 1.0, log=True),
        "flow_lr": Float(1e-4, 1e-2, log=True),
        "noise": Float(0.01, 0.2, log=True),
        "tau_c": Float(0.4, 0.8),
        "margin": Float(0.0, 0.3),
        "t_g": Float(0.01, 0.2, log=True),
        "gamma": Float(0.5, 0.95),
        "kappa": Float(0.0, 2.5),
        "sample_t": Float(0.0, 1.0),
        "nce_tau": Float(0.05, 0.3, log=True),
        "f2_prior": Choice("classes", "single"),
        "label_factor": Float(0.3, 0.8),
        "rw_power": Float(1, 2),
        "rw_beta": Float(4, 16),
        "rw_steps": Int(4, 8),
        "seg_lr_factor": Float(0.3, 3, log=True),
    }
)
