"""BRNF's training step next to what it cannot do without: the step of its network without flows, and the matrix
products of both flows, of pixels that they learn from and of those that they are asked for (brnf.md 2)."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks import Case
from benchmarks.floor import products_of
from benchmarks.method_step import SIZES, TOTAL, MethodStep
from harness.api.method import Method, Progress, StepOutput
from methods.brnf.config import ABLATIONS
from methods.brnf.densities import Density

GOAL = 1 / 1.25
AT = 900
"""A step of a thousand with every term, and none at which samples are drawn."""


class BrnfStep(MethodStep):
    """The step on the base seeds of a batch, and the same network without flows."""

    name = "cam+brnf"

    def __init__(self, size: str, images: int | None = None) -> None:
        super().__init__(size, images)
        method = self.method
        torch.manual_seed(0)
        self.alone = self.build(**ABLATIONS["base"])
        count, cells = len(self.batch.tags_BC), method.transform().extra[0]
        seed = torch.rand(count, method.info.num_classes, cells, cells, generator=torch.Generator().manual_seed(1))
        self.batch = dataclasses.replace(self.batch, extra={"seed": seed * self.batch.tags_BC[:, :, None, None]})
        self.optimizers = {id(one): [p.optimizer for p in one.optimizers()] for one in (method, self.alone)}
        for density in (method.f1, method.f2):
            density.seen_K.fill_(1e6)

    def run(self, at: int) -> None:
        """One step as the engine makes it, with all optimisers."""
        self.of(self.method, at)

    def of(self, method: Method, at: int) -> StepOutput:
        """A step of the method or of the network alone."""
        torch.manual_seed(at)
        progress = Progress(at, TOTAL)
        out = method.step(self.batch, progress)
        torch.stack(list(out.losses.values())).sum().backward()
        for optimizer in self.optimizers[id(method)]:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        method.update(out.stats, progress)
        return out

    def outputs(self, progress: Progress) -> list[Tensor]:
        """What the flows give: pixels that they learn from, and all pixels."""
        method = self.method
        count = len(self.batch.tags_BC) * method.transform().extra[0] ** 2
        found: list[Tensor] = []
        for density in (method.f1, method.f2):
            assert isinstance(density, Density)
            learned = min(count, method.config.flow_pixels)
            found.append(density.density.likelihood(*density.density.latent(torch.randn(learned, method.dim))))
            with torch.no_grad():
                density.density.likelihood(*density.density.latent(torch.randn(count, method.dim)))
        return found

    def equal(self) -> str:
        """Network terms of a step are those of the network alone, bit by bit."""
        alone, beside = self.of(self.alone, AT).losses, self.of(self.method, AT).losses
        assert set(beside) == {*alone, "f1", "f2", "cal", "nce"}
        differ = [name for name in ("cls", "gsc") if not torch.equal(alone[name], beside[name])]
        assert not differ, f"{', '.join(differ)} differ from those of the network alone"
        return "cls and gsc bit-equal without flows"


def cases(quick: bool) -> list[Case]:
    """Sizes of tier lab and of the embedded dataset; quick: two images and no goal."""
    return [_case(size, quick) for size in SIZES]


def _case(size: str, quick: bool) -> Case:
    @functools.cache
    def step() -> BrnfStep:
        return BrnfStep(size, 2 if quick else None)

    @functools.cache
    def flows() -> Callable[[], None]:
        return products_of(lambda: step().network(AT)).replay()

    def floor() -> None:
        step().of(step().alone, AT)
        flows()()

    return Case(
        f"cam+brnf {size}",
        floor,
        lambda: step().run(AT),
        lambda: step().equal(),
        None if quick else GOAL,
        prepare=step,
        unit=SIZES[size][2],
    )
