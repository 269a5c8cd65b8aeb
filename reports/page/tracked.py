"""What MLflow keeps with a sweep: its leaderboard and its page."""

from __future__ import annotations

from pathlib import Path

from harness.store import load
from reports.page.build import page_of
from reports.rows.rows import TABLES
from reports.sections.leaderboard import build


def pages(store: Path, sweep: str) -> dict[str, str]:
    """By file name, for `harness.tracking`. Runs in no sweep have those of the store. Raises StoreError as `load`."""
    results = load(store, TABLES)
    known = sweep if sweep in set(results.trials["sweep"]) else None
    board = build(results, sweep=known)
    leaderboard = {f"leaderboard.{end}": board.render(form) for end, form in (("html", "html"), ("md", "markdown"))}
    return {**leaderboard, "page.html": page_of(store, sweep=known)}
