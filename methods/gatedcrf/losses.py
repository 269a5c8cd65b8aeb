"""The gated CRF loss (sparse_baselines.md 3.1): nearby pixels of similar colour should bear the same label.

Axes: B images, K labels, h w cells of the logits, H W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from methods.parts.tensors import full_precision

Kernel = tuple[float, float, float | None]
"""Weight, sigma of the place in cells, sigma of the colour in units of the image, or None for a kernel of place."""
Window = tuple[slice, slice]


def gated_crf_loss(
    logits_BKhw: Tensor,
    images_B3HW: Tensor,
    *,
    kernels: Sequence[Kernel],
    radius: int = 5,
    source_BHW: Tensor | None = None,
    target_BHW: Tensor | None = None,
) -> Tensor:
    """Mean over cells of the energy of pairs with unlike labels in a window of `radius` cells; scalar >= 0.

    Images are averaged down to the cells, masks too, where only whole cells count. `source_BHW` gates the neighbours
    and `target_BHW` the centres; the mean runs over the last mask given. Without a source the window reaches over the
    border, which adds a constant, as published (sparse_baselines.md 3.4). Works in float32 under autocast too.
    Raises ValueError for no kernel.
    """
    if not kernels:
        raise ValueError("at least one kernel (weight, sigma_xy, sigma_rgb) is needed")
    with full_precision(logits_BKhw):
        hw = (int(logits_BKhw.shape[2]), int(logits_BKhw.shape[3]))
        probs = logits_BKhw.float().softmax(1)
        colours = F.adaptive_avg_pool2d(images_B3HW.float(), hw)
        source, target = _whole_cells(source_BHW, hw), _whole_cells(target_BHW, hw)
        last = target if target is not None else source
        count = float(probs[:, 0].numel()) if last is None else last.sum().clamp(min=1.0)
        energy = probs.new_zeros(())
        for here, there, offset in _half_window(hw, radius):
            with torch.no_grad():
                gate = _gates(source, target, here, there)
                near = _affinity(colours, here, there, offset, kernels)
                near = near if gate is None else near * gate
            same = (probs[(..., *here)] * probs[(..., *there)]).sum(1)
            energy = energy + (near * (1.0 - same)).sum()
        if source is None:
            energy = energy + _beyond_the_border(colours, target, radius, kernels)
        return energy / count


def _whole_cells(mask_BHW: Tensor | None, hw: tuple[int, int]) -> Tensor | None:
    """The mask averaged down, 1 where it is 1 throughout and 0 elsewhere, NaN included: float32 (B,h,w)."""
    if mask_BHW is None:
        return None
    return (F.adaptive_avg_pool2d(mask_BHW.float()[:, None], hw)[:, 0] >= 1.0).float()


def _half_window(hw: tuple[int, int], radius: int) -> Iterator[tuple[Window, Window, tuple[int, int]]]:
    """Every pair of cells of a window once: where one lies, where the other does, and (dy,dx) between them."""
    for dy in range(min(radius, hw[0] - 1) + 1):
        for dx in range(-radius if dy else 1, radius + 1):
            if abs(dx) < hw[1]:
                rows = slice(0, hw[0] - dy), slice(dy, hw[0])
                columns = slice(max(0, -dx), hw[1] - max(0, dx)), slice(max(0, dx), hw[1] - max(0, -dx))
                yield (rows[0], columns[0]), (rows[1], columns[1]), (dy, dx)


def _gates(source: Tensor | None, target: Tensor | None, here: Window, there: Window) -> Tensor | float:
    """d_i s_j + d_j s_i of a pair."""
    if source is None and target is None:
        return 2.0
    one = torch.ones((), device=(source if source is not None else target).device)  # type: ignore[union-attr]
    s_i, s_j = (source[(..., *here)], source[(..., *there)]) if source is not None else (one, one)
    d_i, d_j = (target[(..., *here)], target[(..., *there)]) if target is not None else (one, one)
    return d_i * s_j + d_j * s_i


def _affinity(
    colours: Tensor, here: Window, there: Window, offset: tuple[int, int], kernels: Sequence[Kernel]
) -> Tensor:
    """K_ij of pairs (B,h',w')."""
    apart_xy = float(offset[0] ** 2 + offset[1] ** 2)
    apart_rgb = (colours[(..., *here)] - colours[(..., *there)]).square().sum(1)
    total = torch.zeros_like(apart_rgb)
    for weight, sigma_xy, sigma_rgb in kernels:
        per_colour = -0.5 / sigma_rgb**2 if sigma_rgb else 0.0
        total += weight * (apart_rgb * per_colour - 0.5 * apart_xy / sigma_xy**2).exp()
    return total


@torch.no_grad()
def _beyond_the_border(colours: Tensor, target: Tensor | None, radius: int, kernels: Sequence[Kernel]) -> Tensor:
    """What neighbours outside the image add: black cells at place 0 that no label covers, as unfolding pads them."""
    h, w = colours.shape[-2:]
    y, x = (torch.arange(n, device=colours.device, dtype=colours.dtype) for n in (h, w))
    rows, columns = (at.clamp(max=radius) + (n - 1 - at).clamp(max=radius) + 1 for at, n in ((y, h), (x, w)))
    outside_hw = (2 * radius + 1) ** 2 - rows[:, None] * columns[None]
    place_hw = y[:, None].square() + x[None].square()
    colour_Bhw = colours.square().sum(1)
    near = torch.zeros_like(colour_Bhw)
    for weight, sigma_xy, sigma_rgb in kernels:
        per_colour = -0.5 / sigma_rgb**2 if sigma_rgb else 0.0
        near += weight * (colour_Bhw * per_colour - 0.5 * place_hw / sigma_xy**2).exp()
    return (near * outside_hw * (1.0 if target is None else target)).sum()
