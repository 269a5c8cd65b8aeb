"""What MLflow keeps with a sweep: its leaderboard and its page."""

from __future__ import annotations

from harness.store import Results
from reports.format.html import page_html
from reports.page.build import build as page
from reports.rows.row import Filters
from reports.sections.leaderboard import build


def pages(results: Results, sweep: str) -> dict[str, str]:
    """By file name, for `harness.tracking`: `results` with all tables. Runs in no sweep have those of the store."""
    known = sweep if sweep in set(results.trials["sweep"]) else None
    board = build(results, sweep=known)
    leaderboard = {f"leaderboard.{end}": board.render(form) for end, form in (("html", "html"), ("md", "markdown"))}
    return {**leaderboard, "page.html": page_html(page(results, Filters(known), board))}
