"""Examples: the same images for all rows, from pictures that the store holds."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import polars as pl
from PIL import Image

from harness.errors import Problem, command
from harness.evaluation.picture_files import IMAGE, KIND, TRUTH, picture_path
from harness.store import Store
from reports.format.html import Block, Gallery, Picture, Words
from reports.page.view import View, quantities_of, quantity_name, same_images
from reports.rows.examples import Example, choose
from reports.rows.ranking import Quantity
from reports.rows.row import Row

Paths: TypeAlias = Mapping[tuple[str, str], Path]
"""Pictures that lie in the store, by run and name."""
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
    left_out: int = 0
    """Rows beyond MOST_ROWS."""

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
        every = tuple(r for b in boards for r in b.group.rows)
        rows = every[:MOST_ROWS]
        last = quantities[-1]
        first = {q: [r.scores[s].evals[0] for r in rows if (s := q.setting(r)) is not None] for q in quantities}
        head = boards[0].group.head
        others = [e for q, evals in first.items() if q != last for e in evals]
        examples = choose(first[last], view.leaderboard.counts, others)
        title = f"{head.dataset} · {head.split} · {head.tier}"
        out.append(Shown(quantities, tuple(examples), rows, title, len(every) - len(rows)))
    return out


def galleries(view: View) -> list[Block]:
    """For each chosen image a gallery: a line for every row, from the photo over its maps and masks to the truth."""
    have = _paths(view)
    return [block for some in shown(view) for block in _galleries(view, some, have)]


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


def _galleries(view: View, some: Shown, have: Paths) -> list[Block]:
    """What was chosen and is lacking in words, then a gallery for each image; none where there is no picture at all."""
    made = [_gallery(view, some, example, have) for example in some.examples]
    chosen = ", ".join(f"{e.why} {e.image} ({100 * e.mean:.1f} %)" for e in some.examples)
    told = [f"{some.title}: {chosen}; chosen by the mean IoU of an image's classes at the last target over all rows, "
            "which stands below each picture in %"]  # fmt: skip
    if some.left_out:
        told.append(f"the first {len(some.rows)} rows of the leaderboard; {some.left_out} more are not shown")
    # Photo and truth stand in every line of a gallery.
    pictures = [p for g in made for n, (_, line) in enumerate(g.rows) for p in (line[1:-1] if n else line) if p.title]
    if lost := sum(not p.source for p in pictures):
        again = command("reports.page", store=view.store, pictures="true")
        told.append(f"{lost} of {len(pictures)} pictures are not in the store: {again} predicts them once, from "
                    "weights that runs kept (keep=last)")  # fmt: skip
    return [Words(tuple(told)), *(made if lost < len(pictures) else [])]


def _gallery(view: View, some: Shown, example: Example, have: Paths) -> Gallery:
    """What every row makes of an image: photo, each target that the row has with its IoU, truth."""
    image = example.image
    photo, truth = (_picture(_found(have, some, what, image), f"{what} of {image}") for what in (IMAGE, TRUTH))
    made = [tuple(_of_row(view, some, example, row, q, have) for q in some.quantities) for row in some.rows]
    columns = (IMAGE, *(quantity_name(q) for q in some.quantities), TRUTH)
    lines = tuple((name, (photo, *line, truth)) for name, line in zip(view.names(some.rows), made, strict=True))
    return Gallery(f"{example.why}: {image}", columns, lines)


def _of_row(view: View, some: Shown, example: Example, row: Row, quantity: Quantity, have: Paths) -> Picture:
    """A row's picture of a target; one without a title where it makes no such thing."""
    evals = some.evals(row, quantity)
    if not evals:
        return Picture("", "")
    key, value = row.keys[0], example.by_eval.get(evals[0])
    path = have.get((key, picture_path(key, quantity.target, example.image)))
    shown = _picture(path, f"{quantity_name(quantity)} of {example.image} by {view.name(row)}")
    return replace(shown, sub="" if value is None else f"{100 * value:.1f}")


def _paths(view: View) -> Paths:
    """The pictures that the store holds, by run and name."""
    if view.store is None:
        return {}
    kept = view.results.artifacts.filter(pl.col("kind") == KIND)
    found = ((key, name, view.store / name) for key, name in kept.select("key", "path").iter_rows())
    return {(key, name): path for key, name, path in found if path.is_file()}


def _new(store: Store, key: str) -> Iterator[tuple[tuple[str, str], Path]]:
    for path in (store.root / "pictures" / key).glob("*.png"):
        yield (key, f"pictures/{key}/{path.name}"), path


def _lacking(have: Paths, key: str, what: str, ids: list[str]) -> list[str]:
    return [i for i in ids if (key, picture_path(key, what, i)) not in have]


def _found(have: Paths, some: Shown, what: str, image_id: str) -> Path | None:
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
