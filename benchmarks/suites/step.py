"""FSR's training step next to the released one: uncertain masks, random masks, and before pseudo labels start."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping

import torch
import torch.nn.functional as F

from benchmarks import Case
from benchmarks.reference.fsr_step import Released
from harness.api import fitting
from harness.api.method import Batch, BuildInfo, Progress
from harness.api.registry import registry
from harness.plan.knobs import typed_knobs
from methods.fsr.method import Fsr
from methods.fsr.method import build as build_fsr
from methods.fsr.presets import preset

VIT = "vit_tiny_patch16_224"
CLASSES, IMAGES, TOTAL = 20, 2, 1000
PHASES = {"uncertain": 500, "random": 150, "before-seg": 50}
"""A step of a thousand in each phase: masks are random in the first fifth, pseudo labels start after a tenth."""
GOALS = {"uncertain": 4.0, "random": 3.8, "before-seg": 3.8}
EQUAL_STEPS, TOLERANCE = 3, 1e-3
SEG_TOLERANCE = 1e-2
"""After the first step AdamW turns round-off of vanishing gradients into steps of full size; the pixels of pseudo
labels at a tie may then change sides, and few class pixels carry half of L_seg."""


def batch(crop: int) -> Batch:
    """Two pairs of smooth random views, one or two classes each, without a download."""
    rng = torch.Generator().manual_seed(0)
    views = {
        name: F.interpolate(
            torch.randn(IMAGES, 3, crop // 16, crop // 16, generator=rng), size=(crop, crop), mode="bicubic"
        )
        for name in ("view1", "view2")
    }
    tags = torch.zeros(IMAGES, CLASSES)
    tags[0, 3] = tags[1, 7] = tags[1, 11] = 1.0
    return Batch(("a", "b"), views, tags, None, None)


class Sides:
    """Both sides on equal networks and batches, each with its own state."""

    def __init__(self, crop: int, tier: str) -> None:
        knobs = {**preset("voc", "paper", "default").knobs, "drop_path": 0.0}
        info = BuildInfo(
            num_classes=CLASSES,
            has_background=True,
            crop=crop,
            iterations=20000,
            group=IMAGES,
            tier=tier,
            variant="default",
            labels="tags",
            backbone=VIT,
            backbone_weights="random",
            decoder="largefov",
        )
        torch.manual_seed(0)
        config = typed_knobs(registry().spec("fsr"), knobs)
        self.method: Fsr = build_fsr(config, info).train()  # type: ignore[arg-type]
        self.other = Released(copy.deepcopy(self.method))
        self.optimizer = self.method.optimizers()[0].optimizer
        self.batch = batch(crop)
        self.cells = fitting.cells(crop // 16, self.method.config.mask_block)

    def reference(self, it: int) -> dict[str, float]:
        """One released step; its weighted terms."""
        torch.manual_seed(it)
        noise = torch.rand(IMAGES, self.cells, self.cells)
        return self.other.step(self.batch.views, self.batch.tags_BC, noise, it, TOTAL)

    def ours(self, it: int) -> dict[str, float]:
        """One step as the engine makes it; its weighted terms."""
        torch.manual_seed(it)
        progress = Progress(it, TOTAL)
        out = self.method.step(self.batch, progress)
        torch.stack(list(out.losses.values())).sum().backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.method.update(out.stats, progress)
        return {k: float(v.detach()) for k, v in out.losses.items()}


def agree(reference: Mapping[str, float], ours: Mapping[str, float]) -> str:
    """Largest relative difference of a term. Raises AssertionError for other terms or a larger difference."""
    assert reference.keys() == ours.keys(), f"terms {sorted(reference)} and {sorted(ours)}"
    apart = {k: abs(reference[k] - ours[k]) / max(abs(reference[k]), 1e-8) for k in ours}
    wrong = {k: v for k, v in apart.items() if v > (SEG_TOLERANCE if k == "seg" else TOLERANCE)}
    assert not wrong, f"{wrong} apart: {dict(reference)} and {dict(ours)}"
    worst = max(apart, key=lambda k: apart[k])
    return f"{len(ours)} terms agree to {apart[worst]:.0e} ({worst})"


def cases(quick: bool) -> list[Case]:
    """One case per phase: ViT-Tiny at 448 pixels, B=2; quick: 64 pixels and small heads.

    Three steps are compared at 64 pixels first, and every timed step at its own size.
    """
    crop, tier = (64, "smoke") if quick else (448, "paper")

    def case(phase: str, it: int) -> Case:
        @functools.cache
        def sides() -> Sides:
            return Sides(crop, tier)

        def equal() -> str:
            small = Sides(64, tier)
            found = [agree(small.reference(it), small.ours(it)) for _ in range(EQUAL_STEPS)]
            return f"{EQUAL_STEPS} steps at 64 px: {found[-1]}"

        return Case(
            f"fsr {phase}",
            lambda: sides().reference(it),
            lambda: sides().ours(it),
            equal,
            GOALS[phase] if not quick else None,
            agree=agree,
            prepare=sides,
            unit=f"{VIT}, {crop} px, B={IMAGES}",
        )

    return [case(phase, it) for phase, it in PHASES.items()]
