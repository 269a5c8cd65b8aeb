"""The one maker of HTML: a self-contained page of tables, charts and pictures, without network.

Columns sort by a click; charts are drawn by the one copy of plotly.js that a page with charts carries.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

from reports.format.table import SHARED, Amount, Cell, Column, Rank, Same, Score, Section, Signed, Table, clean, text

if TYPE_CHECKING:
    from jinja2 import Template

WHISKER = 120
"""Width of an interval's drawing in pixels."""
STAYS = ("rank", "method", "ablation")
"""Columns that a phone shows beside the chosen metric."""
CODE = ("command",)
"""Columns of commands, in letters of equal width."""
_STEP = 10.0
"""The scale of intervals ends at a multiple of it, in percent."""


@dataclass(frozen=True)
class Chart:
    """A plotly figure, drawn when it comes into sight."""

    title: str
    figure: str
    """`data` and `layout` as JSON; names in it have their markup escaped (`reports.page.charts.plain`)."""
    caption: str = ""
    metric: str = ""
    """Shown only while this metric is the chosen one; empty: always."""
    height: int = 380
    wide: bool = True
    """Takes the whole width; two that do not stand side by side."""
    least: int = 0
    """Pixels below which it is not squeezed but moved sideways; 0: it fits every width."""


@dataclass(frozen=True)
class Picture:
    """One picture of a gallery: a `data:` address, or empty where the store lacks it; without a title a free place."""

    source: str
    title: str
    sub: str = ""


@dataclass(frozen=True)
class Gallery:
    """Rows of pictures with their names, and what they are above each column."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Picture, ...]], ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Words:
    """A paragraph for each text: what is missing, and why."""

    paragraphs: tuple[str, ...]


Block: TypeAlias = Section | Chart | Gallery | Words


@dataclass(frozen=True)
class Chapter:
    """A part of a page that its contents name."""

    id: str
    title: str
    blocks: tuple[Block, ...]
    lead: str = ""


@dataclass(frozen=True)
class Page:
    """A whole page. `metrics`: names by id of the columns among which a reader chooses; the last is chosen first."""

    title: str
    chapters: tuple[Chapter, ...]
    facts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    metrics: Mapping[str, str] = field(default_factory=dict)


def html(table: Table) -> str:
    """A table as a page of one chapter."""
    return page_html(Page(table.title, (Chapter("tables", "", table.sections),), notes=table.notes))


def page_html(page: Page) -> str:
    """The page as text."""
    blocks = [b for chapter in page.chapters for b in chapter.blocks]
    charts = any(isinstance(b, Chart) for b in blocks)
    seen: dict[str, str] = {}
    chapters = [
        {"id": c.id, "title": c.title, "lead": c.lead, "blocks": [_block(b, page.metrics, seen) for b in c.blocks]}
        for c in page.chapters
    ]
    chosen = list(page.metrics)[-1] if page.metrics else ""
    return _template().render(page=page, chapters=chapters, chosen=chosen, script=_plotly() if charts else "") + "\n"


def cleaned(section: Section) -> Section:
    """A section without control characters in its texts."""
    return clean(Table("", (section,))).sections[0]


@lru_cache(maxsize=1)
def _template() -> Template:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("reports.format")
    return Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    ).get_template("page.html")


def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    return get_plotlyjs()


def _block(block: Block, metrics: Mapping[str, str], seen: dict[str, str]) -> dict[str, Any]:
    if isinstance(block, Section):
        return _section(cleaned(block), metrics)
    if isinstance(block, Chart):
        # Inside a script element only `<` could end it.
        return {"kind": "chart", "chart": block, "figure": block.figure.replace("<", "\\u003c")}
    if isinstance(block, Gallery):
        rows = [(name, [_once(picture, seen) for picture in pictures]) for name, pictures in block.rows]
        return {"kind": "gallery", "it": block, "rows": rows}
    return {"kind": "words", "it": block}


def _once(picture: Picture, seen: dict[str, str]) -> dict[str, Any]:
    """A picture that stands on the page in several places is held in the first, and `of` names that one in others."""
    first = picture.source not in seen
    number = seen.setdefault(picture.source, f"picture{len(seen)}") if picture.source else ""
    return {"it": picture, "id": number if first else "", "of": "" if first else number}


def _section(section: Section, metrics: Mapping[str, str]) -> dict[str, Any]:
    ends = {c.id: _scale(section.rows, c) for c in section.columns}
    ties = {c.id: _ties(section.rows, c) for c in section.columns}
    shown = [c.id for c in section.columns if c.id in metrics]
    return {
        "kind": "section",
        "section": section,
        "heading": section.about or section.heading,
        "more": section.heading.removeprefix(section.about).lstrip(" ·") if section.about else "",
        "board": bool(shown),
        "columns": [_head(c, shown) for c in section.columns],
        "rows": [
            [_cell(row.get(c.id), c, ends[c.id], ties[c.id], c.id in shown) for c in section.columns]
            for row in section.rows
        ],
    }


def _head(column: Column, metrics: Sequence[str]) -> dict[str, Any]:
    metric = column.id in metrics
    classes = {
        "r": column.right,
        "above": column.said_above,
        "code": column.id in CODE,
        "spare": not (metric or column.id in STAYS),
    }
    return {"it": column, "metric": metric, "classes": " ".join(name for name, holds in classes.items() if holds)}


def _scale(rows: Sequence[Mapping[str, Cell]], column: Column) -> float:
    """Where the scale of a column's intervals ends, in percent; 0 for differences, which are not drawn."""
    if column.measure == "difference":
        return 0.0
    highs = [v for row in rows if isinstance(c := row.get(column.id), Score) for v in (c.high, c.value)]
    top = max((v for v in highs if not math.isnan(v)), default=0.0)
    return min(100.0, _STEP * math.ceil(top / _STEP))


def _ties(rows: Sequence[Mapping[str, Cell]], column: Column) -> set[int]:
    """The ranks of a column that several rows share."""
    ranks = [c.rank for row in rows if isinstance(c := row.get(column.id), Score) and c.rank is not None]
    return {r for r in ranks if ranks.count(r) > 1}


def _cell(cell: Cell, column: Column, end: float, ties: set[int], metric: bool) -> dict[str, Any]:
    out: dict[str, Any] = {
        "text": text(cell), "sort": "" if cell is None else text(cell), "metric": metric, "score": None, "rank": "",
    }  # fmt: skip
    if isinstance(cell, Score):
        out["sort"] = f"{cell.value:.6f}"
        value = str(Signed(cell.value)) if column.measure == "difference" else f"{cell.value:.1f}"
        out["score"] = {"value": value + cell.mark, "interval": cell.interval, "bar": _bar(cell, end)}
        out["rank"] = "" if cell.rank is None else f"{cell.rank}{SHARED if cell.rank in ties else ''}"
    elif isinstance(cell, Amount | Signed):
        out["sort"] = f"{cell.value:.6g}"
    elif isinstance(cell, Rank):
        out["sort"] = str(cell.number)
    elif isinstance(cell, Same):
        out["sort"] = cell.value
    return out


def _bar(score: Score, end: float) -> dict[str, str] | None:
    """Where an interval's drawing starts, has its dot and ends, in pixels."""
    if not end or math.isnan(score.low) or math.isnan(score.value):
        return None
    return {n: f"{v / end * WHISKER:.1f}" for n, v in (("low", score.low), ("mid", score.value), ("high", score.high))}
