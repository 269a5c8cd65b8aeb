"""Examples: the same images for all rows, from pictures that the store holds."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl
from PIL import Image

from harness.errors import Problem, command
from harness.evaluation.picture_files import IMAGE, KIND, TRUTH, picture_path
from harness.store import Store
from reports.format.html import Block, Gallery, Picture
from reports.page.view import View, quantities_of, quantity_name, same_images
from reports.rows.examples import Example, choose
from reports.rows.ranking import Quantity
from reports.rows.row import Row

WIDTH = 232
"""Pixels of a picture on the page; larger ones are made smaller."""
MOST_ROWS = 24
PHOTO_COLOURS = 1 << 12
"""A picture of more colours is a photo, which JPEG holds in less."""


@dataclass(frozen=True)
class Shown:
    """A set of images with the rows that are shown on them: each with its run, its eval and its target's settings."""

    quantities: tuple[Quantity, ...]
    examples: tuple[Example, ...]
    rows: tuple[Row, ...]
    title: str

    def evals(self, row: Row, quantity: Quantity) -> tuple[str, ...]:
        """The evals of a row at a quantity, one for each seed."""
        setting = quantity.setting(row)
        return row.scores[setting].evals if setting is not None else ()


def shown(view: View) -> list[Shown]:
    """The examples of each set of rows that were scored on the same images, by their last target."""
    out = []
    for boards in same_images(view.boards):
        # Pictures are made with the usual tags.
        quantities = tuple(q for q in quantities_of(boards) if q.id == q.target)
        if not quantities:
            continue
        rows = tuple(r for b in boards for r in b.group.rows)[:MOST_ROWS]
        last = quantities[-1]
        first = [s.evals[0] for r in rows if (found := last.setting(r)) is not None for s in [r.scores[found]]]
        head = boards[0].group.head
        examples = choose(first, view.leaderboard.counts)
        out.append(Shown(quantities, tuple(examples), rows, f"{head.dataset} · {head.split} · {head.tier}"))
    return out


def galleries(view: View) -> list[Block]:
    """For each set of images and target a gallery: photo, truth, then what every row makes of it."""
    blocks: list[Block] = []
    for some in shown(view):
        for quantity in some.quantities:
            blocks.append(_gallery(view, some, quantity))
    return blocks


def add_missing(view: View, store: Store) -> list[Problem]:
    """Predict the pictures that the store lacks, once, from the kept weights; what could not be predicted."""
    from harness.evaluation.pictures import add_pictures

    problems: list[Problem] = []
    have = _paths(view)
    for some in shown(view):
        ids = [e.image for e in some.examples]
        for row in some.rows:
            key = row.keys[0]
            wanted = {q.target: _lacking(have, key, q.target, ids) for q in some.quantities if some.evals(row, q)}
            for what in (IMAGE, TRUTH):
                wanted[what] = [i for i in ids if not _found(have, some, what, i)]
            if any(wanted.values()) and not row.foreign:
                problems += add_pictures(store, key, wanted)
                have = {**have, **dict(_new(store, key))}
    return list(dict.fromkeys(problems))


def _gallery(view: View, some: Shown, quantity: Quantity) -> Gallery:
    """A line for each image: photo, truth, then each row's picture with its IoU."""
    have = _paths(view)
    rows = [r for r in some.rows if some.evals(r, quantity)]
    lines: list[tuple[str, tuple[Picture, ...]]] = []
    for example in some.examples:
        image = example.image
        line = [_picture(_found(have, some, what, image), f"{what} of {image}") for what in (IMAGE, TRUTH)]
        for row in rows:
            path = have.get((row.keys[0], picture_path(row.keys[0], quantity.target, image)))
            value = example.by_eval.get(some.evals(row, quantity)[0])
            sub = "" if value is None else f"{100 * value:.1f}"
            line.append(replace(_picture(path, f"{quantity_name(quantity)} of {image} by {row.title}"), sub=sub))
        lines.append((f"{example.why}: {image}", tuple(line)))
    notes = ["chosen by the mean IoU of an image's classes over all rows at the last target; numbers: that IoU in %"]
    if lost := sum(not p.source for _, line in lines for p in line):
        again = command("reports.page", store=view.store, pictures="true")
        notes.append(f"{lost} of {len(lines) * (len(rows) + 2)} pictures are not in the store: {again} predicts them "
                     "once, from weights that runs kept (keep=last)")  # fmt: skip
    columns = (IMAGE, TRUTH, *(row.title for row in rows))
    title = f"{quantity_name(quantity)} · {some.title}"
    return Gallery(title, columns, tuple(lines), tuple(notes), metric=quantity.id)


def _paths(view: View) -> Mapping[tuple[str, str], Path]:
    """The pictures that the store holds, by run and name."""
    if view.store is None:
        return {}
    kept = view.results.artifacts.filter(pl.col("kind") == KIND)
    found = ((key, name, view.store / name) for key, name in kept.select("key", "path").iter_rows())
    return {(key, name): path for key, name, path in found if path.is_file()}


def _new(store: Store, key: str) -> Iterator[tuple[tuple[str, str], Path]]:
    for path in (store.root / "pictures" / key).glob("*.png"):
        yield (key, f"pictures/{key}/{path.name}"), path


def _lacking(have: Mapping[tuple[str, str], Path], key: str, what: str, ids: list[str]) -> list[str]:
    return [i for i in ids if (key, picture_path(key, what, i)) not in have]


def _found(have: Mapping[tuple[str, str], Path], some: Shown, what: str, image_id: str) -> Path | None:
    """Photo and truth are kept by one run for all."""
    keys = (row.keys[0] for row in some.rows)
    return next((p for k in keys if (p := have.get((k, picture_path(k, what, image_id)))) is not None), None)


def _picture(path: Path | None, title: str) -> Picture:
    if path is None:
        return Picture("", f"{title}: not in the store")
    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    colours = picture.getcolors(PHOTO_COLOURS)
    if picture.width > WIDTH:
        size = (WIDTH, max(1, round(picture.height * WIDTH / picture.width)))
        picture = picture.resize(size, Image.Resampling.LANCZOS if colours is None else Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    if colours is None:
        picture.save(buffer, "JPEG", quality=84)
    else:
        picture.save(buffer, "PNG", optimize=True)
    kind = "jpeg" if colours is None else "png"
    return Picture(f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}", title)
