"""Checked reading of images and index masks: a file is read whole and right, or a BadInput names it and the fix."""

from __future__ import annotations

import io
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from harness.api.vocabulary import IGNORE
from harness.datasets.io.opening import NotPlain, checked_plain, plain_bytes, unopened
from harness.errors import BadInput, Problem

T = TypeVar("T")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
MASK_SUFFIXES = (".png",)
OTHER_PICTURES = (".tif", ".tiff", ".bmp", ".gif", ".webp", ".heic", ".heif", ".jp2", ".jpe", ".avif")
"""Pictures that nobody reads here: they are looked for, so that they are named."""
_JPEG_SUFFIXES = (".jpg", ".jpeg")
_FORMATS = ("JPEG", "PNG")
_RENEW = "copy or download the file again"
_INDEX = "save the mask as a one-channel 8-bit PNG of label numbers (palette or grey), 255 = ignore"
_DETAIL = re.compile(r"(?<=wrong palette: ).*|\d+(, \d+)*(, \.\.\.)?|'[^']*'(, '[^']*')*(, \.\.\.)?")
"""What differs between files of the same fault."""
MAX_PIXELS = 1 << 26
"""More is no photo of these datasets: a damaged header, or a file made to fill the memory."""
ORIENTATION_TAG = 0x0112
_OTHERS = (
    (re.compile(rb"RIFF....WEBP", re.S), "a WebP picture"),
    (re.compile(rb"GIF8"), "a GIF"),
    (re.compile(rb"BM"), "a BMP"),
    (re.compile(rb"II\*\0|MM\0\*"), "a TIFF"),
    (re.compile(rb"....ftyp(heic|heix|mif1|msf1|avif)", re.S), "a HEIC or AVIF picture"),
)
"""Pictures that come under the names of others."""
_NO_PICTURE = re.compile(rb"\s*(<|\{|version https://git-lfs)", re.S)
_THREADS = min(8, os.cpu_count() or 1)


def read_image(path: str | Path) -> NDArray[np.uint8]:
    """RGB image (H,W,3), orientation tags not applied (masks are drawn on the stored pixels); PIL's pixels.

    Raises BadInput when the file is missing, damaged, cut off, or has more than 8 bits a channel.
    """

    fast = _fast_jpeg(path)
    return _decoded(path, lambda image: rgb_of(image, str(path))) if fast is None else fast


def rgb_of(image: Image.Image, where: str) -> NDArray[np.uint8]:
    """The pixels of a picture (H,W,3), whatever its mode. Raises BadInput for more than 8 bits a channel."""
    _eight_bits(image, where)
    return np.asarray(image.convert("RGB"))


def _eight_bits(image: Image.Image, where: str) -> None:
    if image.mode[0] in "IF":
        found = f"{image.mode} image, 8-bit RGB or grey expected"
        raise BadInput(Problem(where, found, "save it as an 8-bit JPEG or PNG"))


def _fast_jpeg(path: str | Path) -> NDArray[np.uint8] | None:
    """A plain colour JPEG by libjpeg-turbo itself, the bytes that PIL gives; None for whatever PIL should judge.

    That is: grey, CMYK and RGB files, pictures that PIL finds too large, and everything damaged.
    """
    if not str(path).lower().endswith(_JPEG_SUFFIXES):
        return None
    try:
        data = plain_bytes(path)
        height, width, space, _ = simplejpeg.decode_jpeg_header(data)
        if space != "YCbCr" or height * width > MAX_PIXELS:
            return None
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "RGB", fastdct=False, fastupsample=False)
    except (OSError, ValueError, RuntimeError, MemoryError):
        return None
    return pixels


def read_mask(path: str | Path) -> NDArray[np.uint8]:
    """Label numbers (H,W) of an index PNG, palette or grey, of 1 to 8 bits.

    Raises BadInput when the file is missing, damaged, cut off, or holds colours instead of numbers.
    """
    return read_index(path)[0]


def read_index(path: str | Path) -> tuple[NDArray[np.uint8], bytes]:
    """As `read_mask`, with the palette (three bytes a label, empty for grey masks)."""

    def decode(image: Image.Image) -> tuple[NDArray[np.uint8], bytes]:
        labels_HW = _labels_of(path, image)
        return labels_HW, bytes(image.getpalette("RGB") or ()) if image.mode == "P" else b""

    return _decoded(path, decode)


def verify_image(path: str | Path) -> tuple[tuple[int, int], int]:
    """(H,W) and EXIF orientation of an image whose bytes decode to the last one. Raises BadInput as `read_image`."""

    def decode(image: Image.Image) -> tuple[tuple[int, int], int]:
        width, height = image.size
        _eight_bits(image, str(path))
        # An eighth of the size still reads every byte, so it finds a cut-off file at two thirds of the cost.
        image.draft("RGB", (max(1, width // 8), max(1, height // 8)))
        image.load()
        return (height, width), _orientation(image)

    return _decoded(path, decode)


def image_size(path: str | Path) -> tuple[int, int]:
    """(H,W) from the header alone. Raises BadInput when there is no readable header."""
    return _decoded(path, lambda image: (image.height, image.width), whole=False)


def orientation_of(path: str | Path) -> int:
    """EXIF orientation, 1 to 8, from the header alone. Raises BadInput when there is no readable header."""
    return _decoded(path, _orientation, whole=False)


def attempt(work: Callable[[str], T], items: Iterable[str]) -> Iterator[tuple[str, T | list[Problem]]]:
    """Call `work` on each item in threads; yields, in order, the item with its result or with its problems."""

    def call(item: str) -> tuple[str, T | list[Problem]]:
        try:
            return item, work(item)
        except BadInput as error:
            return item, error.problems

    with ThreadPoolExecutor(_THREADS) as pool:
        yield from pool.map(call, items)


def merged(problems: Iterable[Problem]) -> list[Problem]:
    """One problem for all files of the same fault: the first is named in full, four more by name, all counted."""
    alike: dict[tuple[str, str], list[Problem]] = {}
    for problem in problems:
        alike.setdefault((_DETAIL.sub("#", problem.found), problem.fix), []).append(problem)
    out = []
    for first, *others in alike.values():
        names = some_of(dict.fromkeys(Path(o.where).name for o in others if o.where != first.where), 4)
        more = f"; likewise {len(others)} more{': ' * bool(names)}{names}" if others else ""
        out.append(Problem(first.where, first.found + more, first.fix))
    return out


def some_of(names: Iterable[str], count: int = 5) -> str:
    """The first few of many names as text."""
    every = list(names)
    return ", ".join(every[:count]) + (", ..." if len(every) > count else "")


class ArrayCache:
    """Arrays by key up to a number of bytes; what does not fit is read again.

    Nothing is ever evicted: training walks through whole epochs, where throwing out the oldest never hits.
    Copies in other processes start empty.
    """

    def __init__(self, limit_bytes: int):
        self.limit_bytes = limit_bytes
        self._start()

    def _start(self) -> None:
        self._arrays: dict[tuple[str, str], NDArray[np.uint8]] = {}
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, key: tuple[str, str], read: Callable[[], NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """The array of a key, read-only."""
        array = self._arrays.get(key)
        if array is None:
            array = read()
            array.setflags(write=False)
            with self._lock:
                if key not in self._arrays and self._bytes + array.nbytes <= self.limit_bytes:
                    self._arrays[key] = array
                    self._bytes += array.nbytes
        return array

    def __getstate__(self) -> dict[str, Any]:
        return {"limit_bytes": self.limit_bytes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.limit_bytes = state["limit_bytes"]
        self._start()


class SparseCache:
    """Label maps by key as the places and values of their labelled pixels: a few kilobytes each, up to a limit.

    Nothing is evicted and copies in other processes start empty, as in `ArrayCache`.
    """

    def __init__(self, limit_bytes: int):
        self._cache = ArrayCache(limit_bytes)

    def get(self, key: tuple[str, str], read: Callable[[], NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """The label map (H,W) of a key, a fresh copy."""

        return unpacked(self._cache.get(key, lambda: packed(read())))


def packed(label_HW: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A sparse label map as bytes: height and width, places and values of its labelled pixels."""
    at = np.flatnonzero(label_HW != IGNORE)
    parts = (np.array(label_HW.shape, np.uint32), at.astype(np.uint32))
    return np.concatenate([*(part.view(np.uint8) for part in parts), label_HW.ravel()[at]])


def unpacked(held: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The label map (H,W) that was `packed`, a fresh copy."""
    count = (len(held) - 8) // 5
    h, w = held[:8].view(np.uint32)
    label = np.full(int(h) * int(w), IGNORE, np.uint8)
    label[held[8 : 8 + 4 * count].view(np.uint32)] = held[8 + 4 * count :]
    return label.reshape(int(h), int(w))


def _labels_of(path: str | Path, image: Image.Image) -> NDArray[np.uint8]:
    if image.format != "PNG":
        raise BadInput(Problem(str(path), f"{image.format} file, index PNG expected (JPEG changes labels)", _INDEX))
    if image.mode not in ("P", "L", "1"):
        raise BadInput(Problem(str(path), f"{image.mode} mask, label numbers expected", _INDEX))
    # Grey of 2 or 4 bits is spread over 0..255 by the decoder; the numbers themselves are asked for here.
    spread = {"L;2": 85, "L;4": 17}.get(_raw_mode(image), 1)
    mask_HW = np.asarray(image).astype(np.uint8, copy=False)
    return mask_HW if spread == 1 else mask_HW // np.uint8(spread)


def _orientation(image: Image.Image) -> int:
    if "exif" not in image.info:
        return 1
    try:
        value = image.getexif().get(ORIENTATION_TAG, 1)
    # Cameras and editors write broken EXIF blocks, which raise almost any class; the pixels are whole all the same.
    except Exception:
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _raw_mode(image: Image.Image) -> str:
    tile = getattr(image, "tile", None)
    args = tile[0][3] if tile else None
    return args if isinstance(args, str) else str(args[0]) if args else ""


def _unidentified(start: bytes) -> tuple[str, str]:
    """What a file that is neither JPEG nor PNG is, by its first bytes, and what to do about it."""
    kind = next((what for magic, what in _OTHERS if magic.match(start)), None)
    if kind is not None:
        return f"{kind}, neither JPEG nor PNG", "save it as an 8-bit PNG; a photo may be a JPEG too"
    if _NO_PICTURE.match(start):
        return "text, neither JPEG nor PNG: what a failed download leaves", "download the file again"
    return "neither JPEG nor PNG, or its header is damaged", _RENEW


def _decoded(path: str | Path, decode: Callable[[Image.Image], T], whole: bool = True) -> T:
    try:
        data: Any = io.BytesIO(plain_bytes(path)) if whole else checked_plain(path)
        if whole and not data.getbuffer().nbytes:
            raise BadInput(Problem(str(path), "empty file", _RENEW))
        with Image.open(data, formats=_FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                found = f"{image.width}x{image.height} pixels, more than {MAX_PIXELS >> 20} Mi"
                raise BadInput(Problem(str(path), found, "its header is damaged, or it has to be made smaller"))
            return decode(image)
    except BadInput:
        raise
    except (FileNotFoundError, PermissionError, IsADirectoryError, NotPlain) as error:
        raise BadInput(unopened(str(path), error)) from error
    except Image.UnidentifiedImageError as error:
        raise BadInput(Problem(str(path), *_unidentified(plain_bytes(path, 64)))) from error
    # Decoders raise almost any class on damaged bytes (struct.error, SyntaxError, zlib.error, ...): all mean the
    # same here, and the cause stays attached.
    except Exception as error:
        raise BadInput(Problem(str(path), f"damaged or cut off ({error})", _RENEW)) from error
