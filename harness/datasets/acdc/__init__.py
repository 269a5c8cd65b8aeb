"""ACDC, cardiac MRI: 100 training and 50 testing patients, two volumes each, as 2-D slices with RV, Myo and LV."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.datasets.acdc.volumes import CLASSES, read_images, read_labels, volume_shape
from harness.datasets.disk import facts
from harness.datasets.disk.facts import ImageFacts, MaskFacts
from harness.datasets.disk.files import CACHE_BYTES, KnownDataset
from harness.datasets.disk.layout import Layout, Survey, begin, told_apart
from harness.datasets.disk.looking import illegal_labels
from harness.datasets.io.images import ArrayCache, some_of
from harness.datasets.io.listing import (
    disjoint,
    files_of,
    find_list,
    judge_count,
    read_ids,
    read_lines,
    subfolders,
)
from harness.errors import BadInput, Problem

SIZES = {"training": 100, "testing": 50}
"""Patients of the two archives."""
BELOW = ("", "database", "ACDC", "ACDC/database")
VAL_SHARE, TEST_SHARE = 0.2, 0.2
"""Shares of the training patients that become `val`, and `test` too where `testing` is not there."""
LIST_FOLDERS = ("splits/acdc", "splits", "lists", "")
_PATIENT = re.compile(r"patient\d{3}")
_FIX = "unpack ACDC there: training/patient001/patient001_frame01.nii.gz beside patient001_frame01_gt.nii.gz"


def open(*, root: str | None = None, masks: str | None = None, classes: str | None = None) -> Acdc:
    """Open ACDC below `root`. Raises BadInput with everything that is wrong."""
    return survey(root=root, masks=masks, classes=classes).opened_as(Acdc)


def survey(*, root: str | None = None, masks: str | None = None, classes: str | None = None) -> Survey:
    """As `open`, but what can be read is there beside everything that is wrong."""
    own = "acdc has its own classes and masks"
    found, base = begin(root, "training/patient001", BELOW, _holds_patients, classes=(classes, own), masks=(masks, own))
    if base is None:
        return found
    patients: dict[str, dict[str, Path]] = {}
    for part in SIZES:
        folder = base / part
        if part == "training" and not folder.is_dir():
            folder = base  # patients side by side, without the archives' folders
        if folder.is_dir():
            here = {path.name: path for path in subfolders(folder, found.errors) if _PATIENT.fullmatch(path.name)}
            if here:
                patients[part] = here
                judge_count(
                    str(folder), f"{part} patients", len(here), SIZES[part], {}, _FIX, found.errors, found.warnings
                )
    if "training" not in patients:
        found.errors.append(Problem(str(base), "no folders patient001, patient002, ...", _FIX))
        return found
    slices = {name: _slices(base, path, found) for part in patients.values() for name, path in part.items()}
    of_split = _lists(base, found) or _split(patients)
    lists = {split: tuple(i for name in names for i in slices.get(name, {})) for split, names in of_split.items()}
    for split, names in of_split.items():
        unknown = [name for name in names if name not in slices]
        if unknown:
            text = f"{len(unknown)} patients of {split} are not there: {some_of(unknown)}"
            found.errors.append(Problem(str(base), text, "add their folders, or take them out of the lists"))
    disjoint(of_split, str(base), found.errors)
    unlisted = sorted(slices.keys() - {name for names in of_split.values() for name in names})
    if unlisted:
        text = f"{len(unlisted)} of {len(slices)} patients are in no list: {some_of(unlisted)}"
        fix = f"add them to a list; without them the dataset is named {told_apart('acdc', base, official=False)}"
        found.warnings.append(Problem(str(base), text, fix))
    images = {i: image for own in slices.values() for i, (image, _) in own.items()}
    masks_of = {i: mask for own in slices.values() for i, (_, mask) in own.items() if mask is not None}
    has_masks = {split: any(i in masks_of for i in ids) or split != "test" for split, ids in lists.items()}
    for split, has in has_masks.items():
        bare = sorted({images[i] for i in lists[split] if i not in masks_of}) if has else []
        if bare:
            text = f"{len(bare)} volumes of {split} have no *_gt file: {some_of(bare, 3)}"
            found.errors.append(Problem(str(base), text, _FIX))
    if not any(has and lists[split] for split, has in has_masks.items() if split != "train"):
        text = "no patients of val or test with labels: nothing would be scored"
        fix = "add patients; lists by hand are train.txt with val.txt, test.txt or both, docs/data.md, acdc"
        found.errors.append(Problem(str(base), text, fix))
    official = {part: len(names) for part, names in patients.items()} == SIZES and not unlisted
    found.layout = f"{base.name} with {' and '.join(patients)}"
    found.dataset = Acdc(Layout(base, "", CLASSES, lists, has_masks, images, masks_of, found.layout), official)
    return found


class Acdc(KnownDataset):
    """Slices of ACDC. Ids read `patient001_frame01_slice01`."""

    family = "acdc"

    def __init__(self, layout: Layout, official: bool):
        super().__init__(layout, official)
        self._volumes = ArrayCache(CACHE_BYTES)

    def group_of(self, image_id: str) -> str:
        """The patient: slices of one heart never stand on both sides of a split."""
        return image_id.partition("_")[0]

    def image(self, image_id: str) -> NDArray[np.uint8]:
        """Grey slice as RGB (H,W,3)."""
        return self.read_image(image_id)

    def mask(self, image_id: str) -> NDArray[np.uint8]:
        """Ground truth (H,W), read-only. Raises BadInput for a damaged volume or an illegal label."""
        self.legal_facts(image_id)
        return self.read_mask(image_id)

    def size(self, image_id: str) -> tuple[int, int]:
        """(H,W) of a slice, from the volume's header."""
        _, height, width = volume_shape(self.image_part(image_id)[0])
        return height, width

    def image_part(self, image_id: str) -> tuple[Path, str]:
        """File of a volume, and the slice in it."""
        return super().image_part(image_id)[0], image_id.rpartition("_slice")[2]

    def mask_part(self, image_id: str) -> tuple[Path, str]:
        """File of the labels of a volume, and the slice in it."""
        return super().mask_part(image_id)[0], image_id.rpartition("_slice")[2]

    def image_facts(self, image_id: str) -> ImageFacts:
        """Size and digest of a slice of a volume that can be read whole."""

        def read() -> ImageFacts:
            slice_HW = np.ascontiguousarray(self._slice_HW(image_id, False))
            return ImageFacts(slice_HW.shape, hashlib.sha256(slice_HW.data).hexdigest())

        return facts.remembered(*self.image_part(image_id), ImageFacts, read)

    def mask_facts(self, image_id: str) -> MaskFacts:
        """Facts of the labels of a slice."""
        return facts.remembered(
            *self.mask_part(image_id), MaskFacts, lambda: facts.facts_of(self._slice_HW(image_id, True))
        )

    def judge_mask(self, image_id: str, mask: MaskFacts) -> tuple[list[Problem], list[Problem]]:
        """Errors and warnings on labels."""
        return illegal_labels(self.mask_part(image_id)[0], mask, CLASSES, "label 0 background, 1 RV, 2 Myo, 3 LV")

    def read_image(self, image_id: str) -> NDArray[np.uint8]:
        """Grey slice as RGB (H,W,3)."""
        return np.repeat(self._slice_HW(image_id, False)[..., None], 3, 2)

    def read_mask(self, image_id: str) -> NDArray[np.uint8]:
        """Labels (H,W) of a slice, read-only."""
        return self._slice_HW(image_id, True)

    def _slice_HW(self, image_id: str, labels: bool) -> NDArray[np.uint8]:
        path, part = self.mask_part(image_id) if labels else self.image_part(image_id)
        volume = self._volumes.get(("volume", str(path)), lambda: (read_labels if labels else read_images)(path))
        if int(part) > len(volume):
            raise BadInput(Problem(str(path), f"{len(volume)} slices, slice {int(part)} wanted", _FIX))
        return volume[int(part) - 1]


def _slices(base: Path, folder: Path, found: Survey) -> dict[str, tuple[str, str | None]]:
    """Image file and mask file, relative to `base`, of every slice of a patient."""
    suffixes = (".nii.gz", ".nii")
    own = files_of(folder, suffixes, found.errors, _FIX) or {}
    frames = {stem: name for stem, name in own.items() if re.fullmatch(rf"{folder.name}_frame\d{{2}}", stem)}
    if not frames:
        found.errors.append(Problem(str(folder), f"no {folder.name}_frame*.nii.gz", _FIX))
    slices: dict[str, tuple[str, str | None]] = {}
    for stem, name in sorted(frames.items()):
        truth = own.get(f"{stem}_gt")
        try:
            shape = volume_shape(folder / name)
            labelled = volume_shape(folder / truth) if truth else shape
        except BadInput as error:
            found.errors += error.problems
            continue
        if labelled != shape:
            text = f"mask volume of {_told(labelled)} voxels, image of {_told(shape)}"
            found.errors.append(Problem(str(folder / str(truth)), text, "take both from the same release"))
            continue
        relative = folder.relative_to(base)
        for number in range(1, shape[0] + 1):
            mask = f"{relative}/{truth}" if truth else None
            slices[f"{stem}_slice{number:02d}"] = (f"{relative}/{name}", mask)
    return slices


def _split(patients: dict[str, dict[str, Path]]) -> dict[str, list[str]]:
    """Patients of train, val and test, the same share of every diagnosis, chosen by a hash of the name."""
    groups: dict[str, list[str]] = {}
    for name, path in patients["training"].items():
        groups.setdefault(_diagnosis(path), []).append(name)
    tested = patients.get("testing", {})
    split: dict[str, list[str]] = {"train": [], "val": [], "test": sorted(tested)}
    for names in groups.values():
        by_hash = sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())
        val = max(1, round(VAL_SHARE * len(names))) if len(names) > 1 else 0
        test = 0 if tested or len(names) < 3 else max(1, round(TEST_SHARE * len(names)))
        split["val"] += by_hash[:val]
        split["test"] += by_hash[val : val + test]
        split["train"] += by_hash[val + test :]
    return {name: sorted(chosen) for name, chosen in split.items() if chosen}


def _holds_patients(folder: Path) -> bool:
    return (folder / "training").is_dir() or any(folder.glob("patient[0-9][0-9][0-9]"))


def _diagnosis(folder: Path) -> str:
    """The patient's group in Info.cfg; empty where there is none."""
    if not (folder / "Info.cfg").is_file():
        return ""
    lines = read_lines(folder / "Info.cfg", folder, []) or []
    pairs = (line.partition(":") for line in lines)
    return next((value.strip() for key, _, value in pairs if key.strip() == "Group"), "")


def _lists(base: Path, found: Survey) -> dict[str, list[str]] | None:
    """Lists of patients by hand; None where there are none."""
    paths = {split: find_list(base, LIST_FOLDERS, (split,)) for split in ("train", "val", "test")}
    here = [str(path) for path in paths.values() if path is not None]
    if here and paths["train"] is None:
        fix = "write train.txt beside it, or remove it to have the patients split"
        found.errors.append(Problem(here[0], "a list of patients, but there is no train.txt", fix))
    if paths["train"] is None:
        return None
    return {
        split: [*read_ids(path, path.parent, found.errors, lambda line: line if _PATIENT.fullmatch(line) else None)]
        for split, path in paths.items()
        if path is not None
    }


def _told(shape: tuple[int, int, int]) -> str:
    return f"{shape[2]}x{shape[1]}x{shape[0]}"
