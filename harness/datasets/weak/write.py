"""`python -m harness.data weak-labels`: sparse labels derived from masks, written as PNGs with a manifest."""

from __future__ import annotations

import hashlib
import io
import json
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness.datasets.base import Dataset
from harness.datasets.images import merged
from harness.datasets.reading import read_many
from harness.datasets.weak.derive import VERSION
from harness.datasets.weak.sheet import PAINT, contact_sheet
from harness.errors import BadInput, Problem

MANIFEST = "manifest.json"
SHEET = "contact-sheet.png"
EXAMPLES = 10


def write_weak_labels(dataset: Dataset, kind: str, out: Path, *, seed: int = 0, split: str = "train") -> Path:
    """Derive the sparse labels of a split and write `<out>/weak/<kind>/<id with / as ~>.png`; returns that folder.

    Beside the PNGs (VOC's palette, 255 = unlabelled) lie a manifest with kind, seed, version and a digest of every
    file, and a contact sheet of ten examples. Equal masks, kind and seed give equal bytes. `data.weak=<out>` reads
    them. Raises BadInput with every mask that cannot be read, and for a folder that cannot be written.
    """
    folder = out / "weak" / kind
    ids = dataset.ids(split)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        done = list(read_many(_Writer(dataset, kind, folder, seed), ids, what=f"deriving {kind}"))
        problems = [problem for found in done if isinstance(found, list) for problem in found]
        if problems:
            raise BadInput(merged(problems))
        manifest = {
            "kind": kind,
            "seed": seed,
            "version": VERSION,
            "split": split,
            "masks": dataset.fingerprint(ids),
            "files": dict(zip(ids, done, strict=True)),
        }
        _write(folder / MANIFEST, (json.dumps(manifest, indent=1) + "\n").encode())
        _write(folder / SHEET, _png(_examples(dataset, kind, ids, seed)))
    except OSError as error:
        fix = "name a folder that can be written with out=<folder>"
        raise BadInput(Problem("out", f"cannot write to {folder} ({error.strerror})", fix)) from error
    return folder


class _Writer:
    """Derives and writes the labels of one image; runs in other processes."""

    def __init__(self, dataset: Dataset, kind: str, folder: Path, seed: int):
        self.dataset, self.kind, self.folder, self.seed = dataset, kind, folder, seed

    def __call__(self, image_id: str) -> str | list[Problem]:
        """SHA-256 of the file, or what is wrong with the mask."""
        try:
            label_HW = self.dataset.derived(image_id, self.kind, self.seed)
        except BadInput as error:
            return error.problems
        data = _png(label_HW, palette=True)
        _write(self.folder / f"{image_id.replace('/', '~')}.png", data)
        return hashlib.sha256(data).hexdigest()


def _examples(dataset: Dataset, kind: str, ids: tuple[str, ...], seed: int) -> NDArray[np.uint8]:
    """Ten evenly spaced images with their labels."""
    picked = [ids[i] for i in np.linspace(0, len(ids) - 1, min(EXAMPLES, len(ids))).astype(int)]
    return contact_sheet([(i, dataset.image(i), dataset.derived(i, kind, seed)) for i in dict.fromkeys(picked)])


def _png(pixels: NDArray[np.uint8], palette: bool = False) -> bytes:
    image = Image.fromarray(pixels)
    if palette:
        image.putpalette(PAINT.tobytes())
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=False)
    return stream.getvalue()


def _write(path: Path, data: bytes) -> None:
    tmp = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    tmp.write_bytes(data)
    os.replace(tmp, path)
