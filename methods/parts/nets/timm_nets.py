"""timm networks by name as they come: made for a crop, filled from a local file, and asked which sizes they take.

What changes here changes numbers of `methods.parts.nets.pyramids`, whose version stands for both.
Axes: B images, H W pixels.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import timm
import torch
from timm.models._features import FeatureGetterNet
from torch import Tensor, nn
from torch.nn import functional as F

from harness.errors import BadInput, Problem, nearest
from methods.parts.nets.backbones import RANDOM_WEIGHTS, whole_patches, whole_state
from methods.parts.nets.foreign import check_state, first_line, foreign

T = TypeVar("T")
REFUSED = (TypeError, NotImplementedError, RuntimeError, AssertionError, AttributeError, ValueError, LookupError)
"""What timm raises for words and image sizes that a network does not take."""
PROBE_CELLS = 5
"""Height of the image that is tried, in cells of the deep map; an odd one, which windows do not divide."""


@dataclass(frozen=True)
class Sizes:
    """Image sizes that a network takes: multiples of `multiple`, or the square `fixed` alone."""

    multiple: int = 1
    fixed: int | None = None

    def fit(self, images_B3HW: Tensor) -> Tensor:
        """The images, resized (bilinear) to the nearest size that the network takes."""
        if self.fixed is None:
            return whole_patches(images_B3HW, self.multiple)
        if images_B3HW.shape[-2:] == (self.fixed, self.fixed):
            return images_B3HW
        return F.interpolate(images_B3HW, size=(self.fixed, self.fixed), mode="bilinear", align_corners=False)


@torch.no_grad()
def sizes_taken(
    net: Any, forward: Callable[[Tensor], T], stride: int, choices: Sequence[Sizes], crop: int
) -> tuple[Sizes, T]:
    """The first of `choices` with which `forward` goes through, and what it gave, by trying it on blank images.

    Raises the network's own error for the last of them.
    """
    training = net.training
    net.eval()  # nothing random is drawn, so what is initialised later comes out as it would without the try
    last: Exception | None = None
    # Low, so that it costs little; wider than any table of positions that was made for the crop or the pretraining.
    probe = PROBE_CELLS * max(stride, 16) + 3, 2 * max(crop, net.pretrained_cfg["input_size"][-1]) + 3
    try:
        for sizes in choices:
            sides = [probe, (crop, crop)] if sizes.multiple > 1 or sizes.fixed else [probe]
            try:
                outputs = [forward(sizes.fit(torch.zeros(1, 3, h, w))) for h, w in sides]
            except REFUSED as error:
                last = error
            else:
                return sizes, outputs[-1]
    finally:
        net.train(training)
    assert last is not None
    raise last


def check_name(name: str, own: tuple[str, ...]) -> None:
    """Raises BadInput for a network or a tag of weights that timm does not know; `own` are the house's networks."""
    arch, _, tag = name.partition(".")
    if not timm.is_model(arch):
        fix = nearest(arch, [*timm.list_models(), *own])
        raise BadInput(Problem("backbone.name", f"timm knows no {arch!r}", fix[:200]))
    tags = [full.partition(".")[2] for full in timm.list_pretrained(arch)]
    if tag and tag not in tags:
        raise BadInput(Problem("backbone.name", f"{arch} has no weights tagged {tag!r}", nearest(tag, tags)))


def create(name: str, weights: str | None, words: Mapping[str, Any]) -> Any:
    """The network with the weights of timm's hub (None), at random, or of a local file.

    Raises one of `REFUSED` for words that it does not take, and BadInput where weights cannot be fetched or do not fit.
    """
    try:
        net = timm.create_model(name, pretrained=weights is None, **words)
    except REFUSED:
        raise
    except Exception as error:
        found = f"{name} cannot be fetched: {first_line(error)}"
        fix = f"give a local file, or backbone.weights={RANDOM_WEIGHTS} to train from scratch"
        raise BadInput(Problem("backbone.weights", found, fix)) from error
    if weights not in (None, RANDOM_WEIGHTS):
        _load(net, name, str(weights), flat="features_only" in words and not isinstance(net, FeatureGetterNet))
    return net


def _load(net: nn.Module, name: str, path: str, *, flat: bool) -> None:
    """Load a local file of the whole network; its classifier and what lies behind the last map are left out."""
    try:
        if flat:
            with torch.device("meta"):
                names = timm.create_model(name, pretrained=False).state_dict()
            state = whole_state(path, names)
            built = {key.replace(".", "_") for key in net.state_dict()}
            parts = {key: value for key, value in names.items() if key.replace(".", "_") in built}
            check_state(state, parts, name, path, names)
            # Networks that give maps write dots of module names as underscores where they flatten them.
            state = {key.replace(".", "_"): value for key, value in state.items()}
            net.load_state_dict({key: state[key.replace(".", "_")] for key in net.state_dict()})
            return
        whole = net.model if isinstance(net, FeatureGetterNet) else net
        state = whole_state(path, whole.state_dict())
        # timm's own filter fits position tables to another size; its own loading only warns of missing keys.
        fit = getattr(sys.modules[type(whole).__module__], "checkpoint_filter_fn", None)
        state = fit(state, whole) if fit else state
        check_state(state, whole.state_dict(), name, path)
        whole.load_state_dict(state, strict=False)
    except REFUSED as error:
        raise foreign(name, path, error) from error
