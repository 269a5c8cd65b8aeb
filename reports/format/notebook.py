"""The table model as a fragment of HTML without styles or scripts: what a notebook shows of it."""

from __future__ import annotations

from html import escape

from reports.format.table import Section, Table, clean, text


def fragment(table: Table) -> str:
    """Titles, tables and notes of a table; all texts escaped."""
    table = clean(table)
    parts = [f"<h4>{escape(table.title)}</h4>", *(_section(section) for section in table.sections)]
    return "".join([*parts, *_notes(table.notes)])


def _section(section: Section) -> str:
    head = "".join(f"<th>{escape(f'{column.title} {column.sub}'.strip())}</th>" for column in section.columns)
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(text(row.get(column.id)))}</td>" for column in section.columns) + "</tr>"
        for row in section.rows
    )
    caption = f"<p>{escape(section.caption)}</p>" if section.caption else ""
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>" if section.rows else ""
    return "".join([f"<h5>{escape(section.heading)}</h5>", caption, table, *_notes(section.notes)])


def _notes(notes: tuple[str, ...] | list[str]) -> list[str]:
    return [f"<p><small>{escape(note)}</small></p>" for note in notes]
