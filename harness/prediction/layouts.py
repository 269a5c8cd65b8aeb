"""What benchmark servers and their tools take: archives under their names and numbers, made of the masks.

Equal masks give equal bytes. Sources: the VOC 2012 development kit, sections 5.2 and 5.3; cityscapesScripts,
`evalPixelLevelSemanticLabeling`; COCO's result format for stuff; ACDC's submission of its testing patients.
"""

from __future__ import annotations

import gzip
import io
import re
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as rle

from harness.datasets import cityscapes, coco, voc
from harness.datasets.acdc.volumes import CLASSES as ACDC_CLASSES
from harness.datasets.acdc.volumes import volume_bytes
from harness.datasets.cityscapes import LABEL_IDS, city_id
from harness.datasets.coco.names import CATEGORY_IDS
from harness.datasets.io.images import some_of
from harness.errors import BadInput, Problem
from harness.files import atomic, write_bytes, write_json
from harness.prediction.outputs import SERVER, encoded
from harness.prediction.photos import Labels, Photo
from harness.store.pretraining import NONE, pretraining_of

Trained = Mapping[str, Any]
"""What a network was trained on: pretraining, dataset, masks, labels, tags; empty where nobody knows."""
YEAR = (2012, 1, 1, 0, 0, 0)
"""When files in an archive were changed, so that equal masks give equal bytes."""


@dataclass(frozen=True)
class Layout:
    """One server: whose labels it takes, what it calls an image, and what is written for it."""

    labels: tuple[str, ...]
    name_of: Callable[[str], str | None]
    """The server's name of an image, from the last part of its id; None for what is no image of its dataset."""
    names: str
    """What such names look like."""
    write: Callable[[Path, Mapping[str, Path], Mapping[str, Photo], Trained], list[Path]]
    """From a folder, the file of each mask by the server's name, the photo of each, to the files that were made."""
    whole: int | None = None
    """Images that the server expects."""


def problems_of(layout: str, labels: Labels, ids: Mapping[str, Photo]) -> list[Problem]:
    """What keeps masks of these labels and images from being taken."""
    wanted, found = LAYOUTS[layout], []
    if labels.class_names != wanted.labels:
        count, own = len(labels.class_names), len(wanted.labels)
        told = f"{count} labels, not {own}" if count != own else f"{own} labels too, but not the same"
        what = f"{layout} takes {own} labels ({some_of(wanted.labels, 3)}), and this network has {told}"
        found.append(Problem("layout", what, "a network that was trained on that dataset"))
    others = [i for i in ids if wanted.name_of(_last(i)) is None]
    if others:
        what = f"{len(others)} of {len(ids)} images have no name of {layout}: {some_of(others)}"
        found.append(Problem("layout", what, f"names like {wanted.names}; ids=<list> chooses images"))
    named = [wanted.name_of(_last(i)) for i in ids]
    twice = sorted(str(name) for name, count in Counter(named).items() if count > 1)
    if twice and not others:
        found.append(Problem("layout", f"several images are called {some_of(twice)} there", "give each its own name"))
    return found


def write(
    layout: str, out: Path, masks: Mapping[str, Path], photos: Mapping[str, Photo], trained: Trained
) -> list[Path]:
    """What a server takes, of the masks by image id, below `out/server`; returns the files. Raises OSError."""
    wanted = LAYOUTS[layout]
    named = {str(wanted.name_of(_last(i))): i for i in masks}
    by_name = {name: masks[named[name]] for name in sorted(named)}
    return wanted.write(out / SERVER, by_name, {name: photos[named[name]] for name in by_name}, trained)


def competition(trained: Trained) -> tuple[int, str]:
    """VOC's competition 5 (what VOC 2012 itself brings) or 6 (any other data too), and why."""
    if not trained:
        return 6, "what the file of weights was trained on is not known"
    if trained["dataset"] != "voc":
        return 6, f"it was trained on {trained['dataset']}"
    pretraining = pretraining_of(trained["pretraining"])
    if pretraining.weights != NONE or pretraining.networks:
        return 6, f"its backbone was pretrained: {pretraining.text}"
    if trained["masks"] != voc.PLAIN and not (trained["labels"] == "tags" and trained["tags"]):
        return 6, "its labels come from SBD's masks"
    return 5, "random initialisation and VOC's own labels"


def _voc(out: Path, masks: Mapping[str, Path], photos: Mapping[str, Photo], trained: Trained) -> list[Path]:
    number, _ = competition(trained)
    folder = f"results/VOC2012/Segmentation/comp{number}_test_cls"
    path = out / "results.tgz"
    with (
        atomic(path) as tmp,
        open(tmp, "wb") as file,
        gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for name, mask in masks.items():
            content = mask.read_bytes()
            member = tarfile.TarInfo(f"{folder}/{name}.png")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return [path]


def _cityscapes(out: Path, masks: Mapping[str, Path], photos: Mapping[str, Photo], trained: Trained) -> list[Path]:
    numbers = np.zeros(256, np.uint8)
    numbers[: len(LABEL_IDS)] = LABEL_IDS
    pictures = ((f"{name}.png", encoded(numbers[_read(mask)], palette=False)) for name, mask in masks.items())
    return [_zipped(out / "cityscapes.zip", pictures)]


def _coco(out: Path, masks: Mapping[str, Path], photos: Mapping[str, Photo], trained: Trained) -> list[Path]:
    found = []
    for name, mask in masks.items():
        labels_HW = _read(mask)
        for label in np.unique(labels_HW[labels_HW > 0]).tolist():
            region = rle.encode(np.asfortranarray(labels_HW == label, np.uint8))
            region["counts"] = region["counts"].decode("ascii")
            # A label map ranks nothing: tools that ask for a score get one that orders nothing.
            entry = {
                "image_id": int(name),
                "category_id": CATEGORY_IDS[label - 1],
                "segmentation": region,
                "score": 1.0,
            }
            found.append(entry)
    path = out / "coco.json"
    write_json(path, found)
    return [path]


def _acdc(out: Path, masks: Mapping[str, Path], photos: Mapping[str, Photo], trained: Trained) -> list[Path]:
    volumes: dict[str, dict[str, list[str]]] = {}
    for name in masks:
        patient, frame, _ = name.split("_")
        volumes.setdefault(patient, {}).setdefault(frame, []).append(name)
    files: dict[str, bytes] = {}
    for patient, frames in volumes.items():
        for phase, frame in _phases(frames, photos[next(iter(frames.values()))[0]].path.parent).items():
            slices = [_read(masks[name]) for name in sorted(frames[frame])]
            files[f"{patient}_{phase}.nii.gz"] = volume_bytes(np.stack(slices), photos[frames[frame][0]].path)
    for name, content in files.items():
        write_bytes(out / "acdc" / name, content)
    return [_zipped(out / "acdc.zip", iter(files.items()))]


def _phases(frames: Mapping[str, object], folder: Path) -> dict[str, str]:
    """The frame of end diastole and of end systole: as the patient's Info.cfg says, else the first and the last."""
    info = folder / "Info.cfg"
    told = dict(re.findall(r"^\s*(ED|ES)\s*:\s*(\d+)", info.read_text(), re.M)) if info.is_file() else {}
    named = {phase: f"frame{int(number):02d}" for phase, number in told.items()}
    usual = dict(zip(("ED", "ES"), (min(frames), max(frames)), strict=True))
    chosen = {phase: named[phase] if named.get(phase) in frames else usual[phase] for phase in usual}
    if chosen["ED"] == chosen["ES"]:
        what = f"{folder.name} has one frame, end diastole and end systole are two"
        raise BadInput(Problem("layout", what, "take images= as ACDC's testing folder has them"))
    return chosen


def _zipped(path: Path, files: Iterator[tuple[str, bytes]]) -> Path:
    with atomic(path) as tmp, zipfile.ZipFile(tmp, "w") as archive:
        for name, content in files:
            archive.writestr(zipfile.ZipInfo(name, YEAR), content)
    return path


def _read(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as picture:
        return np.asarray(picture, np.uint8)


def _last(image_id: str) -> str:
    return image_id.rpartition("/")[2]


def _matching(pattern: str) -> Callable[[str], str | None]:
    compiled = re.compile(pattern)

    def name_of(stem: str) -> str | None:
        found = compiled.fullmatch(stem)
        return found[1] if found else None

    return name_of


LAYOUTS: Mapping[str, Layout] = {
    "voc-test": Layout(voc.CLASSES, _matching(r"(\d{4}_\d{6})"), "2008_000006", _voc, 1456),
    "cityscapes": Layout(cityscapes.CLASSES, city_id, "berlin_000000_000019_leftImg8bit", _cityscapes, 1525),
    "acdc": Layout(
        ACDC_CLASSES, _matching(r"(patient\d{3}_frame\d{2}_slice\d{2,})"), "patient101_frame01 (.nii.gz)", _acdc
    ),
    "coco": Layout(coco.CLASSES, _matching(r"(?:COCO_\w+_)?(\d{1,12})"), "COCO_val2014_000000000042", _coco),
}
