"""Listed ids without a file, and what lies there in place of them: other formats, other names."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Collection, Iterable
from pathlib import Path

from harness.datasets.io.images import IMAGE_SUFFIXES, MASK_SUFFIXES, OTHER_PICTURES, some_of
from harness.errors import Problem


def missing(
    ids: Iterable[str],
    files: Iterable[str],
    folder: Path,
    what: str,
    problems: list[Problem],
    *,
    official: bool = True,
) -> None:
    """A problem for listed ids without a file. Lists that are not `official` may be made shorter instead."""
    ids = list(ids)
    known = set(files)
    absent = [image_id for image_id in ids if image_id not in known]
    if not absent:
        return
    fix = "add the files" if official else "add the files, or take the ids out of the lists"
    found = f"{len(absent)} listed ids have no {what}: {some_of(absent)}"
    if all(os.path.splitext(image_id)[1].lower() in IMAGE_SUFFIXES for image_id in absent):
        fix = "write the ids in the lists without suffix"
    elif all(_first_word(image_id) in known for image_id in absent):
        fix = "write the id alone on each line of the lists, without quotes and without anything behind it"
    elif others := of_other_names(
        folder,
        absent,
        MASK_SUFFIXES if what.startswith("mask") else IMAGE_SUFFIXES,
        few=2 * len(absent) <= len(ids),
        there=known.intersection(ids),
    ):
        names, fix = others
        found += f"; {len(names)} files {some_of(names, 3)} are there instead"
    problems.append(Problem(str(folder), found, fix))


def of_other_names(
    folder: Path, ids: Iterable[str], suffixes: tuple[str, ...], *, few: bool = False, there: Collection[str] = ()
) -> tuple[list[str], str] | None:
    """Files that lie where those of these ids should, under names that are not read, and what to do about them.

    Where `few` of the ids lack one only pictures under exactly their names count: the rest is of the others. What lies
    beside the files of ids that have one, those of `there`, is something else: photos in the folder of their masks.
    """
    try:
        entries = sorted((e.name, e.is_file(), e.is_symlink()) for e in os.scandir(folder) if e.name[0] != ".")
    except OSError:
        return None
    wanted = set(ids)
    if dead := [name for name, file, link in entries if link and not file and os.path.splitext(name)[0] in wanted]:
        return dead, "they are links that lead nowhere: link them anew, or put the files themselves there"
    names = [name for name, file, _ in entries if file]
    beside = {ending for stem, ending in map(os.path.splitext, names) if stem in there}
    mine = [
        name
        for name in names
        for stem, ending in [os.path.splitext(name)]
        if stem in wanted and ending not in beside and not name.lower().endswith(suffixes)
    ]
    pictures = [name for name in mine if name.lower().endswith((*IMAGE_SUFFIXES, *OTHER_PICTURES))]
    if other := pictures or ([] if few else mine):
        endings = sorted({os.path.splitext(name)[1] for name in other})
        shown = other if few else [name for name in names if os.path.splitext(name)[1] in endings]
        return shown, _told(endings, suffixes)
    if few:
        return None
    read = [name for name in names if name.lower().endswith(suffixes)]
    spelt = {_spelling(image_id) for image_id in wanted}
    if alike := [name for name in read if _spelling(os.path.splitext(name)[0]) in spelt]:
        return alike, "case, or the form of accents (NFC, NFD), differs: write the ids as the files are named"
    if tails := [name for name in read if _begins_with(name, wanted)]:
        return tails, f"name each file <id>{os.path.splitext(tails[0])[1]}"
    return None


def _told(endings: list[str], suffixes: tuple[str, ...]) -> str:
    """What to do about files with these endings where files with those `suffixes` are read."""
    text = " and ".join(ending or "no suffix" for ending in endings) + (" is" if len(endings) == 1 else " are")
    if suffixes == MASK_SUFFIXES and all(ending.lower() in IMAGE_SUFFIXES for ending in endings):
        return "masks must be PNG, JPEG changes labels: export them anew as index PNGs from where they were drawn"
    if suffixes == MASK_SUFFIXES:
        return f"{text} not read: save masks as index PNGs"
    if suffixes == IMAGE_SUFFIXES:
        return f"{text} not read: save the images as .png (or .jpg), 8 bits a channel"
    return f"{text} not read here: {' or '.join(suffixes)} is"


def _spelling(name: str) -> str:
    """A name without what differs between file systems: case, and how accents are composed."""
    return unicodedata.normalize("NFC", name).casefold()


def _first_word(line: str) -> str:
    """The first of several words or columns on a line, without quotes."""
    return line.replace(",", " ").replace(";", " ").split()[0].strip("\"'") if line.strip(" ,;") else line


def _begins_with(name: str, ids: set[str]) -> bool:
    """Whether a file name is one of these ids with more behind it: `<id>_mask.png`, `<id>.jpg.png`."""
    stem = os.path.splitext(name)[0]
    return any(stem[at] in "._- " and stem[:at] in ids for at in range(1, len(stem)))
