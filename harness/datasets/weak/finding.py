"""Where sparse labels lie: below a dataset's root or `data.weak`, under the names that the field uses.

What is there under such a name is used or refused: nothing falls back silently to labels derived from the masks.
"""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path

from harness.datasets.io.images import some_of
from harness.datasets.io.listing import files_of, leads_out, link_out, subfolders
from harness.datasets.weak import CLICKS, KINDS
from harness.datasets.weak.files import JsonPoints, PngLabels, WeakFiles, XmlScribbles, key_of
from harness.datasets.weak.manifest import SHEET, digests
from harness.errors import BadInput, Problem

FOLDERS: dict[str, tuple[str, ...]] = {
    "points": ("point/segcls", "point", "points"),
    "scribbles": (
        *("scribble/seginst", "scribble", "scribbles", "Scribble", "pascal_2012"),
        *("scribble_annotation/pascal_2012", "scribble_annotation"),
    ),
    "blocks": ("block", "blocks", "sparse_label/block10"),
}
"""Folders below a dataset's root, in order; clicks lie in `20clicks`, `random_20clicks` or `clicks20`."""
SINGLE: dict[str, tuple[str, ...]] = {
    "points": ("voc_whats_the_point.json", "voc_whats_the_point_bg_from_scribbles.json"),
    "scribbles": ("voc_scribbles.zip",),
}
"""Single files with the labels of all images, taken where no folder has them."""
_CLICK_FOLDER = re.compile(r"(?:random_)?([1-9]\d{0,3})clicks")


def folders(kind: str) -> tuple[str, ...]:
    """Where label files of a kind may lie below the root, ours first."""
    number = CLICKS.fullmatch(kind)
    named = (f"{number[1]}clicks", f"random_{number[1]}clicks", kind) if number else FOLDERS.get(kind, (kind,))
    return (f"weak/{kind}", *named)


def find(root: Path, kind: str, class_names: Sequence[str]) -> WeakFiles | None:
    """The label files of a kind below `root`, or None where nothing has one of their names.

    Raises BadInput where something has such a name and holds no label file.
    """
    unusable: list[Problem] = []
    for name in folders(kind):
        folder = root / name
        if folder.is_dir():
            found = _in_folder(folder, kind, class_names)
            if found is not None:
                return found
            unusable.append(_without_files(folder, kind))
    paths = [root / name for name in SINGLE.get(kind, ()) if (root / name).is_file()]
    out = [path for path in paths if leads_out(path, root)]
    if out:
        raise BadInput([link_out(path) for path in out])
    if paths:
        if kind == "points":
            return JsonPoints(paths, kind, class_names)
        return XmlScribbles(paths[0], _in_zip(paths[0]), kind, class_names)
    if unusable:
        raise BadInput(unusable)
    return None


def find_given(root: Path, kind: str, class_names: Sequence[str]) -> WeakFiles:
    """As `find` below the folder that `data.weak` names. Raises BadInput where nothing of the kind is there."""
    found = find(root, kind, class_names)
    if found is None:
        raise BadInput(lacking(root, kind))
    return found


def kinds_below(root: Path) -> list[str]:
    """Kinds for which something below `root` has one of their names, whatever it holds."""
    names = [entry.name for place in (root, root / "weak") if place.is_dir() for entry in os.scandir(place)]
    others = [f"clicks{m[1]}" for name in names if (m := _CLICK_FOLDER.fullmatch(name) or CLICKS.fullmatch(name))]
    return [
        kind
        for kind in dict.fromkeys((*KINDS, *others))
        if any((root / name).is_dir() for name in folders(kind))
        or any((root / name).is_file() for name in SINGLE.get(kind, ()))
    ]


def lacking(root: Path, kind: str | None = None) -> Problem:
    """That `data.weak` holds nothing of `kind` (or of any), what it does hold, and where it should point."""
    here = kinds_below(root)
    if here:
        holds = f"labels of {', '.join(here)} alone"
    else:
        holds = f"{some_of(sorted(entry.name for entry in os.scandir(root)), 3)}" or "nothing"
    above = next((place for place in (root.parent, root.parent.parent) if kinds_below(place)), None)
    fix = f"data.weak=<folder that holds {kind or 'points'} in one of {', '.join(folders(kind or 'points'))}>"
    if above is not None and not here:
        fix = f"data.weak={above}"
    return Problem("data.weak", f"no {kind or 'sparse labels'} in {root}: it holds {holds}", fix)


def _in_folder(folder: Path, kind: str, class_names: Sequence[str]) -> WeakFiles | None:
    files = label_files(folder, ".png")
    if files:
        return PngLabels(folder, files, kind, class_names, digests(folder, kind))
    files = label_files(folder, ".xml") if kind == "scribbles" else {}
    return XmlScribbles(folder, files, kind, class_names) if files else None


def label_files(folder: Path, suffix: str) -> dict[str, str]:
    """Path below `folder` by image id: of the files in it, else of those in its subfolders (Cityscapes' cities)."""
    problems: list[Problem] = []
    fix = "allow reading it (chmod a+rx)"
    files = files_of(folder, (suffix,), problems, fix, _key) or {}
    if not files and not problems:
        for below in subfolders(folder, problems):
            for image_id, name in (files_of(below, (suffix,), problems, fix, _key) or {}).items():
                if image_id in files:
                    found = f"{image_id} has two files: {files[image_id]} and {below.name}/{name}"
                    problems.append(Problem(str(folder), found, "keep one"))
                files[image_id] = f"{below.name}/{name}"
    if problems:
        raise BadInput(problems)
    return files


def _key(stem: str) -> str | None:
    return None if f"{stem}.png" == SHEET else key_of(stem)


def _without_files(folder: Path, kind: str) -> Problem:
    forms = "<id>.png or <id>.xml" if kind == "scribbles" else "<id>.png"
    held = some_of(sorted(entry.name for entry in os.scandir(folder)), 3) or "nothing"
    fix = f"put the {kind} there, or remove the folder to have them derived from the masks"
    return Problem(str(folder), f"no file of {kind} ({forms}) in it: it holds {held}", fix)


def _in_zip(path: Path) -> dict[str, str]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    # Damaged archives raise almost any class; all mean the same here.
    except Exception as error:
        raise BadInput(Problem(str(path), f"no zip archive ({error})", "download the annotations again")) from error
    files = {Path(name).stem: name for name in names if name.lower().endswith(".xml")}
    if not files:
        raise BadInput(Problem(str(path), "no XML file in the archive", "download the annotations again"))
    return files
