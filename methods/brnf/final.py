"""What is added to the prototype CAM of an image that is written: the classifier's CAM, the GMM's posterior, or the
base seed as the gate leaves it (brnf.md 4).

Axes: C classes, K = C + 1 labels with background as channel 0, h w cells.
"""

from __future__ import annotations

import torch
from torch import Tensor

from harness.api.method import StepOutput
from methods.brnf.densities import pixels_of
from methods.brnf.method import Brnf
from methods.parts.ops.prototypes import background_cam


@torch.no_grad()
def added_maps(method: Brnf, pair: tuple[Tensor, Tensor, Tensor], tags_1C: Tensor, seed_Chw: Tensor | None) -> Tensor:
    """The maps (K,h,w) in [0,1] that the knob `final` names, of what the network's `maps` gives of an image and its
    mirror; absent classes 0.

    A seed without gate stays as it is. Raises ValueError for `final=seed` without `seed_Chw`.
    """
    config = method.config
    if config.final == "prototype":
        raise ValueError("final=prototype adds nothing")
    maps_1Chw, side_1Dhw = (one[:1] + one[1:].flip(-1) for one in (pair[0], pair[2]))
    grid = side_1Dhw.shape[-2:]
    valid_1K11 = torch.cat([torch.ones_like(tags_1C[:, :1]), tags_1C], dim=1)[:, :, None, None].float()
    if config.final == "classifier":
        return background_cam(maps_1Chw, valid_1K11)[0]
    v_1Dhw = (side_1Dhw if method.project is None else method.project(side_1Dhw)).float()
    pixels = pixels_of(v_1Dhw, valid_1K11.expand(-1, -1, *grid), tags_1C, config)
    if config.final == "gmm":
        assert method.f1 is not None, "BrnfConfig.problems refuses this"
        return method.f1.posterior(pixels).T.unflatten(1, grid)
    if seed_Chw is None:
        raise ValueError("final=seed needs the base's maps of the image")
    seed_1Khw = method.base_seed(seed_Chw[None], valid_1K11.expand(-1, -1, *grid))
    if method.f2 is not None:
        front_N = method.f2.front(pixels, seed_1Khw)[1]
        seed_1Khw = method.f2.gated(seed_1Khw, method.f2.scores(pixels, front_N), front_N, 1.0, StepOutput({}))
    return seed_1Khw[0]
