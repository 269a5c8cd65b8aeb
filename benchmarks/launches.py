"""`python -m benchmarks.launches [method ...]`: operations that a step launches at ViT-B, 448 px, in the paper preset.

Counted on device `meta`, so on no device at all: forward, losses and backward, attention as one operation as on a GPU,
views and the optimiser not counted.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from benchmarks.method_step import CLASSES, build_info
from harness.api.method import Batch, Extents, Method
from harness.api.registry import registry
from harness.api.spec import resolve
from harness.plan.knobs import typed_knobs
from harness.testing.waiting import META, watch_step

PRESENT, PHASES = 2, 2
METHODS = (("fsr", "default"), ("fsr", "paper"), ("toco", "default"), ("unia", "default"), ("cam", "default"),
           ("full", "default"))  # fmt: skip
GOAL = 3500
"""Of FSR's step."""


@dataclass(frozen=True)
class Row:
    """Launches in the middle of a run, where all terms are on."""

    name: str
    apart: int
    """Groups one after the other."""
    together: int
    """All groups' passes at once."""
    batch: str
    """Images of a step, and of a group."""


def built(name: str, variant: str, backbone: str, crop: int) -> tuple[Method, list[Batch]]:
    """A method in its paper preset, without numbers, and the groups of a batch."""
    method = registry().choose(name)
    chosen = method.preset("voc", "paper", variant)
    labels = method.spec.labels[0]
    info = build_info(chosen, tier="paper", variant=variant, labels=labels, backbone=backbone, crop=crop)
    with torch.device(META):
        made = resolve(method.spec.build)(typed_knobs(method.spec, chosen.knobs), info)
        views = {view: torch.zeros(chosen.group, 3, crop, crop) for view in made.view_names}
        label_BHW = torch.zeros(chosen.group, crop, crop, dtype=torch.int64)
        group = Batch(
            tuple(map(str, range(chosen.group))),
            views,
            torch.zeros(chosen.group, CLASSES),
            label_BHW if labels == "masks" else None,
            torch.ones(chosen.group, crop, crop, dtype=torch.bool),
            extents=Extents(PRESENT, PRESENT + 1, label_BHW.numel()),
        )
    return made, [group] * (chosen.batch // chosen.group)


def row(name: str, variant: str, backbone: str = "vit_base_patch16_224", crop: int = 448) -> Row:
    """The launches of a method's step."""
    method, groups = built(name, variant, backbone, crop)
    apart, together = (watch_step(method, *some, phases=PHASES).launches for some in (groups[:1], groups))
    shown = name if variant == "default" else f"{name} variant={variant}"
    size = len(groups[0].ids)
    batch = f"{len(groups) * size} images in groups of {size}"
    return Row(shown, len(groups) * apart[0.5], together[0.5], batch)


def show(chosen: Sequence[str]) -> None:
    """Print the table, of all methods or of those that are chosen."""
    print("launches a step, ViT-B, 448 px")
    for name, variant in METHODS:
        if chosen and name not in chosen:
            continue
        found = row(name, variant)
        print(
            f"{found.name:18}  groups apart {found.apart:6,}  together {found.together:6,}  {found.batch}", flush=True
        )


if __name__ == "__main__":
    show(sys.argv[1:])
