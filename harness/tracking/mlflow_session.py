"""One export: which runs of a sweep are new to MLflow, read some at a time, and when studies and sweep are closed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import polars as pl

from harness.files import local_root
from harness.store.outlines import outline_of
from harness.store.reading import Results, latest_runs, load_of
from harness.tracking.mlflow_client import folder_of, make_client
from harness.tracking.mlflow_content import Outline, of_run
from harness.tracking.mlflow_home import settle
from harness.tracking.mlflow_names import FORMAT, fingerprint, started_ms
from harness.tracking.mlflow_studies import chosen_of, of_study, of_sweep, study_name
from harness.tracking.mlflow_tracker import EXPERIMENT, Tracker

Pages = Callable[[Path, str], Mapping[str, str]]
"""A function of (store, sweep id) that renders what is kept with a sweep, its leaderboard first, by file name: the
harness never imports reports."""
SINGLE = "single-runs"
"""The sweep under which runs outside any sweep are filed."""
RUNS_AT_A_TIME = 50
"""Runs whose counts, steps and parameters are in memory together."""


@dataclass(frozen=True)
class Summary:
    """What an export did."""

    uri: str
    experiment: str = ""
    """MLflow's number of the experiment; empty where nothing was written."""
    sweeps: int = 0
    created: int = 0
    updated: int = 0
    known: int = 0
    left_out: int = 0
    """Pictures that the store names outside itself: they stay where they are."""

    def __str__(self) -> str:
        text = (
            f"MLflow {self.uri}: {self.sweeps} sweeps; runs: {self.created} new, {self.updated} updated, "
            f"{self.known} already there"
        )
        return f"{text}; {self.left_out} files outside the store were not sent" if self.left_out else text


class Session:
    """A client and its trackers, made when first needed (importing MLflow takes seconds)."""

    def __init__(self, store_path: str | Path, uri: str, pages: Pages | None, answer_s: int) -> None:
        self.root, self.uri, self.pages = local_root(store_path), uri, pages
        self._answer_s = answer_s
        self._trackers: dict[str, Tracker] = {}

    def write(self, results: Results, sweep: str, summary: Summary, only: Collection[str] | None = None) -> Summary:
        """Export the runs of a sweep: those in `only`, without closing study and sweep, or all.

        `results` is the outline; what else a run holds is read for some new ones at a time.
        """
        tracker = self._tracker(sweep)
        left_out = tracker.left_out
        outline, places = Outline(results), places_of(results, sweep)
        wanted = {place: rows for place, rows in places.items() if only is None or place[1] in only}
        states = {place: outline.state(place[1], rows) for place, rows in wanted.items()}
        new = [place for place in wanted if not tracker.knows(("run", *place), states[place])]
        done = {"created": 0, "updated": 0, "known": len(wanted) - len(new)}
        of_all = [row for rows in places.values() for row in rows]
        starts = _starts(outline, places)
        root = tracker.begin(_sweep_place(sweep), f"sweep {sweep[:12]}", None, min(starts.values(), default=0))
        for start in range(0, len(new), RUNS_AT_A_TIME):
            batch = new[start : start + RUNS_AT_A_TIME]
            content = self._content(outline, {key for _, key in batch}, ("params", "counts", "steps"))
            for study, key in batch:
                name = study_name(study, outline.runs.get(key))
                parent = tracker.begin(_study_place(sweep, study), name, root, starts.get(study, 0))
                one = of_run(key, wanted[study, key], outline, content, self.root)
                done[tracker.write(("run", study, key), one, states[study, key], parent)] += 1
        if only is None:
            self._close(tracker, outline, places, of_all)
        self._show(tracker, closed=only is None)
        return replace(
            summary,
            experiment=tracker.experiment,
            sweeps=summary.sweeps + 1,
            created=summary.created + done["created"],
            updated=summary.updated + done["updated"],
            known=summary.known + done["known"],
            left_out=summary.left_out + tracker.left_out - left_out,
        )

    def _tracker(self, sweep: str) -> Tracker:
        if sweep not in self._trackers:
            with folder_of(self.uri):
                settle(self.uri, EXPERIMENT)
                self._trackers[sweep] = Tracker(make_client(self.uri, self._answer_s), self.uri, sweep)
        return self._trackers[sweep]

    def _show(self, tracker: Tracker, closed: bool) -> None:
        """What the experiment opens on, from all runs that this export knows."""
        runs = [known for t in self._trackers.values() for (kind, *_), known in t.index.items() if kind == "run"]
        tracker.show((name for known in runs for name in known.metrics), boards=closed)

    def _close(self, tracker: Tracker, outline: Outline, places: Places, rows: Sequence[Mapping[str, Any]]) -> None:
        """Studies and the sweep, where anything below them has changed."""
        sweep = tracker.sweep
        root = tracker.begin(_sweep_place(sweep), "", None)
        for study in dict.fromkeys(s for s, _ in places):
            mine = {key: lines for (s, key), lines in places.items() if s == study}
            place, lines = _study_place(sweep, study), [line for found in mine.values() for line in found]
            # Single runs are in no study: there is nothing to choose from.
            lines = lines or [_line_of(outline.runs[key], sweep, study) for key in mine]
            state = fingerprint(FORMAT, [outline.state(key, found) for key, found in mine.items()])
            if not tracker.knows(place, state):
                chosen = chosen_of(lines, outline.runs)
                counts = self._content(outline, set(chosen.keys) if chosen else set(), ("counts",)).counts
                tracker.write(place, of_study(study, lines, outline, counts), state, root)
        given = (outline_of(self.root, sweep) or {}).get("words", [])
        every = list(rows) or [_line_of(outline.runs[key], sweep, study) for study, key in places]
        keys = {key for _, key in places} | (set(outline.runs) - set(outline.results.trials["key"]))
        state = fingerprint(FORMAT, every, given, [outline.state(key, []) for key in sorted(keys)], bool(self.pages))
        if not tracker.knows(_sweep_place(sweep), state):
            pages = self.pages(self.root, sweep) if self.pages else {}
            tracker.write(_sweep_place(sweep), of_sweep(sweep, every, outline, given, pages), state, None)

    def _content(self, outline: Outline, keys: Collection[str], tables: Collection[str]) -> Results:
        """The outline with the rows that these runs have in `tables`."""
        evals = [name for key in keys for name in outline.evals(key)["eval"]]
        return outline.results.with_tables(**load_of(self.root, tables, keys=keys, evals=evals).tables)


Places: TypeAlias = dict[tuple[str, str], list[dict[str, Any]]]
"""Lines of the trials table by (study, run key)."""


def _starts(outline: Outline, places: Places) -> dict[str, int]:
    """When the first run of each study started, milliseconds since 1970, where one says so."""
    found: dict[str, int] = {}
    for study, key in places:
        if at := started_ms(outline.runs.get(key, {})):
            found[study] = min(at, found.get(study, at))
    return found


def _sweep_place(sweep: str) -> tuple[str, str, str]:
    return "sweep", "", f"sweep:{sweep}"


def _study_place(sweep: str, study: str) -> tuple[str, str, str]:
    return "study", study, f"study:{sweep}/{study}"


def _line_of(run: Mapping[str, Any], sweep: str, study: str) -> dict[str, Any]:
    """The line that a run outside any study would have in the trials table."""
    return {"sweep": sweep, "study": study, "trial": 0, "key": run["key"], "role": "final", "status": run["status"],
            "protocol": run["protocol"], "reached": 1.0, "objective": None}  # fmt: skip


def places_of(results: Results, sweep: str) -> Places:
    """(study, run key) -> lines of the trials table; a run may stand in a study as trial and as final."""
    places: Places = {}
    if sweep == SINGLE:
        single = latest_runs(results.runs).join(results.trials, on="key", how="anti").sort("method", "key")
        return {(r["method"], r["key"]): [] for r in single.to_dicts()}
    for row in results.trials.filter(pl.col("sweep") == sweep).sort("study", "trial", "role", "key").to_dicts():
        places.setdefault((row["study"] or "", row["key"]), []).append(row)
    return places
