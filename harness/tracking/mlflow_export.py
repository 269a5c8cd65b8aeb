"""MLflow filled from the store, afterwards (`export`) or while a sweep runs (`Exporter`), by the driver only.

The store is the truth: nothing here is needed to rebuild a result, and no failure here touches one.
"""

from __future__ import annotations

import contextlib
import queue
import re
import shlex
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote

import polars as pl

from harness.errors import HIDDEN, StoreError, command, without_secrets
from harness.files import local_root
from harness.store.reading import Results, latest_runs, load
from harness.tracking.mlflow_client import folder_of, local_uri, make_client
from harness.tracking.mlflow_tracker import Tracker

Leaderboard = str | Callable[[Results, str], str]
"""Text, or a function of (results, sweep id) that renders it: the store never imports reports."""
SINGLE = "single-runs"
"""The sweep under which runs outside any sweep are filed."""
_OUTLINE = ("runs", "trials", "evals", "artifacts")
"""Tables with few rows a run: they say what is new."""
RUNS_AT_A_TIME = 50
"""Runs whose counts, steps and parameters are in memory together."""


@dataclass(frozen=True)
class Summary:
    """What an export did."""

    uri: str
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


def export(
    store_path: str | Path,
    uri: str | None = None,
    *,
    sweep: str | None = None,
    leaderboard: Leaderboard | None = None,
) -> Summary:
    """Fill MLflow at `uri` (default: SQLite inside the store) with one sweep or all; nothing is sent twice.

    Raises StoreError in plain words when the server is down, hangs or refuses; the same call then goes on.
    """
    address = uri or local_uri(store_path)
    results = load(store_path, _OUTLINE)
    known = {s for s in results.trials["sweep"].to_list() if s is not None}
    if sweep is not None and sweep not in known:
        raise StoreError(f"{store_path} holds no sweep {sweep!r}; it holds: {', '.join(sorted(known)) or 'none'}")
    single = [SINGLE] if sweep is None and _places(results, SINGLE) else []
    session = _Session(store_path, address, leaderboard)
    summary = Summary(without_secrets(address))
    try:
        for name in [sweep] if sweep is not None else [*sorted(known), *single]:
            summary = session.write(results, name, summary)
    except Exception as error:
        # MLflow lets errors of requests, SQLAlchemy and its own through; for the reader they are one thing.
        text = failure_text(address, error)
        raise StoreError(f"{text} The store is unharmed; {how_to_go_on(address, error)}.") from error
    return summary


_DELETED = re.compile(r"experiment .*(was deleted|active state)", re.IGNORECASE)


def failure_text(uri: str, error: BaseException) -> str:
    """One sentence that says which server did not take the results, and why; without the login of its address."""
    reason = (str(error).splitlines() or [""])[0] or type(error).__name__
    for secret in _secrets(uri):
        reason = reason.replace(secret, HIDDEN)
    text = without_secrets(f"MLflow at {uri} did not take the results: {reason[:300]}")
    return text if text.endswith(".") else f"{text}."


def how_to_go_on(uri: str, error: BaseException) -> str:
    """What brings the results to MLflow after all."""
    if not _DELETED.search(str(error)):
        return "the same command goes on"
    number = re.search(r"\d+", str(error))
    restore = shlex.join(["mlflow", "experiments", "restore", "--experiment-id", number[0] if number else "<id>"])
    at = shlex.quote(without_secrets(uri))
    return f"bring the experiment back with MLFLOW_TRACKING_URI={at} {restore}, or name another server with mlflow="


def _secrets(uri: str) -> list[str]:
    """Parts of a tracking URI that errors may repeat and nobody may read: the login, and its password alone."""
    login = uri.partition("://")[2].rpartition("@")[0]
    parts = {uri, login, login.partition(":")[2]} if login and not login.startswith("/") else set()
    return sorted({*parts, *map(unquote, parts)} - {"", uri}, key=len, reverse=True)


class _Session:
    """A client and its trackers, made when first needed (importing MLflow takes seconds)."""

    def __init__(self, store_path: str | Path, uri: str, leaderboard: Leaderboard | None) -> None:
        self.root, self.uri, self.leaderboard = local_root(store_path), uri, leaderboard
        self._trackers: dict[str, Tracker] = {}

    def write(self, results: Results, sweep: str, summary: Summary, only: Collection[str] | None = None) -> Summary:
        """Export the runs of a sweep: those in `only`, without closing study and sweep, or all.

        `results` is the outline; what else a run holds is read for a few new ones at a time.
        """
        if sweep not in self._trackers:
            with folder_of(self.uri):
                self._trackers[sweep] = Tracker(make_client(self.uri), self.root, self.uri, sweep)
        tracker = self._trackers[sweep]
        results = results.with_tables(runs=latest_runs(results.runs))
        done = {"created": 0, "updated": 0, "known": 0}
        left_out = tracker.left_out
        places = _places(results, sweep)
        wanted = [(*place, rows) for place, rows in places.items() if only is None or place[1] in only]
        new = [line for line in wanted if not tracker.knows(results, *line)]
        done["known"] = len(wanted) - len(new)
        for start in range(0, len(new), RUNS_AT_A_TIME):
            batch = new[start : start + RUNS_AT_A_TIME]
            content = self._content(results, {key for _, key, _ in batch}, ("params", "counts", "steps"))
            for line in batch:
                done[tracker.write_trial(content, *line)] += 1
        if only is None:
            for study in dict.fromkeys(s for s, _ in places):
                tracker.write_study(study, [r for (s, _), rows in places.items() if s == study for r in rows])
            text = self.leaderboard
            if callable(text):
                others = set(results.runs["key"]) - set(results.trials["key"])
                keys = {key for _, key in places} | others
                text = text(self._content(results, keys, ("params", "counts")), sweep)
            tracker.write_sweep(text)
        return replace(
            summary,
            sweeps=summary.sweeps + 1,
            created=summary.created + done["created"],
            updated=summary.updated + done["updated"],
            known=summary.known + done["known"],
            left_out=summary.left_out + tracker.left_out - left_out,
        )

    def _content(self, results: Results, keys: Collection[str], tables: Collection[str]) -> Results:
        """The outline with the rows that these runs have in `tables`."""
        evals = results.evals.filter(pl.col("key").is_in(keys))["eval"]
        only = {
            t: pl.col("eval").is_in(evals.implode()) if t == "counts" else pl.col("key").is_in(keys) for t in tables
        }
        return results.with_tables(**load(self.root, tables, only).tables)


def _places(results: Results, sweep: str) -> dict[tuple[str, str], list[dict[str, object]]]:
    """(study, run key) -> lines of the trials table; a run may stand in a study as trial and as final."""
    places: dict[tuple[str, str], list[dict[str, object]]] = {}
    if sweep == SINGLE:
        single = latest_runs(results.runs).join(results.trials, on="key", how="anti").sort("method", "key")
        return {(r["method"], r["key"]): [] for r in single.to_dicts()}
    for row in results.trials.filter(pl.col("sweep") == sweep).sort("study", "trial", "role", "key").to_dicts():
        places.setdefault((row["study"] or "", row["key"]), []).append(row)
    return places


class Exporter:
    """Fills MLflow while a sweep runs, from a daemon thread of the driver. Never blocks, never raises.

    After the first failure it stops trying; `failure` then says so and how to export later.
    """

    def __init__(
        self,
        store_path: str | Path,
        uri: str | None = None,
        *,
        sweep: str,
        leaderboard: Leaderboard | None = None,
        limit: int = 1000,
        pause_s: float = 2.0,
        say: Callable[[str], None] | None = None,
    ) -> None:
        """`limit`: keys that may wait; `pause_s`: shortest pause between batches; `say`: gets `failure` once."""
        self.store_path, self.sweep, self.failure = store_path, sweep, None
        self._given, self._uri = uri, uri or local_uri(store_path)
        self._session = _Session(store_path, self._uri, leaderboard)
        self._queue: queue.Queue[str | None] = queue.Queue(limit)
        self._pause_s, self._say = pause_s, say
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="mlflow-exporter", daemon=True)
        self.summary = Summary(without_secrets(self._uri))

    failure: str | None

    def start(self) -> None:
        """Start the thread; MLflow is imported there."""
        self._thread.start()

    def submit(self, key: str) -> bool:
        """Say that the run `key` is in the store; false where it was dropped (`close` or `export` adds it)."""
        if self.failure or self._closing.is_set():
            return False
        try:
            self._queue.put_nowait(key)
        except queue.Full:
            return False
        return True

    def close(self, timeout: float = 30.0) -> bool:
        """Export what is left and the leaderboard, in at most `timeout` seconds; true when all is there."""
        if self._thread.ident is None:
            return False  # never started
        self._closing.set()
        with contextlib.suppress(queue.Full):  # then the thread is awake, and sees `_closing` after its batch
            self._queue.put_nowait(None)
        self._thread.join(timeout)
        if self._thread.is_alive():
            self._fail(TimeoutError(f"no end after {timeout:g} s"))
        return self.failure is None

    def _work(self) -> None:
        try:
            while not self._closing.is_set():
                keys = self._next()
                if keys:
                    self._write(keys)
            self._write(None)
        except Exception as error:  # whatever MLflow does, the sweep goes on
            self._fail(error)

    def _next(self) -> set[str]:
        keys = {self._queue.get()}
        while not self._queue.empty():
            keys.add(self._queue.get_nowait())
        return {k for k in keys if k is not None}

    def _write(self, keys: Collection[str] | None) -> None:
        started = time.monotonic()
        results = load(self.store_path, _OUTLINE)
        self.summary = self._session.write(results, self.sweep, self.summary, keys)
        # Reading a large store must not eat a core that trials need.
        if keys is not None:
            self._closing.wait(max(self._pause_s, 3 * (time.monotonic() - started)))

    def _fail(self, error: BaseException) -> None:
        if self.failure is not None:
            return
        later = command("harness.store", "export-mlflow", store=self.store_path, mlflow=self._given)
        hidden = (
            ""
            if self._given is None or without_secrets(self._given) == self._given
            else (" (with the login in place of ***)")
        )
        deleted = f"; {how_to_go_on(self._uri, error)}" if _DELETED.search(str(error)) else ""
        self.failure = (
            f"{failure_text(self._uri, error)} Runs go on without it{deleted}; export later with {later}{hidden}"
        )
        if self._say is not None:
            self._say(self.failure)
