"""`python -m harness.data import-cams`: foreign CAM folders, converted once through the restricted reader.

What comes out is what `harness.evaluate cams=` reads: one `<image id with / as ~>.npz` an image, without pickle, with
`classes` int16 (n,), 0-based foreground indices, and `cam` float16 (n,h,w) in [0,1]. The archive's comment says how it
was made, so that another call knows whether it would make the same.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.datasets.disk.naming import Names
from harness.datasets.io.absent import of_other_names
from harness.datasets.io.images import merged, some_of
from harness.datasets.io.listing import files_of
from harness.datasets.io.reading import read_many
from harness.datasets.io.restricted import read_npy
from harness.datasets.tools.fitting_maps import MapFile
from harness.errors import BadInput, Problem
from harness.files import atomic

VERSION = 1
"""Raised when another file comes of the same maps; what an earlier version made is converted anew."""
Judge = Callable[[Mapping[str, MapFile]], tuple[list[Problem], list[Problem]]]
MAPS = ("attn_highres", "IS_CAM", "high_res", "hr_cam", "highres", "cam")
"""Names of the maps in the field's dicts, the finest first: CLIP-ES, SIPE, IRN and SFC, others."""
WITH_BACKGROUND = ("IS_CAM",)
"""Maps whose first one is the background, with key 0: SIPE's."""
NUMBERS = "fiub"
"""Kinds of arrays that may be maps."""
ROUNDING = 1e-2
"""How far maps of a half-precision normalisation may leave [0,1]."""


@dataclass(frozen=True)
class Imported:
    """What came of a folder."""

    written: int
    kept: int
    """Files that an earlier call had converted."""
    missing: tuple[str, ...]
    """Images without a CAM file."""
    foreign: tuple[str, ...]
    """Files of no image of this dataset."""
    warnings: tuple[Problem, ...] = ()


def import_cams(
    source: Path,
    out: Path,
    ids: Iterable[str],
    num_classes: int,
    *,
    dataset: str = "",
    normalise: bool = False,
    again: bool = False,
    judge: Judge | None = None,
) -> Imported:
    """Convert every CAM file in `source` that belongs to an image of `ids`.

    Layouts are told by their keys: {"keys", "attn_highres"} (CLIP-ES), {"keys", "IS_CAM"} (SIPE), {"keys", "cam",
    "high_res"} (IRN, SFC), {class index: map} (MCTformer, PSA, SEAM). `normalise` cuts maps at 0 and divides each by
    its maximum, for files that hold raw scores. A file that was converted before in the same way (source, `dataset`,
    classes, `normalise`) is kept, so an interrupted call is resumed by the same one; `again` converts all. `judge`
    (`fitting_maps.judge_maps` of the dataset) says whether all files together are of these images. Raises BadInput,
    after all good files are written, with every file that cannot be read or holds no CAM; where the files as a whole
    do not fit, nothing of them stays in `out`.
    """
    problems: list[Problem] = []
    files = files_of(source, (".npy",), problems, "cams=<folder of .npy files>")
    if files is not None and not files:
        npz = any(path.suffix.lower() == ".npz" for path in source.iterdir())
        as_they_are = "its .npz files need no import where they hold classes and cam: harness.evaluate cams="
        fix = f"{as_they_are}{source}" if npz else "cams=<folder of .npy files>"
        problems.append(Problem(str(source), "no .npy files in it", fix))
    if problems or files is None:
        raise BadInput(problems)
    names = Names(ids)
    mine, foreign = _matched(source, files, names)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(Problem("out", f"cannot write to {out} ({error.strerror})", "name another folder")) from error
    convert = _Converter(source, mine, out, num_classes, dataset, normalise)
    todo = [image_id for image_id in mine if again or not convert.is_done(image_id)]
    held = {image_id: convert.kept(image_id) for image_id in mine if image_id not in set(todo)} if judge else {}
    for image_id, (wrong, file) in zip(todo, read_many(convert, todo, what="converting CAMs"), strict=True):
        problems += wrong
        if file is not None:
            held[image_id] = file
    unfit, warnings = judge(held) if judge else ([], [])
    if unfit:
        for image_id in mine:
            target(out, image_id).unlink(missing_ok=True)
        raise BadInput(unfit)
    if problems:
        raise BadInput(merged(problems))
    missing = tuple(image_id for image_id in names if image_id not in mine)
    return Imported(len(todo), len(mine) - len(todo), missing, foreign, tuple(warnings))


def _matched(source: Path, files: Mapping[str, str], names: Names) -> tuple[dict[str, str], tuple[str, ...]]:
    """The file of each image, and the files of none. Raises BadInput where that is not clear, or no image has one."""
    mine: dict[str, str] = {}
    foreign, unclear, twice = [], [], []
    for stem, name in files.items():
        meant = names.of(stem)
        if not meant:
            foreign.append(name)
        elif len(meant) > 1:
            unclear.append(f"{name} ({' or '.join(meant[:3])})")
        elif mine.setdefault(meant[0], name) != name:
            twice.append(f"{mine[meant[0]]} and {name}")
    problems = []
    if unclear:
        found = f"{len(unclear)} files may be of several images: {some_of(unclear)}"
        problems.append(Problem(str(source), found, "name them by whole image ids, with ~ for /"))
    if twice:
        problems.append(Problem(str(source), f"{len(twice)} images have two files: {some_of(twice)}", "keep one"))
    if not mine and not problems:
        found = f"none of its {len(files)} .npy files is named by an image id: {some_of(files, 3)}"
        others = of_other_names(source, names, (".npy",))
        fix = others[1] if others else "name the dataset that they belong to: data=... data.root=..."
        problems.append(Problem(str(source), found, fix))
    if problems:
        raise BadInput(problems)
    return mine, tuple(foreign)


def target(out: Path, image_id: str) -> Path:
    """The file that holds an image's maps."""
    return out / f"{image_id.replace('/', '~')}.npz"


class _Converter:
    """Converts one image's file; runs in other processes."""

    def __init__(
        self, source: Path, files: Mapping[str, str], out: Path, num_classes: int, dataset: str, normalise: bool
    ):
        self.source, self.files, self.out = source, dict(files), out
        self.num_classes, self.dataset, self.normalise = num_classes, dataset, normalise

    def is_done(self, image_id: str) -> bool:
        """Whether an earlier call made what this one would make."""
        made = target(self.out, image_id)
        try:
            with zipfile.ZipFile(made) as archive:
                return archive.comment == self._origin(image_id)
        except (OSError, zipfile.BadZipFile):
            return False

    def _origin(self, image_id: str) -> bytes:
        """All that decides the content of an image's file."""
        stat = (self.source / self.files[image_id]).stat()
        parts = {
            "version": VERSION,
            "dataset": self.dataset,
            "classes": self.num_classes,
            "normalise": self.normalise,
            "changed": [stat.st_mtime_ns, stat.st_ctime_ns],
            "bytes": stat.st_size,
        }
        return json.dumps(parts).encode()

    def kept(self, image_id: str) -> MapFile:
        """What an earlier call converted, as the file that it is of."""
        with np.load(target(self.out, image_id)) as made:
            cam, classes = made["cam"], tuple(made["classes"].tolist())
            return MapFile(str(self.source / self.files[image_id]), classes, cam.shape[1:], bool(cam.any()))

    def __call__(self, image_id: str) -> tuple[list[Problem], MapFile | None]:
        """What is wrong with the file, and what it holds, where that can be read."""
        path = self.source / self.files[image_id]
        file = None
        try:
            keys, maps = keys_and_maps(read_npy(path), str(path))
            lit = bool((maps > 0).any())
            file = MapFile(str(path), tuple(keys), (maps.shape[1], maps.shape[2]) if keys else None, lit)
            classes, cam = sound_maps(keys, maps, str(path), self.num_classes, normalise=self.normalise)
            _save(target(self.out, image_id), classes, cam, self._origin(image_id))
        except BadInput as error:
            return error.problems, file
        except OSError as error:
            fix = "name a folder with room"
            return [Problem("out", f"cannot write to {self.out} ({error.strerror})", fix)], file
        return [], file


def keys_and_maps(content: Any, where: str) -> tuple[list[int], NDArray[Any]]:
    """Class numbers as written, without background, and their maps (n,h,w). Raises BadInput for an unknown layout."""
    fix = "one of the layouts of CLIP-ES, SIPE, IRN/SFC and MCTformer; see docs/data.md"
    if isinstance(content, np.ndarray) and content.ndim == 3:
        fix = "maps (C,h,w) of all foreground classes need no import: harness.evaluate cams= reads them as they are"
    if not isinstance(content, dict):
        raise BadInput(Problem(where, f"{_kind(content)}, a dict of maps expected", fix))
    return _by_name(content, where, fix) if "keys" in content else _by_class(content, where, fix)


def sound_maps(
    keys: list[int], maps: NDArray[Any], where: str, num_classes: int, *, normalise: bool = False
) -> tuple[NDArray[np.int16], NDArray[np.float16]]:
    """Foreground class indices (n,) and maps (n,h,w) in [0,1], sorted by class.

    Raises BadInput naming `where` for classes outside 0..C-1, and maps outside [0,1].
    """
    if len(set(keys)) != len(keys) or any(not 0 <= k < num_classes for k in keys):
        found = f"classes {some_of(map(str, keys))}, but the dataset has {num_classes} foreground classes"
        raise BadInput(Problem(where, found, "name the dataset that the CAMs are of"))
    if not keys:
        return np.zeros(0, np.int16), np.zeros((0, 1, 1), np.float16)
    cam = maps.astype(np.float32)
    if not np.isfinite(cam).all():
        raise BadInput(Problem(where, "maps with infinite or undefined values", "write the CAMs again"))
    if normalise:
        cam = np.maximum(cam, 0)
        cam /= np.maximum(cam.max((1, 2), keepdims=True), 1e-5)
    low, high = float(cam.min()), float(cam.max())
    if low < -ROUNDING or high > 1 + ROUNDING:
        found = f"maps in [{low:.3g}, {high:.3g}], scores in [0,1] expected"
        raise BadInput(Problem(where, found, "normalise=true cuts them at 0 and divides each by its maximum"))
    order = np.argsort(keys)
    return np.asarray(keys, np.int16)[order], np.clip(cam[order], 0, 1).astype(np.float16)


def _by_name(content: Mapping[Any, Any], where: str, fix: str) -> tuple[list[int], NDArray[Any]]:
    """Keys and maps that lie beside each other in the dict."""
    keys = _integers(content["keys"], where, fix)
    name = next((n for n in MAPS if isinstance(content.get(n), np.ndarray)), None)
    if name is None:
        if not keys:
            return [], np.zeros((0, 1, 1), np.float32)
        raise BadInput(Problem(where, f"no maps beside its keys ({some_of(map(str, content))})", fix))
    maps = content[name]
    if keys == [-1]:  # CLIP-ES where nothing was found
        return [], np.zeros((0, 1, 1), np.float32)
    if maps.ndim != 3 or maps.dtype.kind not in NUMBERS:
        raise BadInput(Problem(where, f"{name} of shape {maps.shape} and type {maps.dtype}", fix))
    if name in WITH_BACKGROUND and keys[:1] == [0] and len(keys) == len(maps):
        return [key - 1 for key in keys[1:]], maps[1:]
    if keys[:1] == [0] and len(keys) == len(maps) + 1:  # label values behind a background that has no map
        return [key - 1 for key in keys[1:]], maps
    if len(keys) != len(maps):
        raise BadInput(Problem(where, f"{len(keys)} keys for {len(maps)} maps ({name})", fix))
    return keys, maps


def _by_class(content: Mapping[Any, Any], where: str, fix: str) -> tuple[list[int], NDArray[Any]]:
    """Maps under their class index."""
    try:
        keys = [int(key) for key in content]
    except ValueError as error:
        found = f"keys {some_of(map(repr, content))}, class numbers expected"
        raise BadInput(
            Problem(where, found, "foreground classes are numbered from 0 in the dataset's order")
        ) from error
    maps = list(content.values())
    for one in maps:
        if not isinstance(one, np.ndarray) or one.ndim != 2 or one.dtype.kind not in NUMBERS:
            what = f"{_kind(one)} and type {one.dtype}" if isinstance(one, np.ndarray) else _kind(one)
            raise BadInput(Problem(where, f"{what} for a class, a map (h,w) of numbers expected", fix))
    if len({one.shape for one in maps}) > 1:
        raise BadInput(Problem(where, "maps of several shapes", fix))
    return keys, np.stack(maps) if maps else np.zeros((0, 1, 1), np.float32)


def _integers(value: Any, where: str, fix: str) -> list[int]:
    array = np.asarray(value)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise BadInput(Problem(where, f"keys {str(value)[:60]}", fix))
    return [int(v) for v in array]


def _kind(value: Any) -> str:
    return f"an array of shape {value.shape}" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"


def _save(path: Path, classes: NDArray[np.int16], cam: NDArray[np.float16], origin: bytes) -> None:
    with atomic(path) as tmp:
        with open(tmp, "wb") as file:
            np.savez(file, allow_pickle=False, classes=classes, cam=cam)
        with zipfile.ZipFile(tmp, "a") as archive:
            archive.comment = origin


def lacking(what: str, names: Sequence[str]) -> str:
    """A line of a report on images or files that were left out; empty where there are none."""
    return f"{len(names)} {what}: {some_of(names)}" if names else ""
