"""A method's training step next to the matrix products that its card makes unavoidable: views, crops, heads, passes.

The reference is not a rival but the floor: the products of the step alone, without those of PAR, the dense energy and
label maps. A ratio of .667 means that the step costs 1.5 times its floor.
"""

from __future__ import annotations

import dataclasses
import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from benchmarks import Case
from benchmarks.floor import Products, products_of
from harness.api.method import Batch, BuildInfo, Progress
from harness.api.registry import registry
from harness.api.spec import MethodSpec, Preset, resolve
from harness.plan.knobs import typed_knobs

CLASSES, TOTAL = 20, 1000
SIZES = {
    "lab": ("voc", "lab", "vit_tiny_patch16_224", "random"),
    "smoke": ("shapes", "smoke", "shapes_vit", None),
}
GOAL = 1 / 1.5


def build_info(chosen: Preset, *, backbone: str, weights: str | None = "random", **other: Any) -> BuildInfo:
    """A network of 20 classes at a preset's sizes, on tags; `other`: `tier`, and fields that differ."""
    fields = {"crop": chosen.crop, "variant": "default", "labels": "tags", **other}
    return BuildInfo(
        num_classes=CLASSES,
        has_background=True,
        iterations=chosen.iterations,
        group=chosen.group,
        backbone=backbone,
        backbone_weights=weights,
        decoder=chosen.decoder,
        **fields,
    )


class MethodStep(ABC):
    """A method at one size, a batch, and its optimiser. Subclasses name it and run what the floor counts."""

    name: str
    view_names: tuple[str, ...] = ("view1",)
    method: Any
    build: Callable[..., Any]
    """The method as its preset has it but for the knobs that are given, drawn anew."""

    def __init__(self, size: str, images: int | None = None) -> None:
        family, tier, backbone, weights = SIZES[size]
        method = registry().choose(self.name)
        chosen = method.preset(family, tier, "default")
        info = build_info(chosen, tier=tier, backbone=backbone, weights=weights)
        torch.manual_seed(0)
        if method.base is not None and method.spec.trains_base:
            knobs = typed_knobs(method.base, method.base_preset(family, tier, "default").knobs)
            info = dataclasses.replace(info, base=resolve(method.base.build)(knobs, info))
        self.build = functools.partial(_built, method.spec, chosen.knobs, info)
        self.method = self.build()
        self.optimizer = self.method.optimizers()[0].optimizer
        count, side = images or chosen.batch, (chosen.crop, chosen.crop)
        rng = torch.Generator().manual_seed(0)
        coarse = {n: torch.randn(count, 3, side[0] // 16, side[1] // 16, generator=rng) for n in self.view_names}
        views = {n: torch.nn.functional.interpolate(c, size=side, mode="bicubic") for n, c in coarse.items()}
        tags = torch.zeros(count, CLASSES)
        tags[torch.arange(count), torch.arange(count) % CLASSES] = 1.0
        tags[::2, 7] = 1.0
        content = torch.ones(count, *side, dtype=torch.bool)
        self.batch = Batch(tuple(map(str, range(count))), views, tags, None, content)

    def run(self, at: int) -> None:
        """One step as the engine makes it."""
        torch.manual_seed(at)
        progress = Progress(at, TOTAL)
        out = self.method.step(self.batch, progress)
        torch.stack(list(out.losses.values())).sum().backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.method.update(out.stats, progress)

    def network(self, at: int) -> None:
        """The passes that the step reads, forward and backward: no loss but sums, no label maps."""
        torch.stack([p.sum() for p in self.outputs(Progress(at, TOTAL))]).sum().backward()
        self.optimizer.zero_grad(set_to_none=True)

    @abstractmethod
    def outputs(self, progress: Progress) -> list[Tensor]:
        """What the losses of a step read of the network."""


def _built(spec: MethodSpec, preset: Mapping[str, Any], info: BuildInfo, **knobs: Any) -> Any:
    return resolve(spec.build)(typed_knobs(spec, {**preset, **knobs}), info).train()


def cases(step_of: type[MethodStep], phases: Mapping[str, int], quick: bool) -> list[Case]:
    """A case for each size and phase (its step of a thousand); quick: two images and no goal."""
    return [_case(step_of, size, phase, at, quick) for size in SIZES for phase, at in phases.items()]


def _case(step_of: type[MethodStep], size: str, phase: str, at: int, quick: bool) -> Case:
    @functools.cache
    def step() -> MethodStep:
        return step_of(size, 2 if quick else None)

    @functools.cache
    def floor() -> Products:
        return products_of(lambda: step().network(at))

    @functools.cache
    def replay() -> Callable[[], None]:
        return floor().replay()

    def equal() -> str:
        again = products_of(replay())
        assert again.flops == floor().flops, f"{again.flops} and {floor().flops} operations"
        return f"floor: {again.flops / 1e9:.2f} GFLOP in {again.summary()}"

    return Case(
        f"{step_of.name} {size} {phase}",
        lambda: replay()(),
        lambda: step().run(at),
        equal,
        None if quick else GOAL,
        prepare=step,
        unit=SIZES[size][2],
    )
