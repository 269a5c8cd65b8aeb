"""What MLflow keeps with a sweep: its leaderboard and its page."""

from __future__ import annotations

from pathlib import Path

from harness.store import load
from reports.page.build import page_of
from reports.rows.row import Filters
from reports.rows.rows import load_rows
from reports.sections.leaderboard import build


def pages(store: Path, sweep: str) -> dict[str, str]:
    """By file name, for `harness.tracking`. Runs in no sweep have those of the store. Raises StoreError as `load`."""
    known = sweep if sweep in set(load(store, ("trials",)).trials["sweep"]) else None
    board = build(load_rows(store, Filters(known)), sweep=known)
    leaderboard = {f"leaderboard.{end}": board.render(form) for end, form in (("html", "html"), ("md", "markdown"))}
    return {**leaderboard, "page.html": page_of(store, sweep=known)}
