"""The table model as terminal text, markdown, LaTeX and csv."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Literal

from reports.format.html import html
from reports.format.table import Amount, Cell, Column, Rank, Same, Score, Section, Signed, Table, clean, text

FORMATS = ("terminal", "markdown", "latex", "csv", "html")


def render(table: Table, form: str, *, width: int | None = None, colour: bool = False) -> str:
    """The table as text. `width` (characters) and `colour` matter to `terminal` only; no width: all columns.

    Raises ValueError for a form that is not in FORMATS.
    """
    table = clean(table)
    if form == "terminal":
        return terminal(table, width=width, colour=colour)
    plain = {"markdown": markdown, "latex": latex, "csv": csv_text, "html": html}
    if form not in plain:
        raise ValueError(f"format {form!r} is none of {', '.join(FORMATS)}")
    return plain[form](table)


def terminal(table: Table, *, width: int | None = None, colour: bool = False) -> str:
    """Boxed text.

    Where columns do not fit, those that the heading already says are left out, first to last; then intervals go below
    their values and spare columns are left out, which a last line says.
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table as Rich
    from rich.text import Text

    parts = []
    left_out: dict[str, None] = {}
    for section in table.sections:
        columns, lost = _fitting(section, width)
        left_out.update(dict.fromkeys(c.title for c in lost))
        widths = {c.id: _wants(section.rows, c, text) for c in columns}
        narrow = width is not None and sum(widths.values()) + 3 * len(columns) > width
        if narrow:
            widths = _shrunk(section.rows, columns, (width or 0) - 2 * len(columns))
        grid = Rich(header_style="bold", pad_edge=False, box=SIMPLE_HEAD, padding=(0, int(not narrow), 0, int(narrow)))
        for column in columns:
            justify: Literal["left", "right"] = "right" if column.right else "left"
            head = Text(_head(column, "\n"))
            grid.add_column(head, justify=justify, overflow="fold", width=widths[column.id])
        for row in section.rows:
            grid.add_row(*(Text((_stacked if narrow else text)(row.get(c.id))) for c in columns))
        parts.append((section, grid, columns))
    natural = max([_natural(s.rows, c) for s, _, c in parts] + [80])
    out = io.StringIO()
    console = Console(
        file=out,
        width=width or natural + 2,
        force_terminal=colour,
        no_color=not colour,
        highlight=False,
        soft_wrap=False,
        legacy_windows=False,
    )
    console.print(Text(table.title, style="bold"))
    for section, grid, _ in parts:
        console.print()
        console.print(Text(section.heading, style="bold"))
        if section.caption:
            console.print(Text(section.caption))
        if section.rows:
            console.print(grid)
        for note in section.notes:
            console.print(Text(note, style="dim"))
    if table.notes:
        console.print()
    for note in table.notes:
        console.print(Text(note, style="dim"))
    if left_out:
        console.print(
            Text(f"left out here: {', '.join(left_out)}; a wider terminal or format=csv has them", style="dim")
        )
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def markdown(table: Table) -> str:
    """GitHub tables, one per section."""
    lines = [f"## {_md(table.title)}", ""]
    for section in table.sections:
        lines += [f"### {_md(section.heading)}", ""]
        if section.caption:
            lines += [_md(section.caption), ""]
        if section.rows:
            lines.append(_pipe("<br>".join(_md(h) for h in (c.title, c.sub) if h) for c in section.columns))
            lines.append(_pipe("---:" if c.right else "---" for c in section.columns))
            lines += [_pipe(_md(text(r.get(c.id))) for c in section.columns) for r in section.rows] + [""]
        lines += [f"- {_md(note)}" for note in section.notes] + ([""] if section.notes else [])
    lines += [f"- {_md(note)}" for note in table.notes]
    return "\n".join(lines).rstrip() + "\n"


def latex(table: Table) -> str:
    """One `table` with `tabular` per section; needs the package booktabs."""
    lines = [f"% {table.title}", r"% needs \usepackage{booktabs}"]
    for section in table.sections:
        if not section.rows:
            continue
        lines += [
            r"\begin{table}",
            r"\centering",
            r"\caption{" + _tex(f"{section.heading}. {section.caption}") + "}",
            r"\begin{tabular}{" + "".join("r" if c.right else "l" for c in section.columns) + "}",
            r"\toprule",
            " & ".join(_tex(c.title) for c in section.columns) + r" \\",
        ]
        if any(c.sub for c in section.columns):
            lines.append(" & ".join(_tex(c.sub) for c in section.columns) + r" \\")
        lines.append(r"\midrule")
        lines += [" & ".join(_tex_cell(r.get(c.id)) for c in section.columns) + r" \\" for r in section.rows]
        lines += [r"\bottomrule", r"\end{tabular}"]
        lines += [r"\par\footnotesize " + _tex(note) for note in section.notes]
        lines += [r"\end{table}", ""]
    lines += ["% " + note for note in table.notes]
    return "\n".join(lines).rstrip() + "\n"


def csv_text(table: Table) -> str:
    """One flat table: a line per row of every scores section, four decimals; failures and classes stay out."""
    lines: list[dict[str, object]] = []
    names: dict[str, None] = {}
    for section in table.sections:
        if section.kind != "scores":
            continue
        for row in section.rows:
            line: dict[str, object] = {}
            for column in section.columns:
                line.update(_flat(column, row.get(column.id)))
            line.update({k: _inert(v) for k, v in section.facts.items() if k not in line})
            lines.append(line)
            names.update(dict.fromkeys(line))
    out = io.StringIO()
    writer = csv.DictWriter(out, list(names), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue()


def _flat(column: Column, cell: Cell) -> dict[str, object]:
    if isinstance(cell, Score):
        values = {
            column.measure: f"{cell.value:.4f}",
            "low": f"{cell.low:.4f}",
            "high": f"{cell.high:.4f}",
            "rank": "" if cell.rank is None else cell.rank,
            "excluded": cell.excluded,
            **column.facts,
        }
        return {f"{column.id}_{k}": v for k, v in values.items()}
    if isinstance(cell, Amount):
        small = cell.value < cell.least
        return {
            column.id: f"{cell.value:.3g}" if small else f"{cell.value:.4f}",
            **({f"{column.id}_unit": cell.unit} if cell.unit else {}),
        }
    if isinstance(cell, Rank):
        return {column.id: cell.number}
    if isinstance(cell, Signed):
        return {column.id: f"{cell.value:.4f}"}
    if isinstance(cell, Same):
        return {column.id: _inert(cell.value)}
    if cell is None:
        return {} if column.facts else {column.id: ""}
    return {column.id: _inert(cell) if isinstance(cell, str) else cell}


def _stacked(cell: Cell) -> str:
    if isinstance(cell, Score):
        return f"{cell.value:.1f}{cell.mark}\n{cell.interval}"
    return text(cell)


def _head(column: Column, newline: str) -> str:
    return column.title + (newline + column.sub if column.sub else "")


def _natural(rows: Iterable[Mapping[str, Cell]], columns: list[Column]) -> int:
    rows = list(rows)
    return sum(_wants(rows, c, text) for c in columns) + 3 * len(columns)


def _wants(rows: Iterable[Mapping[str, Cell]], column: Column, show: Callable[[Cell], str]) -> int:
    lines = [column.title, column.sub, *(line for r in rows for line in show(r.get(column.id)).splitlines())]
    return max(map(len, lines))


def _shrunk(rows: Iterable[Mapping[str, Cell]], columns: list[Column], room: int) -> dict[str, int]:
    """Widths that fill `room`: every column its longest word, then more for those that lack most."""
    rows = list(rows)
    want = {c.id: _wants(rows, c, _stacked) for c in columns}
    words = {c.id: [*_head(c, " ").split(), *(w for r in rows for w in _stacked(r.get(c.id)).split())] for c in columns}
    widths = {name: max(map(len, found)) for name, found in words.items()}
    while sum(widths.values()) > room and max(widths.values()) > 1:
        widths[max(widths, key=lambda n: widths[n])] -= 1
    while sum(widths.values()) < room and widths != want:
        widths[max(widths, key=lambda n: want[n] - widths[n])] += 1
    return widths


def _fitting(section: Section, width: int | None) -> tuple[list[Column], list[Column]]:
    """The columns that a width has room for, and the spare ones that it has not."""
    columns = list(section.columns)
    for column in section.columns:
        if width is None or _natural(section.rows, columns) <= width:
            return columns, []
        if column.said_above:
            columns.remove(column)
    lost: list[Column] = []
    for column in sorted((c for c in columns if c.spare), key=lambda c: -c.spare):
        if width is None or _natural(section.rows, columns) <= width or _stacked_width(section.rows, columns) <= width:
            break
        columns.remove(column)
        lost.append(column)
    return columns, lost


def _stacked_width(rows: Iterable[Mapping[str, Cell]], columns: list[Column]) -> int:
    rows = list(rows)
    return sum(_wants(rows, c, _stacked) for c in columns) + 2 * len(columns)


def _pipe(cells: Iterable[str]) -> str:
    return "| " + " | ".join(c.replace("|", r"\|") for c in cells) + " |"


def _md(words: str) -> str:
    """Text that markdown shows as it is: no tag, no link, no picture."""
    return words.replace("&", "&amp;").replace("<", "&lt;").replace("](", r"]\(")


def _inert(words: str) -> str:
    """Text that a spreadsheet does not calculate: what looks like a formula gets an apostrophe."""
    return f"'{words}" if words[:1] in ("=", "+", "-", "@", "\t", "\r") else words


_TEX = {
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}",
    "†": r"$^\dagger$",
    "–": "--",
    "−": "$-$",
    "·": r"$\cdot$",
    "<": r"$<$",
    ">": r"$>$",
}


def _tex(words: str) -> str:
    return re.sub(r"[&%$#_{}~^\\†–−·<>]", lambda m: _TEX[m.group()], words)


def _tex_cell(cell: Cell) -> str:
    if isinstance(cell, Score):
        return rf"{cell.value:.1f}{_tex(cell.mark)} {{\scriptsize {_tex(cell.interval)}}}"
    return _tex(text(cell))
