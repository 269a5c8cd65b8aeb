"""ToCo's training step next to the matrix products that its card makes unavoidable: views, crops, heads, both passes.

The reference is not a rival but the floor: the products of the step alone, without those of PAR, the dense energy and
label maps. A ratio of .667 means that the step costs 1.5 times its floor.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch

from benchmarks import Case
from benchmarks.floor import Products, products_of
from harness.knobs import typed_knobs
from harness.method import Batch, BuildInfo, Progress
from harness.registry import registry
from methods.parts.crops import cut_windows
from methods.toco.method import Toco
from methods.toco.method import build as build_toco
from methods.toco.model import Tokens
from methods.toco.presets import preset

CLASSES, TOTAL = 20, 1000
SIZES = {
    "lab": ("voc", "lab", "vit_tiny_patch16_224", "random"),
    "smoke": ("shapes", "smoke", "shapes_vit", None),
}
PHASES = {"before-seg": 50, "all": 900}
"""A step of a thousand before pseudo labels, and one with every term."""
GOAL = 1 / 1.5


class Step:
    """The method at one size, a batch, and its optimiser."""

    def __init__(self, size: str, images: int | None = None) -> None:
        family, tier, backbone, weights = SIZES[size]
        chosen = preset(family, tier, "default")
        info = BuildInfo(
            num_classes=CLASSES,
            has_background=True,
            crop=chosen.crop,
            iterations=chosen.iterations,
            group=chosen.group,
            tier=tier,
            variant="default",
            labels="tags",
            backbone=backbone,
            backbone_weights=weights,
            decoder=chosen.decoder,
        )
        torch.manual_seed(0)
        config = typed_knobs(registry().spec("toco"), chosen.knobs)
        self.method: Toco = build_toco(config, info).train()  # type: ignore[arg-type]
        self.optimizer = self.method.optimizers()[0].optimizer
        count = images or chosen.batch
        side = (chosen.crop, chosen.crop)
        rng = torch.Generator().manual_seed(0)
        coarse = {n: torch.randn(count, 3, side[0] // 16, side[1] // 16, generator=rng) for n in ("view1", "view2")}
        views = {n: torch.nn.functional.interpolate(c, size=side, mode="bicubic") for n, c in coarse.items()}
        views["local"] = views["view1"].clone()
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
        method, net, views = self.method, self.method.net, self.batch.views
        terms = method.active(Progress(at, TOTAL))
        count = len(self.batch.ids)
        both, class_BD = net.read(torch.cat([views["view1"], views["view2"]]))
        tokens = Tokens(both.hw, both.aux_BND[:count], both.top_BND[:count])
        method.cams(views["view1"], self.batch.tags_BC, tokens, with_top="seg" in terms)
        corner_Bn2 = torch.zeros(count, method.config.local_crops, 2, dtype=torch.int64)
        local = cut_windows(views["local"], corner_Bn2, method.local_side).flatten(0, 1)
        student = net.projector(torch.cat([class_BD, net.class_tokens(local)]))
        with torch.no_grad():
            teacher = method.projector_teacher(class_BD)
        parts = [net.both_maps_of(tokens), tokens.top_BND @ tokens.top_BND.transpose(1, 2), teacher @ student.T]
        if "seg" in terms:
            parts.append(net.segment(tokens.top_BND, tokens.hw))
        torch.stack([p.sum() for p in parts]).sum().backward()
        self.optimizer.zero_grad(set_to_none=True)


def cases(quick: bool) -> list[Case]:
    """Sizes of tier lab and of the embedded dataset; quick: two images."""

    def case(size: str, phase: str, at: int) -> Case:
        @functools.cache
        def step() -> Step:
            return Step(size, 2 if quick else None)

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
            f"toco {size} {phase}",
            lambda: replay()(),
            lambda: step().run(at),
            equal,
            None if quick else GOAL,
            prepare=step,
            unit=SIZES[size][2],
        )

    return [case(size, phase, at) for size in SIZES for phase, at in PHASES.items()]
