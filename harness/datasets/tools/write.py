"""`python -m harness.data weak-labels`: sparse labels derived from masks, written as PNGs with a manifest."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Collection
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness.api.dataset import Dataset
from harness.datasets.io.colours import PALETTE
from harness.datasets.io.images import merged, some_of
from harness.datasets.io.reading import read_many
from harness.datasets.tools.sheet import contact_sheet
from harness.datasets.weak import CLICKS, KINDS
from harness.datasets.weak.derive import version
from harness.datasets.weak.deriving import DerivingDataset
from harness.datasets.weak.manifest import MANIFEST, SHEET, manifest_text, read_manifest
from harness.errors import BadInput, Problem, nearest
from harness.files import sync_tree, write_bytes

EXAMPLES = 10
CLICKS_UNSAID = 20
"""Clicks an image where `kind=clicks` comes without `number`."""


def write_weak_labels(dataset: Dataset, kind: str, out: Path, *, seed: int = 0, split: str = "train") -> Path:
    """Derive the sparse labels of a split and write `<out>/weak/<kind>/<id with / as ~>.png`; returns that folder.

    Beside the PNGs (VOC's palette, 255 = unlabelled) lie a manifest with kind, seed, version and a digest of every
    file, and a contact sheet of ten examples. Equal masks, kind and seed give equal bytes. `data.weak=<out>` reads
    them, and holds each file against the manifest. Files of an earlier run that this one does not write are removed.
    Raises BadInput, before anything is made, for an unknown kind or split and for PNGs that no manifest names; with
    every mask that cannot be read; and for a folder that cannot be written.
    """
    check_kind(kind)
    if not isinstance(dataset, DerivingDataset):
        raise BadInput(Problem("data", f"{dataset.name} derives no labels", "take a dataset that has masks"))
    folder = out / "weak" / kind
    ids = dataset.ids(split)
    try:
        stale = _stale(folder, {_name(image_id) for image_id in ids})
        folder.mkdir(parents=True, exist_ok=True)
        for path in stale:
            path.unlink()
        done = list(read_many(_Writer(dataset, kind, folder, seed), ids, what=f"deriving {kind}"))
        problems = [problem for found in done if isinstance(found, list) for problem in found]
        if problems:
            raise BadInput(merged(problems))
        manifest = {
            "kind": kind,
            "seed": seed,
            "version": version(kind),
            "split": split,
            "masks": dataset.fingerprint(ids),
            "files": dict(zip(ids, done, strict=True)),
        }
        sync_tree(folder)
        write_bytes(folder / MANIFEST, manifest_text(manifest))
        write_bytes(folder / SHEET, _png(_examples(dataset, kind, ids, seed)))
    except OSError as error:
        fix = "name a folder that can be written with out=<folder>"
        raise BadInput(Problem("out", f"cannot write to {folder} ({error.strerror})", fix)) from error
    return folder


def kind_word(kind: str, number: int | None) -> str:
    """The kind that the words `kind` and `number` name together: clicks and 50 are clicks50, clicks alone clicks20.

    Raises BadInput for no kind, and for a number that the kind does not take.
    """
    if kind == "clicks":
        return f"clicks{number or CLICKS_UNSAID}"
    check_kind(kind)
    if number is not None and kind != f"clicks{number}":
        raise BadInput(Problem("number", f"{number}, but kind={kind}", f"kind=clicks number={number}, or no number"))
    return kind


def check_kind(kind: str) -> None:
    """Raises BadInput, naming the word, for what is no kind of sparse labels: it becomes the name of a folder."""
    if kind not in KINDS and not CLICKS.fullmatch(kind):
        raise BadInput(Problem("kind", f"no weak labels are called {kind!r}", nearest(kind, (*KINDS, "clicks"))))


def _name(image_id: str) -> str:
    return f"{image_id.replace('/', '~')}.png"


def _stale(folder: Path, written: Collection[str]) -> list[Path]:
    """Labels of an earlier run, as its manifest names them, that are not going to be written again."""
    if not folder.is_dir():
        return []
    others = sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() == ".png" and path.name not in written and path.name != SHEET
    )
    found = read_manifest(folder) if others else None
    ours = {_name(image_id) for image_id in found[1]} if found else set()
    unknown = [path.name for path in others if path.name not in ours]
    if unknown:
        what = f"{folder} holds {len(unknown)} other PNGs, which would be read with the labels: {some_of(unknown)}"
        raise BadInput(Problem("out", what, "remove them, or name another folder with out=<folder>"))
    return others


class _Writer:
    """Derives and writes the labels of one image; runs in other processes."""

    def __init__(self, dataset: DerivingDataset, kind: str, folder: Path, seed: int):
        self.dataset, self.kind, self.folder, self.seed = dataset, kind, folder, seed

    def __call__(self, image_id: str) -> str | list[Problem]:
        """SHA-256 of the file, or what is wrong with the mask."""
        try:
            label_HW = self.dataset.derived(image_id, self.kind, self.seed)
        except BadInput as error:
            return error.problems
        data = _png(label_HW, palette=True)
        write_bytes(self.folder / _name(image_id), data, sync=False)
        return hashlib.sha256(data).hexdigest()


def _examples(dataset: DerivingDataset, kind: str, ids: tuple[str, ...], seed: int) -> NDArray[np.uint8]:
    """Ten evenly spaced images with their labels."""
    grow = kind == "points" or CLICKS.fullmatch(kind) is not None
    picked = [ids[i] for i in np.linspace(0, len(ids) - 1, min(EXAMPLES, len(ids))).astype(int)]
    return contact_sheet(
        [(i, dataset.image(i), dataset.derived(i, kind, seed)) for i in dict.fromkeys(picked)], grow=grow
    )


def _png(pixels: NDArray[np.uint8], palette: bool = False) -> bytes:
    image = Image.fromarray(pixels)
    if palette:
        image.putpalette(PALETTE.tobytes())
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=False)
    return stream.getvalue()
