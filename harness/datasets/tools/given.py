"""A user's folder of one file for each image, which stages read as if one of them had written it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.api.dataset import Dataset
from harness.api.images import Written
from harness.api.recipe import Held
from harness.datasets.disk.facts import MaskFacts
from harness.datasets.disk.foreign_files import (
    MAPS,
    MASKS,
    arrays_of,
    checked_maps,
    files_there,
    find_files,
    read_labels,
)
from harness.datasets.io.archives import read_plain_npy
from harness.datasets.io.images import merged
from harness.datasets.io.opening import Stamp, stat_of
from harness.datasets.io.palettes import judge_palettes
from harness.datasets.io.reading import read_many
from harness.datasets.tools.fitting_maps import MapFile, judge_maps, odd_sizes
from harness.errors import BadInput, Problem
from harness.files import digest_of

SUFFIXES: Mapping[Held, tuple[str, ...]] = {"maps": MAPS, "labels": MASKS, "vectors": (".npy",)}


@dataclass(frozen=True)
class Found:
    """What one image's file holds: the digest of its content and what tells whether it is of this dataset; or what is
    wrong with it."""

    digest: str = ""
    maps: MapFile | None = None
    mask: MaskFacts | None = None
    length: int = 0
    """Of a vector."""
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True)
class GivenFolder:
    """A folder of score maps, label maps or vectors, `<image id with / as ~><suffix>`, and what they must fit."""

    folder: Path
    holds: Held
    dataset: Dataset
    word: str
    """What named the folder, for messages."""

    def read(self, image_id: str) -> Written:
        """What the file of an image holds. Raises BadInput naming the file and the fix."""
        (path,) = self._files([image_id]).values()
        if self.holds == "labels":
            return read_labels(path, self.dataset.size(image_id), self.dataset, {})[0]
        if self.holds == "vectors":
            return _vector(path)
        classes, scores, _ = arrays_of(path, self.dataset.num_classes)
        return checked_maps(path, classes, scores, self.dataset)

    def check(self, ids: Iterable[str]) -> tuple[str, list[Problem]]:
        """Digest of the content of these images' files, in order, wherever the folder lies; and warnings.

        Files that have not changed since they were read are not read again. Raises BadInput with everything that is
        wrong, at once: no file for an image, files that cannot be read, do not fit their image or its classes, have
        nothing above zero where the image has a class, or are of another numbering, order or aspect than the dataset.
        """
        files, missing = files_there(self.folder, ids, SUFFIXES[self.holds], self.word)
        stamps = {image_id: (str(path), stat_of(path)) for image_id, path in files.items()}
        unknown = [i for i in files if self._known(i, stamps[i]) is None]
        for image_id, found in zip(unknown, read_many(self._look, unknown, what=f"reading {self.word}"), strict=True):
            _read[self._name(image_id, stamps[image_id])] = found
        seen = {i: _read[self._name(i, stamps[i])] for i in files}
        warnings = self._judged(seen, missing)
        return digest_of([[i, found.digest] for i, found in seen.items()]), warnings

    def _files(self, ids: Iterable[str]) -> dict[str, Path]:
        return find_files(self.folder, ids, SUFFIXES[self.holds], self.word)

    def _name(self, image_id: str, stamp: tuple[str, Stamp]) -> tuple[Any, ...]:
        return (stamp, image_id, self.holds, self.dataset.name, self.dataset.num_labels)

    def _known(self, image_id: str, stamp: tuple[str, Stamp]) -> Found | None:
        return _read.get(self._name(image_id, stamp))

    def _look(self, image_id: str) -> Found:
        """One image's file, read whole; runs in other processes."""
        held = None
        try:
            (path,) = self._files([image_id]).values()
            if self.holds == "labels":
                facts = read_labels(path, self.dataset.size(image_id), self.dataset, {})[1]
                return Found(facts.digest, mask=facts)
            if self.holds == "vectors":
                vector = _vector(path)
                return Found(_digest(vector), length=len(vector))
            classes, scores, listed = arrays_of(path, self.dataset.num_classes)
            held = MapFile.of(path, classes, scores, listed)
            maps = checked_maps(path, classes, scores, self.dataset)
            high_n = maps.scales["cam"][0].max((1, 2), initial=0.0) > 0
            if not high_n.any() and self.dataset.tags(image_id).any():
                found = f"no map has anything above 0, and {image_id} has a class"
                raise BadInput(Problem(str(path), found, "write the scores of the classes that the image shows"))
            if not listed:
                # A stack of all classes says by its zeros which of them the image is taken to show.
                held = replace(held, classes=tuple(np.flatnonzero(high_n).tolist()))
            return Found(_digest(maps.classes, maps.scales["cam"][0]), maps=held)
        except BadInput as e:
            return Found(maps=held, problems=tuple(e.problems))

    def _judged(self, seen: Mapping[str, Found], missing: list[Problem]) -> list[Problem]:
        """Warnings on all files together. Raises BadInput."""
        problems = [problem for found in seen.values() for problem in found.problems]
        unfit: list[Problem] = []
        warnings: list[Problem] = []
        maps = {i: found.maps for i, found in seen.items() if found.maps is not None}
        if maps:
            unfit, warnings = judge_maps(self.dataset, maps)
            unfit += odd_sizes(self.dataset, maps)
        masks = [found.mask for found in seen.values() if found.mask is not None]
        if masks:
            unfit, warnings = judge_palettes(masks, self.dataset.class_names, str(self.folder))
        lengths = sorted({found.length for found in seen.values() if found.length})
        if len(lengths) > 1:
            found = f"vectors of {lengths[0]} and of {lengths[-1]} numbers"
            unfit = [Problem(str(self.folder), found, "write vectors of one length")]
        if unfit or problems or missing:
            # Another numbering shows in single files too, as classes that are not there.
            raise BadInput([*missing, *(unfit or merged(problems))])
        return warnings


def _vector(path: Path) -> NDArray[np.float32]:
    values = read_plain_npy(path)
    if values.ndim != 1 or not values.size or values.dtype.kind not in "fiu" or not np.isfinite(values).all():
        found = f"an array of shape {values.shape} ({values.dtype}), or values that are not finite"
        raise BadInput(Problem(str(path), found, "write finite numbers (n,): np.save(path, vector)"))
    return values.astype(np.float32, copy=False)


def _digest(*arrays: NDArray[Any]) -> str:
    return digest_of([[a.shape, a.dtype.str, hashlib.sha256(a.tobytes()).hexdigest()] for a in arrays])


_read: dict[tuple[Any, ...], Found] = {}
