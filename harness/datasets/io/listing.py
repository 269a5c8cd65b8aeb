"""Listing folders, id lists and name files, with every problem collected; nothing outside a given folder is opened."""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from harness.datasets.io.images import IMAGE_SUFFIXES, some_of
from harness.datasets.io.opening import plain_bytes
from harness.errors import BadInput, Problem

MAX_TEXT_BYTES = 64 << 20
"""Lists of ids and names are never longer; what is, is something else."""


def root_folder(root: str | None, needs: str, problems: list[Problem]) -> Path | None:
    """The folder that `data.root` names; `needs` says in words what should lie in it."""
    if not root:
        problems.append(Problem("data.root", "not given", f"data.root=<folder with {needs}>"))
        return None
    base = Path(root).expanduser().absolute()
    if not base.is_dir():
        found = "is not a folder" if base.exists() else "there is no such folder"
        problems.append(Problem("data.root", f"{base}: {found}", f"data.root=<folder with {needs}>"))
        return None
    return base


def given_path(word: str, text: str, root: Path) -> Path:
    """The file or folder that `word` names: from the current folder, else from the dataset's `root`.

    Raises BadInput where there is none, and where both are there and differ: a name must not change its meaning
    with what lies beside the images.
    """
    if not text:
        raise BadInput(Problem(word, "no value given", f"{word}=<path>"))
    places = dict.fromkeys((Path(text).expanduser().absolute(), root / text))
    found = [place for place in places if place.exists()]
    if not found:
        raise BadInput(Problem(word, f"there is no {' and no '.join(map(str, places))}", f"{word}=<path>"))
    if len({place.resolve() for place in found}) > 1:
        told = " or ".join(f"{word}={place}" for place in found)
        raise BadInput(Problem(word, f"{text!r} lies here and in {root}", f"write {told}"))
    return found[0]


def link_out(path: str | Path, kind: str = "file") -> Problem:
    """That a path is a link out of its folder, which nobody opens."""
    return Problem(str(path), "a link that leaves its folder", f"put the {kind} itself there")


def leads_out(path: Path, folder: Path) -> bool:
    """Whether a path, its links followed, ends outside `folder`."""
    return not path.resolve().is_relative_to(folder.resolve())


def plain_id(line: str) -> str | None:
    """The id on a line that holds nothing else; None for what is no id."""
    return line if is_plain(line) else None


def field_id(line: str) -> str | None:
    """The id on a line as the field writes them; None for what is no id.

    `<id>`, `<id>.jpg <id>.png`, `/JPEGImages/<id>.jpg /SegmentationClassAug/<id>.png`: the name of the first file,
    without folder and suffix. The folders are not used, so that no line leads out of the dataset.
    """
    first = line.split()[0] if line.split() else ""
    if ".." in first.split("/"):
        return None
    name = first.rpartition("/")[2]
    stem, suffix = os.path.splitext(name)
    name = stem if suffix.lower() in IMAGE_SUFFIXES else name
    return name if is_plain(name) else None


def read_ids(
    path: Path, folder: Path, problems: list[Problem], parse: Callable[[str], str | None] = plain_id
) -> tuple[str, ...]:
    """The ids of a list, in order and once each; lines that are no ids, double ids and empty lists are problems."""
    lines = read_lines(path, folder, problems)
    if lines is None:
        return ()
    texts = [line.strip() for line in lines if line.strip()]
    parsed = [parse(text) for text in texts]
    refused = [text for text, image_id in zip(texts, parsed, strict=True) if image_id is None]
    if refused:
        problems.append(
            Problem(
                str(path),
                f"{len(refused)} lines are no ids: {some_of(map(repr, refused))}",
                "write one id a line: a file name without folder, suffix and '..'",
            )
        )
    ids = [image_id for image_id in parsed if image_id is not None]
    twice = [image_id for image_id, count in Counter(ids).items() if count > 1]
    if twice:
        problems.append(
            Problem(str(path), f"{len(twice)} ids stand there more than once: {some_of(twice)}", "keep each id once")
        )
    if not ids and not refused:
        problems.append(Problem(str(path), "the list is empty", "write one id a line, or remove the list"))
    return tuple(dict.fromkeys(ids))


def read_lines(path: Path, folder: Path, problems: list[Problem]) -> list[str] | None:
    """Lines of a UTF-8 text file inside `folder`; None, and a problem, where it cannot be read."""
    try:
        if leads_out(path, folder):
            problems.append(link_out(path))
            return None
        data = plain_bytes(path, MAX_TEXT_BYTES + 1)
        if len(data) > MAX_TEXT_BYTES:
            problems.append(Problem(str(path), "more than 64 MiB, no list of ids", "write one entry a line"))
            return None
        return io.TextIOWrapper(io.BytesIO(data), encoding="utf-8-sig").read().split("\n")
    except UnicodeDecodeError:
        problems.append(Problem(str(path), "not UTF-8 text", "save it as plain UTF-8 text, one entry a line"))
    except OSError as error:
        problems.append(Problem(str(path), f"cannot be read ({error.strerror})", "allow reading it (chmod a+r)"))
    return None


def disjoint(lists: Mapping[str, Iterable[str]], where: str, problems: list[Problem]) -> None:
    """A problem for ids that stand in more than one split."""
    counts = Counter(image_id for ids in lists.values() for image_id in set(ids))
    shared = [image_id for image_id, count in counts.items() if count > 1]
    if shared:
        splits = [split for split, ids in lists.items() if not set(shared).isdisjoint(ids)]
        problems.append(
            Problem(
                where,
                f"{len(shared)} ids stand in more than one of "
                f"{', '.join(f'{split}.txt' for split in splits)}: {some_of(shared)}",
                "keep each image in one split",
            )
        )


def files_of(
    folder: Path,
    suffixes: tuple[str, ...],
    problems: list[Problem],
    fix: str,
    key: Callable[[str], str | None] = lambda stem: stem,
) -> dict[str, str] | None:
    """File name by id of what lies in a folder; None, and a problem, where it cannot be listed.

    A file counts if it ends in one of `suffixes` and `key` makes an id of the rest of its name. Two files of one id,
    links that leave the folder and what is no plain file (a pipe) are problems; the latter two are left out, so that
    nobody opens them.
    """
    try:
        entries = sorted((entry.name, entry.is_symlink(), entry.is_file()) for entry in os.scandir(folder))
    except FileNotFoundError:
        problems.append(Problem(str(folder), "there is no such folder", fix))
        return None
    except OSError as error:
        problems.append(Problem(str(folder), f"cannot be listed ({error.strerror})", fix))
        return None
    files: dict[str, str] = {}
    twice, outside, others = [], [], []
    inside = folder.resolve()
    for name, linked, plain in entries:
        lower = name.lower()
        suffix = next((s for s in suffixes if lower.endswith(s)), None)
        image_id = key(name[: len(name) - len(suffix)]) if suffix else None
        if image_id is None or name.startswith("."):
            continue
        if linked and not (folder / name).resolve().is_relative_to(inside):
            outside.append(name)
            continue
        if not plain:
            others.append(name)
            continue
        if image_id in files:
            twice.append(f"{files[image_id]} and {name}")
        files.setdefault(image_id, name)
    if twice:
        problems.append(Problem(str(folder), f"{len(twice)} ids have two files: {some_of(twice)}", "keep one"))
    if others:
        found = f"{len(others)} are no plain files (a folder, a pipe, a dead link): {some_of(others)}"
        problems.append(Problem(str(folder), found, "put the files themselves there, or remove these"))
    if outside:
        problems.append(
            Problem(
                str(folder),
                f"{len(outside)} files are links that leave it: {some_of(outside)}",
                "link the folder as a whole, or put the files themselves there",
            )
        )
    return files


def subfolders(folder: Path, problems: list[Problem]) -> Iterator[Path]:
    """The folders in a folder, by name; links that leave it are problems."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name.startswith(".") or not entry.is_dir():
            continue
        if entry.is_symlink() and leads_out(Path(entry.path), folder):
            problems.append(link_out(entry.path, "folder"))
        else:
            yield Path(entry.path)


def is_plain(name: str) -> bool:
    """Whether a text is the name of one file or folder, and of nothing outside the one it lies in."""
    return (
        bool(name)
        and ".." not in name
        and not name.startswith((".", "~"))
        and not any(letter in "/\\" or not letter.isprintable() for letter in name)
    )


def find_list(base: Path, folders: Iterable[str], names: Iterable[str], size: int | None = None) -> Path | None:
    """The list of one of these names in one of these folders: the first with `size` lines, else the first."""
    found = [base / folder / f"{name}.txt" for name in names for folder in folders]
    existing = [path for path in found if path.is_file()]
    of_size = (path for path in existing if size is not None and _lines_in(path) == size)
    return next(of_size, existing[0] if existing else None)


def judge_count(
    path: str,
    split: str,
    count: int,
    size: int,
    known: Mapping[int, str],
    fix: str,
    errors: list[Problem],
    warnings: list[Problem],
) -> None:
    """An error for a list that is not the official one but claims to be; a warning for a part of the dataset.

    A part has less than half of the official size and is none of the `known` other lists; anything nearer to the
    official size is cut off or wrong.
    """
    if count in known:
        errors.append(Problem(path, f"{count:,} ids for {split}: {known[count]}; {size:,} expected", fix))
    elif 2 * count < size:
        warnings.append(Problem(path, f"{count:,} of {size:,} ids: a part of {split} is used", f"for all: {fix}"))
    elif count != size:
        errors.append(Problem(path, f"{count:,} ids for {split}; {size:,} expected", fix))


def _lines_in(path: Path) -> int:
    try:
        if leads_out(path, path.parent) or path.stat().st_size > MAX_TEXT_BYTES:
            return -1
        return sum(1 for line in plain_bytes(path, MAX_TEXT_BYTES).split(b"\n") if line.strip())
    except OSError:
        return -1
