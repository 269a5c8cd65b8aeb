"""Rows of `docs/faults.md`: what was seen of each fault, kept in `seen/<table>.json`, one entry a row."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from harness.files import write_json

SEEN = Path(__file__).parent / "seen"
PAGE = Path(__file__).parents[2] / "docs/faults.md"
BEGIN, END = "<!-- rows of {} -->\n", "<!-- end of {} -->\n"
HEAD = (
    "| fault | injected at | detected after | what the user saw | steps lost | rows lost | equal bytes |\n"
    "|---|---|---|---|---|---|---|\n"
)


@dataclass(frozen=True)
class Row:
    """One fault and what became of it."""

    fault: str
    injected: str
    detected_s: float | None
    """Until the user was told, or the sweep had ended; None where nothing had to be said."""
    saw: str
    """What the user read of it."""
    steps_lost: int
    """Steps of training that were made more than once."""
    rows_lost: int
    equal: bool
    """Whether the tables of every finished run have the bytes of an undisturbed one."""
    seconds: float | None = None
    """That the row took by the clock; None where nobody looked."""
    core_seconds: float | None = None

    def text(self) -> str:
        """As a row of Markdown."""
        # Clocks of two processes: what is told at once may look earlier than its fault.
        after = "-" if self.detected_s is None else f"{max(self.detected_s, 0.0):.1f} s"
        equal = "yes" if self.equal else "no"
        saw = self.saw.replace("|", "\\|")
        return (
            f"| {self.fault} | {self.injected} | {after} | {saw} | {self.steps_lost} | {self.rows_lost} | {equal} |\n"
        )


def seen(table: str) -> dict[str, Row]:
    """The rows of a table that have been seen, by the names of their tests."""
    file = SEEN / f"{table}.json"
    return {name: Row(**row) for name, row in json.loads(file.read_text()).items()} if file.is_file() else {}


def keep(table: str, name: str, row: Row) -> None:
    """Keeps a row, and writes the page anew."""
    write_json(SEEN / f"{table}.json", {n: asdict(r) for n, r in {**seen(table), name: row}.items()})
    PAGE.write_text(page(PAGE.read_text()))


def tables() -> Iterator[str]:
    """The tables of which a row has been seen."""
    return (file.stem for file in sorted(SEEN.glob("*.json")))


def page(text: str) -> str:
    """The page with the rows of every table between its marks."""
    for table in tables():
        text = between(text, table, seen(table))
    return text


def between(text: str, table: str, rows: Mapping[str, Row]) -> str:
    """`text` with the rows of one table between its marks. Raises ValueError where it has no such marks."""
    begin, end = BEGIN.format(table), END.format(table)
    before, after = text.index(begin) + len(begin), text.index(end)
    return text[:before] + HEAD + "".join(row.text() for row in rows.values()) + took(rows.values()) + text[after:]


def took(rows: Collection[Row]) -> str:
    """How long the rows of a table took that were timed, in a line of its own; empty where none was."""
    clock = [row.seconds for row in rows if row.seconds is not None]
    cores = [row.core_seconds for row in rows if row.core_seconds is not None]
    if not clock:
        return ""
    minutes = f"{sum(clock) / 60:.0f} min by the clock, {sum(cores) / 60:.0f} core-minutes"
    return f"\n{len(clock)} of these {len(rows)} rows were timed: {minutes}.\n"
