"""One file for each image: score maps (`.npz`), label maps (`.png`) or vectors (`.npy`), named by the image's id.

Score maps are half precision, of the classes that occur, at the network's stride, compressed, and fused when they are
read. Axes: C foreground classes, n classes that occur, K labels, H W pixels, h w cells.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image

from harness.api.images import BACKGROUND, Maps, Written, covered
from harness.errors import BadInput, Problem

EPS = 1e-5
SUFFIXES = (".npz", ".png", ".npy")


def file_of(folder: Path, image_id: str, suffix: str) -> Path:
    """The file of an image: its id with `~` for `/`."""
    return folder / f"{image_id.replace('/', '~')}{suffix}"


def existing(folder: Path, image_id: str) -> Path | None:
    """The file of an image, whatever it holds; None where there is none."""
    return next((p for p in (file_of(folder, image_id, s) for s in SUFFIXES) if p.is_file()), None)


def encoded(written: Written) -> tuple[str, bytes]:
    """Suffix and bytes of an image's file: equal content gives equal bytes. Raises TypeError for what has no file."""
    buffer = io.BytesIO()
    if isinstance(written, Maps):
        arrays = {f"{name}.{n}": np.asarray(one, np.float16) for name, of in written.scales.items()
                  for n, one in enumerate(of)}  # fmt: skip
        if written.grain != 1:  # left out, files are those of earlier versions
            arrays["grain"] = np.array(written.grain, np.int16)
        np.savez_compressed(
            buffer,
            allow_pickle=False,
            classes=written.classes.astype(np.int16),
            fused=np.array(written.fused),
            **arrays,
        )
        return ".npz", buffer.getvalue()
    if written.ndim == 2 and written.dtype == np.uint8:
        Image.fromarray(written).save(buffer, "PNG")
        return ".png", buffer.getvalue()
    if written.ndim == 1 and written.dtype == np.float32:
        np.save(buffer, written, allow_pickle=False)
        return ".npy", buffer.getvalue()
    raise TypeError(
        f"a stage wrote an array {written.shape} of {written.dtype}; expected Maps, a label map uint8 (H,W) or a "
        "vector float32 (n,)"
    )


def read(folder: Path, image_id: str) -> Any:
    """What `encoded` wrote of an image. Raises BadInput for a file that is not there or damaged."""
    path = existing(folder, image_id)
    if path is None:
        raise BadInput(Problem(str(file_of(folder, image_id, ".*")), "is not there", FIX))
    try:
        if path.suffix == ".png":
            with Image.open(path) as picture:
                return np.asarray(picture, np.uint8)
        loaded = np.load(path, allow_pickle=False)
        if path.suffix == ".npy":
            return loaded
        with loaded as f:
            scales: dict[str, list[NDArray[np.floating]]] = {}
            for key in sorted((k for k in f.files if "." in k), key=lambda k: (k.split(".")[0], int(k.split(".")[1]))):
                scales.setdefault(key.split(".")[0], []).append(f[key])
            return Maps(f["classes"], scales, bool(f["fused"]), int(f["grain"]) if "grain" in f.files else 1)
    except (OSError, ValueError, KeyError, EOFError, SyntaxError, zipfile.BadZipFile) as e:
        raise BadInput(Problem(str(path), f"cannot be read: {str(e).splitlines()[0]:.150}", FIX)) from e


FIX = "remove the stage's folder and run the same command again: it is written anew"


def fuse(maps: Maps, name: str, size: tuple[int, int]) -> torch.Tensor:
    """The maps (n,H,W) of an image at its `size`, float32 in [0,1], in the order of `classes`.

    Each scale is resized (bilinear) to the size that the maps cover, and cut; sums over scales are divided by their own
    maximum plus 1e-5 (irn.md 2.2, sipe.md 2.4), or taken as they are where `fused` is off.
    """
    whole = covered(size, maps.grain)
    total = torch.zeros(len(maps.classes), *whole)
    if len(maps.classes):
        for one in maps.scales[name]:
            maps_1nhw = torch.from_numpy(one).float()[None]
            total += F.interpolate(maps_1nhw, whole, mode="bilinear", align_corners=False)[0]
    total = total[:, : size[0], : size[1]]
    return total / (total.amax((1, 2), keepdim=True) + EPS) if maps.fused else total


def decided(maps: Maps, name: str, size: tuple[int, int]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Highest score (H,W) of a foreground class and its index; zeros where none occurs.

    Where background has a map of its own, the score is 1 where a class beats it and 0 elsewhere: no threshold is left.
    """
    front = np.flatnonzero(maps.classes != BACKGROUND)
    if not len(front):
        return np.zeros(size, np.float32), np.zeros(size, np.int64)
    found_nHW = fuse(maps, name, size)
    score, index = found_nHW[front].max(0)
    back = np.flatnonzero(maps.classes == BACKGROUND)
    if len(back):
        score = (score > found_nHW[int(back[0])]).float()
    return score.numpy(), maps.classes[front].astype(np.int64)[index.numpy()]


def labels_at(
    maps: Maps, name: str, size: tuple[int, int], threshold: float, has_background: bool
) -> NDArray[np.uint8]:
    """Label map (H,W) of score maps: the best class where its score is above the threshold, else background; the best
    class everywhere in data without background."""
    score, index = decided(maps, name, size)
    labels = np.where(score > threshold, index + 1, 0) if has_background else index
    return labels.astype(np.uint8)


@dataclass(frozen=True)
class ExtraReader:
    """Makes of an image's file what travels with the image: label maps and vectors as they are; of score maps the
    first name's, fused at the finest stored scale, as (C,h,w), or (K,h,w) with background first where it has a map."""

    read: Callable[[str], Any]
    """What an image's file holds."""
    num_classes: int

    def __call__(self, image_id: str) -> NDArray[Any]:
        """The array of one image. Raises BadInput as `read` does."""
        found = self.read(image_id)
        if not isinstance(found, Maps):
            return np.asarray(found)
        found = replace(found, grain=1)  # what travels with an image stands for the whole of it
        name = next(iter(found.scales))
        size = max((tuple(one.shape[1:]) for one in found.scales[name]), default=(1, 1))
        first = int(BACKGROUND in found.classes)
        out = np.zeros((first + self.num_classes, *size), np.float32)
        out[found.classes.astype(np.int64) + first] = fuse(found, name, (int(size[0]), int(size[1]))).numpy()
        return out
