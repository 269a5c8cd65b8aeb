"""Where a view lies in its image, so that whatever travels with the image can be cut, scaled and mirrored as it was.

Axes: K channels, H W pixels of the image, h w pixels of the view or of a map.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from harness.api.vocabulary import IGNORE

VERSION = 1
"""Raised when something lands elsewhere."""
Size = tuple[int, int]


@dataclass(frozen=True)
class Warp:
    """An axis-parallel view of an image: row i of the view shows the image at `y + (i + .5) dy` pixels from its top.

    Made from `Warp.whole(size)` by the same steps as the view: `resized`, `cut`, `mirrored`, in any order and number.
    """

    image: Size
    """(H,W) of the image, pixels."""
    size: Size
    """(h,w) of the view, pixels."""
    y: float = 0.0
    dy: float = 1.0
    x: float = 0.0
    dx: float = 1.0
    """Below 0 where the view is mirrored."""

    @classmethod
    def whole(cls, size: Size) -> Warp:
        """The image as it is; `size` is its (H,W)."""
        return cls(size, size)

    def resized(self, size: Size) -> Warp:
        """The view at another size (h,w)."""
        return replace(self, size=size, dy=self.dy * self.size[0] / size[0], dx=self.dx * self.size[1] / size[1])

    def cut(self, top: int, left: int, height: int, width: int) -> Warp:
        """A window of the view, pixels; what lies outside of it (a negative top, say) is padding."""
        return replace(self, size=(height, width), y=self.y + top * self.dy, x=self.x + left * self.dx)

    def mirrored(self) -> Warp:
        """The view mirrored left to right."""
        return replace(self, x=self.x + self.size[1] * self.dx, dx=-self.dx)

    def label(self, label_HW: NDArray[np.integer], size: Size | None = None) -> Tensor:
        """A label map of the image, at its size or any other, as the view shows it: int64, nearest, 255 outside.

        Pixel for pixel what PIL makes of it by the same steps, but where a centre lies on the border of two pixels.
        `size` (h,w) is that of the view unless given, for maps of a network's stride say.
        """
        y, x = self._at(size)
        rows, columns = (
            np.floor(at * (length / whole)).astype(np.int64)
            for at, length, whole in zip((y, x), label_HW.shape, self.image, strict=True)
        )
        out = label_HW[np.clip(rows, 0, label_HW.shape[0] - 1)][:, np.clip(columns, 0, label_HW.shape[1] - 1)]
        return torch.from_numpy(np.where(self._inside(y, x), out, IGNORE).astype(np.int64))

    def maps(self, maps_Khw: NDArray[np.floating], size: Size | None = None) -> Tensor:
        """Maps of the image at any resolution as the view shows them: float32 (K,h,w), bilinear, 0 outside.

        Channels that are 0 throughout stay so and cost nothing. `size` as for `label`.
        """
        y, x = self._at(size)
        out = torch.zeros(len(maps_Khw), len(y), len(x))
        filled = [k for k, one in enumerate(maps_Khw) if one.any()]
        if not filled:
            return out
        across = (2 * torch.from_numpy(at) / whole - 1 for at, whole in zip((y, x), self.image, strict=True))
        grid_1hw2 = torch.stack(torch.meshgrid(*across, indexing="ij")[::-1], -1)[None].float()
        maps_1Khw = torch.from_numpy(np.ascontiguousarray(maps_Khw[filled], np.float32))[None]
        found = F.grid_sample(maps_1Khw, grid_1hw2, mode="bilinear", padding_mode="border", align_corners=False)[0]
        out[filled] = found * torch.from_numpy(self._inside(y, x))
        return out

    def __call__(self, extra: Mapping[str, NDArray[Any]], size: Size | None = None) -> dict[str, Tensor]:
        """What travels with an image (`Sample.extra`), as this view shows it: maps, label maps; vectors stay."""
        kinds = {1: lambda one, _: torch.from_numpy(np.asarray(one, np.float32)), 2: self.label, 3: self.maps}
        return {name: kinds[one.ndim](one, size) for name, one in extra.items()}

    def _at(self, size: Size | None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Where the centres of the view's rows and columns lie in the image, pixels."""
        view = self if size is None else self.resized(size)
        y, x = (np.arange(n, dtype=np.float64) + 0.5 for n in view.size)
        return np.add(view.y, y * view.dy), np.add(view.x, x * view.dx)

    def _inside(self, y: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.bool_]:
        rows, columns = ((at >= 0) & (at < whole) for at, whole in zip((y, x), self.image, strict=True))
        return rows[:, None] & columns
