"""How a segmenter sees an image that is scored: scales, mirrors, how they are fused, and the size that it is given.

Named protocols are those of the method cards; `flip` and `fusion` on the command line change a part of one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from harness.errors import Problem, nearest

Size = Literal["crop", "square", "original", "long", "tiles"]
Flip = Literal["none", "add", "mean", "max"]
FUSIONS = ("max", "sum", "mean")
FLIPS: Mapping[str, Flip] = {
    "false": "none", "off": "none", "no": "none", "none": "none", "true": "add", "on": "add", "yes": "add",
    "add": "add", "mean": "mean", "max": "max",
}  # fmt: skip
"""What the word `flip` may say: not at all, or how the scores of the two mirror images become one."""
LARGEST_SCALE = 8.0


@dataclass(frozen=True)
class Inference:
    """One inference protocol. Scores are the segmenter's logits, or with `of` its probabilities."""

    scales: tuple[float, ...] = (1.0,)
    flip: Flip = "none"
    fusion: str = "max"
    size: Size = "crop"
    """What a scale multiplies. `crop`: the image is resized to a square of the run's crop whatever its aspect, at each
    scale anew; `square`: once to that square, which is then resized to each scale, so that no scale sees more detail
    than the crop has (toco.md section 4, COCO); `original`: its own size; `long`: its long side becomes the crop;
    `tiles`: its own size, in overlapping squares of the crop (agmm.md section 4)."""
    of: Literal["logits", "probabilities"] = "logits"
    at: Literal["image", "map"] = "image"
    """Where mirrors and scales are fused: at the image's size, or at the score map of the first scale."""
    corners: bool = False
    """Resize with aligned corners and pad nothing, as convolutional networks have it; else sides are padded to the
    network's stride with the mean colour."""

    @property
    def single(self) -> bool:
        """Whether one plain forward pass at the training size is all."""
        return replace(self, fusion="max") == Inference()

    @property
    def scales_text(self) -> str:
        """Column `scales` of the table `evals`: `1,1.25,1.5`."""
        return ",".join(f"{s:g}" for s in self.scales)

    @property
    def fusion_text(self) -> str:
        """Column `fusion`: the rule, then each part that is not the default, as `max original flip-mean`."""
        parts = [self.fusion] + [self.size] * (self.size != "crop") + ["probabilities"] * (self.of != "logits")
        parts += [f"flip-{self.flip}"] * (self.flip in ("mean", "max"))
        return " ".join(parts + ["at-map"] * (self.at != "image") + ["corners"] * self.corners)

    def extras(self) -> dict[str, Any]:
        """What scales, a mirror that is added, and fusion do not say; empty for the usual protocols."""
        values = {"size": self.size, "of": self.of, "at": self.at, "corners": self.corners}
        usual = {"size": "crop", "of": "logits", "at": "image", "corners": False}
        found = {name: value for name, value in values.items() if value != usual[name]}
        return found | ({"flip": self.flip} if self.flip in ("mean", "max") else {})


SINGLE = Inference()
_FINAL = (1.0, 1.25, 1.5)
PROTOCOLS: Mapping[str, Inference] = {
    "single": SINGLE,
    "original": Inference(size="original"),
    "fsr": Inference(_FINAL, "add", "max", "original"),
    "toco": Inference(_FINAL, "add", "max", "original"),
    "toco-coco": Inference(_FINAL, "max", "sum", "square"),
    "unia": Inference(_FINAL, "add", "max"),
    "afa": Inference((1.0, 0.5, 0.75), "mean", "max", "long", at="map"),
    "agmm": Inference(
        (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0), "mean", "mean", "original", of="probabilities", corners=True
    ),
    "deeplab": Inference((0.5, 0.75, 1.0, 1.25, 1.5, 1.75), "mean", "mean", "original", of="probabilities"),
    "agmm-tiles": Inference(fusion="mean", size="tiles", of="probabilities", corners=True),
}
"""Sections "Evaluation" of fsr.md, toco.md (VOC; COCO), unia.md, afa.md, fsae.md (its DeepLabV2), agmm.md (VOC;
Cityscapes). `single` is what training-time scores and ablation tables use; `original` is AGMM's and AFA's training-time
form."""


def inference_of(scales: str | None, flip: str | None, fusion: str | None, usual: Inference) -> Inference:
    """The protocol that the words `scales` (a list, or a protocol's name), `flip` and `fusion` make of the usual one.

    The words are right (see `inference_problems`); None leaves what the named or usual protocol has.
    """
    chosen = usual
    if scales:
        named = PROTOCOLS.get(scales.strip())
        chosen = named or replace(usual, scales=tuple(float(s) for s in scales.split(",") if s.strip()))
    if flip:
        chosen = replace(chosen, flip=FLIPS[flip.lower()])
    return replace(chosen, fusion=fusion) if fusion else chosen


def inference_problems(scales: str | None, flip: str | None, fusion: str | None) -> list[Problem]:
    """What is wrong with these words."""
    problems = []
    if scales and scales.strip() not in PROTOCOLS:
        parts = [p.strip() for p in scales.split(",") if p.strip()]
        wrong = [p for p in parts if not _is_scale(p)]
        fix = f"for instance scales=1,1.25,1.5, or a protocol by name: {', '.join(PROTOCOLS)}"
        if wrong:
            near = nearest(wrong[0], PROTOCOLS)
            fix = near if near.startswith("did") else fix
        problems += [Problem("scales", f"{p!r} is no scale in (0,{LARGEST_SCALE:g}]", fix) for p in wrong]
        if not parts:
            problems.append(Problem("scales", f"{scales!r} holds no scale", fix))
    if flip and flip.lower() not in FLIPS:
        problems.append(Problem("flip", f"{flip!r} is unknown", nearest(flip, FLIPS)))
    if fusion and fusion not in FUSIONS:
        problems.append(Problem("fusion", f"{fusion!r} is unknown", nearest(fusion, FUSIONS)))
    return problems


def tile_starts(length: int, tile: int) -> tuple[int, ...]:
    """Where tiles begin along a side, pixels: a third of a tile apart, rounded up, the last one shifted inside.

    agmm.md section 4: 1024 and 2048 pixels with tiles of 721 give 3 and 7.
    """
    if length <= tile:
        return (0,)
    stride = -(-tile // 3)
    count = -(-(length - tile) // stride) + 1
    return tuple(min(i * stride, length - tile) for i in range(count))


def _is_scale(text: str) -> bool:
    try:
        return 0 < float(text) <= LARGEST_SCALE
    except ValueError:
        return False
