"""A8: dense energy, which asks pixels of like colour near each other for like classes.

The filter is an unnormalised Gaussian over position and colour. Its sum over all pairs of pixels costs N^2; here each
pixel that is asked sums over a regular subset of the pixels, each of which stands for its block. That needs products
of matrices and one exponential only: no lattice, no hash, nothing to compile, the same on every device.

Axes: B images, K labels, H W pixels, h w tokens, T pixels that are asked, S pixels that are summed over.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from harness.api.vocabulary import IGNORE
from methods.parts.ops.cam import resize
from methods.parts.tensors import full_precision

VERSION = 2

GRID = 56
"""Most summed pixels per side by default. On photos at 448 and 160 pixels the loss then lies within 1 % of the sum over
all pairs, its gradient by smooth logits within 9 % (cosine above .995)."""
ALL_PAIRS = 23
"""Half-size pixels a side up to which all pairs are summed by default: every second of so few is a third off and more,
and all of them cost nothing. Images of 48 pixels and more keep the numbers that runs on record have."""

# Pairs of pixels held at once: on a CPU this many stay in its cache.
_PAIRS = {"cpu": 1 << 19}
_PAIRS_ELSEWHERE = 1 << 26
# Smaller exponents give subnormal weights, which cost a CPU ten times as much and add nothing.
_SMALLEST = -60.0


def dense_energy_loss(
    logits_BKhw: Tensor,
    pixels_B3HW: Tensor,
    label_BHW: Tensor,
    content_BHW: Tensor | None = None,
    *,
    sigma_rgb: float = 15.0,
    sigma_xy: float = 100.0,
    weight: float = 1e-7,
    size: int | None = None,
) -> Tensor:
    """Energy of softmax(logits) under the image's colours: scalar <= 0, float32, lowered by agreement (A8).

    `pixels_B3HW` 0..255, `label_BHW` label values (255 = ignored: asked fully), `content_BHW` true on real pixels
    (None: all). Sums run at half size, over at most `size` pixels a side; None: all of up to `ALL_PAIRS`, of more at
    most `GRID` and no more than every second.
    The gradient is the card's: confidence gates are constants, on the asked side only. Sigmas in levels of 255 and
    in pixels of the full image. Raises ValueError where sizes differ or the image is smaller than 2 pixels.
    """
    _check(pixels_B3HW, label_BHW, content_BHW)
    full = (int(pixels_B3HW.shape[-2]), int(pixels_B3HW.shape[-1]))
    half = (full[0] // 2, full[1] // 2)
    if size is None and max(half) > ALL_PAIRS:
        step = max(2, -(-max(half) // GRID))
    else:
        step = max(1, -(-max(half) // (size or ALL_PAIRS)))
    ask = max(min(step, 2), step // 2)
    # Asked and summed pixels lie apart where there is room: none stands for a block around itself.
    asked, summed = _Grid(full, ask, first=(step // 2 + 1) % ask), _Grid(full, step, first=step // 2)
    with full_precision(logits_BKhw):
        asked_BTK = asked.shares(logits_BKhw)
        with torch.no_grad():
            features_BHWF = _features(pixels_B3HW, sigma_rgb, sigma_xy)
            real_BHW = torch.ones_like(label_BHW, dtype=torch.float32) if content_BHW is None else content_BHW.float()
            here_BT1, there_BS1 = (grid.pick(real_BHW[:, ::2, ::2, None]) for grid in (asked, summed))
            source_BSK = summed.shares(logits_BKhw) * there_BS1
            filtered_BTK = gaussian_sum(asked.pick(features_BHWF), summed.pick(features_BHWF), source_BSK)
            ignored_BT1 = asked.pick((label_BHW == IGNORE)[:, ::2, ::2, None])
            gate_BT1 = (here_BT1 - asked_BTK.amax(dim=-1, keepdim=True)).clamp_(min=0.0)
            gate_BT1 = torch.where(ignored_BT1, 1.0, gate_BT1)
            scale = -2.0 * weight / len(asked_BTK) * asked.block * summed.block
            slope_BTK = filtered_BTK.mul_(scale * here_BT1 * gate_BT1)
        carrier = (asked_BTK * slope_BTK).sum()
    # Half of it is the loss; all of it has the card's gradient.
    return carrier - 0.5 * carrier.detach()


@torch.no_grad()
def gaussian_sum(asked_BTF: Tensor, summed_BSF: Tensor, values_BSK: Tensor) -> Tensor:
    """Sum of `values_BSK` weighted by exp(-|difference of features|^2 / 2): (B,T,K) (A8, unnormalised).

    Features in standard deviations, near zero mean: exponents are exact to 1e-4 then.
    """
    square_BT1 = asked_BTF.square().sum(dim=-1, keepdim=True).mul_(-0.5)
    square_BS1 = summed_BSF.square().sum(dim=-1, keepdim=True).mul_(-0.5)
    # One product gives the exponents: a.b - |a|^2/2 - |b|^2/2.
    left_BTG = torch.cat([asked_BTF, square_BT1, torch.ones_like(square_BT1)], dim=-1)
    right_BGS = torch.cat([summed_BSF, torch.ones_like(square_BS1), square_BS1], dim=-1).transpose(1, 2).contiguous()
    pairs = _PAIRS.get(asked_BTF.device.type, _PAIRS_ELSEWHERE)
    rows = max(1, pairs // max(1, len(asked_BTF) * summed_BSF.shape[1]))
    values_BSK = values_BSK.contiguous()
    parts = [
        (part @ right_BGS).clamp_(min=_SMALLEST).exp_() @ values_BSK
        for part in left_BTG.contiguous().split(rows, dim=1)
    ]
    return torch.cat(parts, dim=1)


def exact_energy(
    logits_BKhw: Tensor,
    pixels_B3HW: Tensor,
    label_BHW: Tensor,
    content_BHW: Tensor | None = None,
    *,
    sigma_rgb: float = 15.0,
    sigma_xy: float = 100.0,
    weight: float = 1e-7,
) -> Tensor:
    """`dense_energy_loss` over all pairs of half-size pixels, straight from the formula, float64 scalar (A8).

    The reference for tests: seconds per image at 224 pixels. Raises ValueError as the fast form does.
    """
    _check(pixels_B3HW, label_BHW, content_BHW)
    size = (pixels_B3HW.shape[-2], pixels_B3HW.shape[-1])
    shares_BKHW = resize(logits_BKhw.double(), size).softmax(dim=1)
    p_BKN = F.avg_pool2d(shares_BKHW, 2).flatten(2)
    h, w = size[0] // 2, size[1] // 2

    def halved(maps: Tensor) -> Tensor:
        return maps[..., ::2, ::2][..., :h, :w].flatten(-2)

    real_BN = torch.ones_like(p_BKN[:, 0]) if content_BHW is None else halved(content_BHW).double()
    gate_BN = (real_BN - p_BKN.detach().amax(dim=1)).clamp(min=0.0).masked_fill(halved(label_BHW) == IGNORE, 1.0)
    y_N, x_N = (torch.arange(h * w, device=p_BKN.device).double() // w), torch.arange(h * w, device=p_BKN.device) % w
    colour_B3N = halved(pixels_B3HW).double()
    q_BKN = (p_BKN * real_BN[:, None]).detach()
    rows = []
    for i in range(0, h * w, 256):
        part = slice(i, i + 256)
        near = ((y_N[part, None] - y_N).square() + (x_N[part, None] - x_N).square()) / (sigma_xy / 2) ** 2
        alike = (colour_B3N[:, :, part, None] - colour_B3N[:, :, None]).square().sum(dim=1) / sigma_rgb**2
        rows.append(torch.exp(-0.5 * (near + alike)) @ q_BKN.transpose(1, 2))
    filtered_BKN = torch.cat(rows, dim=1).transpose(1, 2)
    slope_BKN = -2.0 * weight / len(p_BKN) * (real_BN * gate_BN)[:, None] * filtered_BKN
    carrier = (p_BKN * slope_BKN).sum()
    return carrier - 0.5 * carrier.detach()


class _Grid:
    """Every `step`-th pixel, from `first` on, of the half-size image."""

    def __init__(self, full: tuple[int, int], step: int, first: int) -> None:
        self.full, self.half = full, (full[0] // 2, full[1] // 2)
        self.rows, self.columns = (slice(min(first, n - 1), n, step) for n in self.half)

    @property
    def block(self) -> float:
        """Half-size pixels that each one stands for."""
        count = len(range(*self.rows.indices(self.half[0]))) * len(range(*self.columns.indices(self.half[1])))
        return self.half[0] * self.half[1] / count

    def pick(self, maps_BhwF: Tensor) -> Tensor:
        """The pixels (B,n,F) of half-size maps."""
        return maps_BhwF[:, self.rows, self.columns].flatten(1, 2)

    def shares(self, logits_BKhw: Tensor) -> Tensor:
        """Class shares (B,n,K): the mean softmax of the four full-size pixels of each half-size one.

        Interpolates at these pixels alone: two small products of matrices, whose backward is as cheap.
        """
        logits = logits_BKhw.float()
        down = _interpolation(logits.shape[-2], self.full[0], self.rows, logits)
        across = _interpolation(logits.shape[-1], self.full[1], self.columns, logits)
        quads_BYXK = torch.einsum("bkhw,Yh,Xw->bYXk", logits, down, across).softmax(dim=-1)
        quads = quads_BYXK.unflatten(2, (-1, 2)).unflatten(1, (-1, 2))
        return quads.mean(dim=(2, 4)).flatten(1, 2)


def _interpolation(old: int, full: int, kept: slice, like: Tensor) -> Tensor:
    """Matrix (2n,old) of a linear resize to `full`: the rows of both pixels of each of n kept half-size ones."""
    unit_1oo = torch.eye(old, device=like.device)[None]
    matrix_oF = unit_1oo[0] if old == full else F.interpolate(unit_1oo, size=full, mode="linear")[0]
    return matrix_oF.T[: full // 2 * 2].unflatten(0, (-1, 2))[kept].flatten(0, 1)


def _features(pixels_B3HW: Tensor, sigma_rgb: float, sigma_xy: float) -> Tensor:
    """Colour and position (B,H/2,W/2,5) of half-size pixels in standard deviations, image mean 0."""
    colour_BhwF = pixels_B3HW[..., ::2, ::2].permute(0, 2, 3, 1).float() / sigma_rgb
    batch, h, w, _ = colour_BhwF.shape
    y, x = (torch.arange(n, device=colour_BhwF.device, dtype=torch.float32) / (sigma_xy / 2) for n in (h, w))
    place_hwF = torch.stack(torch.meshgrid(y, x, indexing="ij"), dim=-1)
    features = torch.cat([colour_BhwF, place_hwF.expand(batch, -1, -1, -1)], dim=-1)
    return features - features.mean(dim=(1, 2), keepdim=True)


def _check(pixels_B3HW: Tensor, label_BHW: Tensor, content_BHW: Tensor | None) -> None:
    size = pixels_B3HW.shape[-2:]
    for name, maps in (("labels", label_BHW), ("content", content_BHW)):
        if maps is not None and maps.shape[-2:] != size:
            raise ValueError(f"pixels {tuple(size)} and {name} {tuple(maps.shape[-2:])} differ in size")
    if min(size) < 2:
        raise ValueError(f"an image of {tuple(size)} pixels has no half size")
