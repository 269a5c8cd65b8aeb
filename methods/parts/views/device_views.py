"""Training views whose pixels are made on the device, a group at a time: draws stay on the host, image by image.

Drawn and rounded as PIL's, 8 bits kept between operations: colours, mirrors and solarisation are equal to the byte,
resized and blurred values to one level where a sum lies between two.

Axes: B images, V views, 3 colours, H W pixels of the images, h w pixels of a view.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from harness.api.dataset import Sample
from harness.api.method import Batch, Views
from methods.parts.tensors import constant, full_precision
from methods.parts.views.augment import Window, label_tensor
from methods.parts.views.colour import Colours, hue_shift
from methods.parts.views.crop_views import CropViews

VERSION = 1
"""Raised when a view comes out differently."""
PIXELS, DRAWS = "pixels", "draws"
"""What travels in place of views: images uint8 (3,H,W), padded to the group's largest, and draws float32 (V,16)."""
CHANGES = ("brightness", "contrast", "saturation", "hue")
NO_CHANGE = -1.0
LUMA = (19595.0, 38470.0, 7471.0)
"""Of 65536: PIL's weights of red, green and blue (ITU-R 601)."""
BOXES = 3
"""Box filters that make up PIL's blur."""


@dataclass(frozen=True)
class DeviceViews:
    """The two halves of `CropViews`: called, it draws what they draw and hands pixels on as they are; `finished` makes
    the views of a whole group of them on its device."""

    views: CropViews

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Views:
        """The image and its draws; label int64 (crop,crop) and what travels with the image follow the first view."""
        views, size = self.views, (sample.image_HW3.shape[0], sample.image_HW3.shape[1])
        drawn = [(*views.geometry(size, rng), views.colours(rng)) for _ in views.names]
        window, mirrored, _ = drawn[0]
        label = views.cut_label(sample.label_HW, window, mirrored)
        pixels_3HW = torch.from_numpy(np.ascontiguousarray(sample.image_HW3.transpose(2, 0, 1)))
        extra = views.warp(size, window, mirrored)(sample.extra)
        return Views({PIXELS: pixels_3HW}, label_tensor(label), extra={**extra, DRAWS: drawn_numbers(drawn)})

    @torch.no_grad()
    def finished(self, batch: Batch) -> Batch:
        """The batch with float32 views (B,3,crop,crop), as `CropViews` normalises them; never waits for the device."""
        views, draws_BVn = self.views, batch.extra[DRAWS]
        with full_precision(draws_BVn):
            pixels_B3HW = batch.views[PIXELS].float()
            made = {}
            for name, draws_Bn in zip(views.names, draws_BVn.unbind(1), strict=True):
                view_B3hw = recoloured(placed(pixels_B3HW, draws_Bn, views.crop), draws_Bn, views.most_blur)
                made[name] = normalised(view_B3hw, views.mean, views.std)
        extra = {name: one for name, one in batch.extra.items() if name != DRAWS}
        return dataclasses.replace(batch, views=made, extra=extra)


def drawn_numbers(drawn: Sequence[tuple[Window, bool, Colours]]) -> Tensor:
    """float32 (V,16): window (4), mirrored, blur's deviation, threshold of solarisation, none, and up to four changes
    of colour with their factors (8), in order."""
    rows = []
    for window, mirrored, colours in drawn:
        steps: list[tuple[float, float]] = [
            (CHANGES.index(name), hue_shift(by) if name == "hue" else by) for name, by in colours.jitter.steps
        ]
        steps += [(NO_CHANGE, 0.0)] * (len(CHANGES) - len(steps))
        rows.append([*window, mirrored, colours.blur, colours.solarise, 0.0, *(n for step in steps for n in step)])
    return torch.tensor(rows, dtype=torch.float32)


def placed(pixels_B3HW: Tensor, draws_Bn: Tensor, crop: int) -> Tensor:
    """The windows of images, resized to (B,3,crop,crop) by PIL's bicubic filter and mirrored: whole numbers 0..255."""
    top_B, left_B, height_B, width_B, mirrored_B = draws_Bn.double().unbind(1)[:5]
    across_Bww = resampling(left_B, width_B, pixels_B3HW.shape[3], crop, mirrored_B)
    down_Bhh = resampling(top_B, height_B, pixels_B3HW.shape[2], crop, torch.zeros_like(mirrored_B))
    wide_B3Hw = _levels(pixels_B3HW @ across_Bww[:, None].mT)
    return _levels(down_Bhh[:, None] @ wide_B3Hw)


def resampling(first_B: Tensor, length_B: Tensor, side: int, out: int, mirrored_B: Tensor) -> Tensor:
    """float32 (B,out,side): what each pixel of a line of `side` gives to the pixels of its window at `out` pixels.

    As PIL has it (its `precompute_coeffs`, bicubic with a = -.5): antialiased where it shrinks, sums of 1, nothing from
    outside the window. `first_B` and `length_B` are whole numbers, float64, so that no border moves by round-off.
    """
    at_o = torch.arange(out, dtype=torch.float64, device=first_B.device) + 0.5
    at_Bo = torch.where(mirrored_B[:, None] > 0, out - at_o, at_o)
    scale_B1 = (length_B / out)[:, None]
    from_s = torch.arange(side, dtype=torch.float64, device=first_B.device) + 0.5
    within_Bs = from_s - first_B[:, None]
    apart_Bos = (within_Bs[:, None] - (at_Bo * scale_B1)[..., None]).abs() / scale_B1.clamp(min=1.0)[..., None]
    near = (1.5 * apart_Bos - 2.5) * apart_Bos**2 + 1.0
    far = -0.5 * (((apart_Bos - 5.0) * apart_Bos + 8.0) * apart_Bos - 4.0)
    weight_Bos = torch.where(apart_Bos < 1.0, near, torch.where(apart_Bos < 2.0, far, 0.0))
    inside_Bs = (within_Bs > 0) & (within_Bs < length_B[:, None])
    weight_Bos = weight_Bos * inside_Bs[:, None]
    return (weight_Bos / weight_Bos.sum(-1, keepdim=True)).float()


def recoloured(view_B3hw: Tensor, draws_Bn: Tensor, most_blur: float = 0.0) -> Tensor:
    """Whole numbers (B,3,h,w) in 0..255 in the colours drawn for each image: jitter in its order, blur, solarisation.

    `most_blur` is the largest deviation that can be drawn; with 0 nothing is blurred.
    """
    columns = draws_Bn[:, 8:].unbind(1)
    for kind_B, by_B in zip(columns[::2], columns[1::2], strict=True):
        view_B3hw = _changed(view_B3hw, kind_B, by_B)
    if most_blur:
        view_B3hw = blurred(view_B3hw, draws_Bn[:, 5], most_blur)
    inverted = view_B3hw >= draws_Bn[:, 6, None, None, None]
    return torch.where(inverted, 255.0 - view_B3hw, view_B3hw)


def _changed(view_B3hw: Tensor, kind_B: Tensor, by_B: Tensor) -> Tensor:
    """One change of colour, of another kind for each image: PIL's blend with black, mean grey or grey, or its hue."""
    luma_B1hw = luma(view_B3hw)
    mean_B111 = (luma_B1hw.mean((1, 2, 3), dtype=torch.float64, keepdim=True) + 0.5).floor().float()
    kind_B111, by_B111 = kind_B[:, None, None, None], by_B[:, None, None, None]
    against = torch.where(kind_B111 == CHANGES.index("contrast"), mean_B111, luma_B1hw)
    against = torch.where(kind_B111 == CHANGES.index("brightness"), 0.0, against)
    mixed_B3hw = (against + by_B111 * (view_B3hw - against)).clamp(0.0, 255.0).floor()
    turned_B3hw = hue_moved(view_B3hw, by_B111)
    out = torch.where(kind_B111 == CHANGES.index("hue"), turned_B3hw, mixed_B3hw)
    return torch.where(kind_B111 == NO_CHANGE, view_B3hw, out)


def luma(view_B3hw: Tensor) -> Tensor:
    """(B,1,h,w): PIL's grey, a whole number."""
    red, green, blue = view_B3hw.split(1, dim=1)
    return ((LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue + 32768.0) / 65536.0).floor()


def hue_moved(view_B3hw: Tensor, shift_B111: Tensor) -> Tensor:
    """Whole numbers with a hue moved by so many of PIL's 256 steps, by way of its 8-bit HSV."""
    red, green, blue = view_B3hw.split(1, dim=1)
    value, least = view_B3hw.amax(1, keepdim=True), view_B3hw.amin(1, keepdim=True)
    spread = value - least
    grey = spread == 0
    # What PIL computes in double precision and keeps in single; a grey pixel divides by 1.
    apart = torch.where(grey, 1.0, spread)
    r, g, b = ((value - one) / apart for one in (red, green, blue))
    other = torch.where(green == value, 2.0 + r.double() - b, 4.0 + g.double() - r)
    hue = torch.where(red == value, (b - g).double(), other)
    hue = torch.fmod(hue.float().double() / 6.0 + 1.0, 1.0).float()
    steps = torch.where(grey, 0.0, (hue.double() * 255.0).floor())
    saturation = torch.where(grey, 0.0, ((spread / torch.where(grey, 1.0, value)).double() * 255.0).floor())
    return _rgb(torch.remainder(steps + shift_B111, 256.0), saturation, value)


def _rgb(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """PIL's colour of hue, saturation and value, each (B,1,h,w) in 0..255."""
    sixths = (hue.double() * 6.0 / 255.0).float()
    sector = sixths.floor()
    rest, full, share = (sixths - sector).double(), value.double(), (saturation / 255.0).double()
    p, q, t = (
        (full * (1.0 - share * part) + 0.5).floor().clamp(0.0, 255.0).float()
        for part in (torch.ones_like(rest), rest, 1.0 - rest)
    )
    sector = torch.remainder(sector, 6.0)
    reds, greens, blues = (value, q, p, p, t, value), (t, value, value, q, p, p), (p, p, t, value, value, q)
    channels = []
    for colours in (reds, greens, blues):
        out = colours[-1]
        for number, colour in enumerate(colours[:-1]):
            out = torch.where(sector == number, colour, out)
        channels.append(out)
    coloured = torch.cat(channels, dim=1)
    return torch.where(saturation == 0, value, coloured)


def blurred(view_B3hw: Tensor, deviation_B: Tensor, largest: float) -> Tensor:
    """Whole numbers blurred by PIL's approximation, three boxes along each axis; unchanged where the deviation is 0.

    The radius of a box is that of Gwosdek and others 2011 (equations 7, 11 and 14), its weights are of 2^24, in PIL's
    own precision: ties are common, and fall as they do there. `largest` is the host's bound of deviations.
    """
    taps = int(_radius(torch.tensor([largest]))) + 1
    radius_B = _radius(deviation_B)
    whole_B = radius_B.floor()
    inner_B = (float(1 << 24) / (radius_B * 2 + 1)).floor().double()
    outer_B = ((float(1 << 24) - (2 * whole_B + 1).double() * inner_B) / 2).floor()
    weights = [torch.where(whole_B >= k, inner_B, torch.where(whole_B + 1 == k, outer_B, 0.0)) for k in range(taps + 1)]
    values = view_B3hw.double()
    for axis in [3] * BOXES + [2] * BOXES:
        side, ends = values.shape[axis], (taps, taps, 0, 0) if axis == 3 else (0, 0, taps, taps)
        longer = F.pad(values, ends, mode="replicate")
        total = torch.full_like(values, float(1 << 23))
        for k in range(-taps, taps + 1):
            total = total + weights[abs(k)][:, None, None, None] * longer.narrow(axis, taps + k, side)
        values = (total / float(1 << 24)).floor()
    return values.float()


def _radius(deviation_B: Tensor) -> Tensor:
    """Of the box that three times makes a blur of this standard deviation, pixels, single precision as in PIL."""
    variance = deviation_B * deviation_B / BOXES
    length = (12.0 * variance.double() + 1.0).sqrt().float()
    whole = ((length.double() - 1.0) / 2.0).floor().float()
    part = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance)
    return whole + part / (6 * (variance - (whole + 1) * (whole + 1)))


def normalised(view_B3hw: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(value/255 - mean)/std of each channel, as `to_tensor_normalised` has it."""
    whole, m, s = (constant(tuple(map(float, one)), view_B3hw)[:, None, None] for one in ((255.0,) * 3, mean, std))
    return (view_B3hw / whole - m) / s


def _levels(values: Tensor) -> Tensor:
    """Rounded half up to whole numbers in 0..255, as PIL's fixed point is."""
    return (values + 0.5).floor().clamp(0.0, 255.0)
