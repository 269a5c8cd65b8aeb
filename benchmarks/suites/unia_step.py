"""UniA's training step next to the matrix products that its card makes unavoidable: both passes, heads, module, views.

The reference is not a rival but the floor: the products of the step alone, without those of the dense energy and
of label maps. A ratio of .667 means that the step costs 1.5 times its floor.
"""

from __future__ import annotations

import functools

import torch

from benchmarks import Case
from benchmarks.floor import Products, products_of
from harness.knobs import typed_knobs
from harness.method import Batch, BuildInfo, Progress
from harness.registry import registry
from methods.unia.labels import routing
from methods.unia.method import Unia
from methods.unia.method import build as build_unia
from methods.unia.presets import preset

CLASSES, TOTAL = 20, 1000
SIZES = {
    "lab": ("voc", "lab", "vit_tiny_patch16_224", "random"),
    "smoke": ("shapes", "smoke", "shapes_vit", None),
}
PHASES = {"before-seg": 50, "refined": 900}
"""A step of a thousand before pseudo labels, and one with every term and refined labels."""
GOAL = 1 / 1.5


class Step:
    """The method at one size, a batch, and its optimiser."""

    def __init__(self, size: str, images: int | None = None) -> None:
        family, tier, backbone, weights = SIZES[size]
        chosen = preset(family, tier, "default")
        self.config = typed_knobs(registry().spec("unia"), chosen.knobs)
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
        self.method: Unia = build_unia(self.config, info).train()  # type: ignore[arg-type]
        self.optimizer = self.method.optimizers()[0].optimizer
        count = images or chosen.batch
        rng = torch.Generator().manual_seed(0)
        coarse = torch.randn(count, 3, chosen.crop // 16, chosen.crop // 16, generator=rng)
        side = (chosen.crop, chosen.crop)
        views = {"view1": torch.nn.functional.interpolate(coarse, size=side, mode="bicubic")}
        tags = torch.zeros(count, CLASSES)
        tags[torch.arange(count), torch.arange(count) % CLASSES] = 1.0
        tags[::2, 7] = 1.0
        self.batch = Batch(tuple(map(str, range(count))), views, tags, None, None)
        self.unit = f"{backbone}, {chosen.crop} px, B={count}"

    def run(self, at: int) -> None:
        """One step as the engine makes it."""
        torch.manual_seed(at)
        out = self.method.step(self.batch, Progress(at, TOTAL))
        torch.stack(list(out.losses.values())).sum().backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def network(self, at: int) -> None:
        """Both passes of the network that the step reads, and its CAM passes: no loss but a sum, no label maps."""
        route = routing(self.method.config, Progress(at, TOTAL))
        net, images = self.method.net, self.batch.views["view1"]
        tokens = net.read(images, with_affinity=route.affinity, with_mean="kl" in route.terms)
        with torch.no_grad():
            self.method.cams(images, self.batch.tags_BC, tokens, route)
        parts = [net.both_maps_of(tokens), tokens.top_BND @ tokens.top_BND.transpose(1, 2)]
        parts += [t for t in (tokens.affinity_BNN, tokens.mean_BND) if t is not None]
        if route.terms & {"seg", "reg"}:
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
        def replay() -> object:
            return floor().replay()

        def equal() -> str:
            again = products_of(replay())  # type: ignore[arg-type]
            assert again.flops == floor().flops, f"{again.flops} and {floor().flops} operations"
            return f"floor: {again.flops / 1e9:.2f} GFLOP in {again.summary()}"

        return Case(
            f"unia {size} {phase}",
            lambda: replay()(),  # type: ignore[operator]
            lambda: step().run(at),
            equal,
            None if quick else GOAL,
            prepare=step,
            unit=SIZES[size][2],
        )

    return [case(size, phase, at) for size in SIZES for phase, at in PHASES.items()]
