"""Knobs that several single-stage methods share, with their rules. No torch here: words are checked without it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from harness.api.inference import LARGEST_SCALE
from harness.api.spec import MethodConfig, knob
from harness.errors import Problem, nearest


def between(
    name: str, value: float, low: float, high: float, *, open_low: bool = False, open_high: bool = False
) -> list[Problem]:
    """A problem where `value` is outside the interval; ends are allowed unless open. NaN is outside."""
    above = value > low if open_low else value >= low
    below = value < high if open_high else value <= high
    if above and below:
        return []
    interval = f"{'(' if open_low else '['}{low:g},{high:g}{')' if open_high else ']'}"
    return [Problem(name, f"{value:g} is outside {interval}", f"give a number in {interval}")]


def ordered(low_name: str, low: float, high_name: str, high: float) -> list[Problem]:
    """A problem where the low threshold is not below the high one."""
    if low < high:
        return []
    return [Problem(low_name, f"{low:g} is not below {high_name}={high:g}", f"{low_name} < {high_name}")]


def not_negative(name: str, value: float) -> list[Problem]:
    """A problem where a weight is negative or not finite."""
    return between(name, value, 0.0, float("inf"), open_high=True)


def positive(name: str, value: float) -> list[Problem]:
    """A problem where a number is not above zero and finite."""
    return between(name, value, 0.0, float("inf"), open_low=True, open_high=True)


FURTHEST = 1024
"""Cells or pixels between neighbours at most: no image is wider."""
WIDEST = 65536
"""Channels of a layer, and things of which a method makes several, at most."""


def list_of(name: str, values: Sequence[float], low: float, high: float) -> list[Problem]:
    """A problem where a list is empty or holds numbers outside [low,high]."""
    if values and all(low <= v <= high for v in values):
        return []
    return [Problem(name, f"{tuple(values)}", f"at least one number, each in [{low:g},{high:g}]")]


def one_of(name: str, value: str, allowed: tuple[str, ...]) -> list[Problem]:
    """A problem where a word is not among those allowed."""
    if value in allowed:
        return []
    return [Problem(name, f"{value!r} is none of {', '.join(allowed)}", nearest(value, allowed))]


def each(rule: Callable[[str, float], list[Problem]], config: MethodConfig, names: Iterable[str]) -> list[Problem]:
    """The problems of one rule on several knobs."""
    return [problem for name in names for problem in rule(name, getattr(config, name))]


def share(name: str, value: float) -> list[Problem]:
    """A problem where a share or a probability is outside [0,1]."""
    return between(name, value, 0, 1)


def counted(name: str, value: float) -> list[Problem]:
    """A problem where a width or a number of things is below 1 or above `WIDEST`."""
    return between(name, value, 1, WIDEST)


def steps(name: str, value: float) -> list[Problem]:
    """A problem where a number of training steps is below 1, or beyond every training."""
    return between(name, value, 1, 1e9)


def blocks(name: str, value: float) -> list[Problem]:
    """A problem where a number of layers on top of one another is below 1 or above 64."""
    return between(name, value, 1, 64)


SHARE = "share of T"


@dataclass(frozen=True, kw_only=True)
class ViewKnobs(MethodConfig):
    """The random crops of fsr.md 2.1."""

    crop_area_min: float = knob(
        0.32, "smallest area of a random crop", unit="share of the image", source="fsr.md 2.1, code"
    )
    flip_probability: float = knob(0.5, "horizontal flip", unit="probability", source="fsr.md 2.1, code")
    jitter_probability: float = knob(0.5, "colour jitter", unit="probability", source="fsr.md 2.1, code")
    jitter_brightness: float = knob(0.4, "brightness factor is drawn from 1 +- this", source="fsr.md 2.1, code")
    jitter_contrast: float = knob(0.4, "contrast factor is drawn from 1 +- this", source="fsr.md 2.1, code")
    jitter_saturation: float = knob(0.2, "saturation factor is drawn from 1 +- this", source="fsr.md 2.1, code")
    jitter_hue: float = knob(0.1, "hue shift is drawn from +- this", unit="turns", source="fsr.md 2.1, code")
    imagenet_normalisation: bool = knob(
        False,
        "normalise by ImageNet's mean and deviation instead of the network's own",
        unit="bool",
        source="operators.md A1: true in the published code",
    )

    def problems(self) -> list[Problem]:
        """Rules on the views."""
        return [
            *super().problems(),
            *between("crop_area_min", self.crop_area_min, 0, 1, open_low=True),
            *each(share, self, ("flip_probability", "jitter_probability")),
            *each(share, self, ("jitter_brightness", "jitter_contrast", "jitter_saturation")),
            *between("jitter_hue", self.jitter_hue, 0, 0.5),
        ]


@dataclass(frozen=True, kw_only=True)
class OptimiserKnobs(MethodConfig):
    """AdamW with two learning rates, linear warm-up and half-cosine (fsr.md section 3)."""

    lr: float = knob(6e-5, "learning rate of the encoder", source="fsr.md 3, code")
    lr_factor: float = knob(
        1.0, "multiplies lr: what a search varies, as presets of other tiers have another lr", source="-"
    )
    head_lr_scale: float = knob(10.0, "learning rate of the heads, as a multiple of lr", source="fsr.md 3, code")
    weight_decay: float = knob(0.05, "AdamW decay of weights with two or more axes", source="fsr.md 3, code")
    warmup: float = knob(0.075, "linear warm-up", unit="share of T", source="fsr.md 3, paper: 1500 of 20000")
    warmup_start: float = knob(0.1, "learning-rate factor of the first step", source="fsr.md 3, code")
    drop_path: float = knob(
        0.1, "stochastic depth of the last block, linear from 0", unit="probability", source="fsr.md 2.2, code"
    )

    def problems(self) -> list[Problem]:
        """Rules on the optimiser."""
        return [
            *super().problems(),
            *each(positive, self, ("lr", "lr_factor", "head_lr_scale")),
            *not_negative("weight_decay", self.weight_decay),
            *between("warmup", self.warmup, 0, 1, open_high=True),
            *between("warmup_start", self.warmup_start, 0, 1),
            *between("drop_path", self.drop_path, 0, 1, open_high=True),
        ]


@dataclass(frozen=True, kw_only=True)
class DecoderKnobs(MethodConfig):
    """The segmentation head."""

    decoder_width: int = knob(
        512, "channels inside the decoder", unit="channels", source="operators.md A9", fit="width"
    )

    def problems(self) -> list[Problem]:
        """Rules on the decoder."""
        return [*super().problems(), *counted("decoder_width", self.decoder_width)]


@dataclass(frozen=True, kw_only=True)
class SegmenterKnobs(ViewKnobs, OptimiserKnobs, DecoderKnobs):
    """What every single-stage ViT method has."""


@dataclass(frozen=True, kw_only=True)
class ClassTokenKnobs(MethodConfig):
    """Whether the encoder of a plain baseline is that of FSR or that of ToCo and UniA."""

    class_token: bool = knob(
        False,
        "the class token runs through the encoder's blocks, over a frozen position table, as in ToCo and UniA; false: "
        "patch tokens alone, as in FSR",
        unit="bool",
        source="toco.md 2.2; fsr.md 2.2",
        added=True,
    )


@dataclass(frozen=True, kw_only=True)
class CompiledBlockKnobs(MethodConfig):
    """How an encoder's blocks are run."""

    compile_blocks: bool = knob(
        False,
        "the encoder's blocks run compiled (torch.compile), one program for all of them: fewer launches; the same up "
        "to the order of sums; the first steps take a minute",
        unit="bool",
        source="ours",
        silent=True,
    )


@dataclass(frozen=True, kw_only=True)
class PseudoKnobs(MethodConfig):
    """CAMs (A3), their refinement (A2) and the pseudo labels made of them (A5)."""

    cam_scales: tuple[float, ...] = knob(
        (1.0, 0.5, 1.5), "image scales that a CAM is summed over", source="operators.md A3"
    )
    pseudo_low: float = knob(0.25, "background score below which a pseudo label is background", source="fsr.md 3, code")
    pseudo_high: float = knob(0.7, "background score that a class must beat; COCO .65", source="fsr.md 3, code")
    par_iterations: int = knob(10, "iterations of the pixel-adaptive refinement", source="operators.md A2")
    par_dilations: tuple[int, ...] = knob(
        (1, 2, 4, 8, 12, 24), "distances of its neighbours", unit="px at half size", source="operators.md A2"
    )

    def problems(self) -> list[Problem]:
        """Rules on CAMs and pseudo labels."""
        return [
            *super().problems(),
            *list_of("cam_scales", self.cam_scales, 0.05, LARGEST_SCALE),
            *each(share, self, ("pseudo_low", "pseudo_high")),
            *ordered("pseudo_low", self.pseudo_low, "pseudo_high", self.pseudo_high),
            *between("par_iterations", self.par_iterations, 0, 1000),
            *list_of("par_dilations", self.par_dilations, 1, FURTHEST),
        ]


@dataclass(frozen=True, kw_only=True)
class TagSegmenterKnobs(SegmenterKnobs, PseudoKnobs, CompiledBlockKnobs):
    """What every single-stage ViT method that learns from tags has."""


@dataclass(frozen=True, kw_only=True)
class AuxSegmenterKnobs(TagSegmenterKnobs):
    """What those have that also read a classifier on an intermediate block, whose relations teach the tokens: FSR, ToCo
    and UniA."""

    w_cls: float = knob(1.0, "weight of the top classifier's loss", source="fsr.md 2.5, toco.md 2.6, unia.md 2.6, code")
    w_ptc: float = knob(0.2, "weight of the patch-token contrast", source="fsr.md 2.5, code; toco.md 2.7, code and log")
    w_seg: float = knob(0.1, "weight of the segmentation loss", source="fsr.md 2.5, toco.md 2.7, code")
    w_reg: float = knob(
        0.05,
        "weight of the dense energy, which starts with seg; the published lattice gives .55 of its sum",
        source="fsr.md 2.5, code, not in the paper; toco.md 2.7, unia.md 2.6, code and log",
    )
    ptc_start: float = knob(
        0.0,
        "the patch-token contrast starts here; COCO .15 (FSR, ToCo), .1 (UniA)",
        unit="share of T",
        source="fsr.md 2.5, toco.md 2.7, unia.md 2.6, code",
    )
    seg_start: float = knob(
        0.1,
        "segmentation loss and dense energy start here; COCO .1, UniA .2",
        unit="share of T",
        source="fsr.md 2.5, toco.md 2.7, unia.md 2.6, code: 2000 of 20000",
    )
    aux_block: int = knob(
        10,
        "block that feeds the auxiliary classifier, of 12; fitted by design section 4 e",
        unit="1-based block",
        source="toco.md 2.2, unia.md 2.1, code",
    )

    def problems(self) -> list[Problem]:
        """Rules on the auxiliary block, and on all weights and starts of losses."""
        starts = [n for n, f in self.knobs().items() if n.endswith("_start") and f.metadata["unit"] == SHARE]
        return [
            *super().problems(),
            *between("aux_block", self.aux_block, 1, 12),
            *each(not_negative, self, (name for name in self.knobs() if name.startswith("w_"))),
            *each(share, self, starts),
        ]


@dataclass(frozen=True, kw_only=True)
class ProjectorKnobs(MethodConfig):
    """The projection head of DINO (A10)."""

    projector_hidden: int = knob(
        2048, "hidden width of the projection head", unit="channels", source="operators.md A10", fit="width"
    )
    projector_bottleneck: int = knob(
        256, "bottleneck of the projection head", unit="channels", source="operators.md A10", fit="width"
    )
    projector_out: int = knob(4096, "prototypes K", source="operators.md A10; fsr.md 3, code", fit="width")

    @property
    def projector_sizes(self) -> tuple[int, int, int]:
        """Hidden width, bottleneck and K."""
        return self.projector_hidden, self.projector_bottleneck, self.projector_out

    def problems(self) -> list[Problem]:
        """Rules on the head."""
        return [*super().problems(), *each(counted, self, ProjectorKnobs.knobs())]
