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
from pathlib import Path
from urllib.parse import unquote

from harness.errors import HIDDEN, StoreError, command, without_secrets
from harness.store.reading import load
from harness.tracking.mlflow_client import ANSWER_S, local_uri
from harness.tracking.mlflow_session import SINGLE, Pages, Session, Summary, places_of

SWEEP_ANSWER_S = 10
"""While a sweep runs, and at its end, an answer may take so long."""
_OUTLINE = ("runs", "trials", "evals", "artifacts")
"""Tables with few rows a run: they say what is new."""


def export(
    store_path: str | Path,
    uri: str | None = None,
    *,
    sweep: str | None = None,
    pages: Pages | None = None,
    answer_s: int = ANSWER_S,
) -> Summary:
    """Fill MLflow at `uri` (default: SQLite inside the store) with one sweep or all; nothing is sent twice.
    `answer_s`: seconds that an answer may take.

    Raises StoreError in plain words when the server is down, hangs or refuses; the same call then goes on.
    """
    address = uri or local_uri(store_path)
    results = load(store_path, _OUTLINE)
    known = {s for s in results.trials["sweep"].to_list() if s is not None}
    if sweep is not None and sweep not in known:
        raise StoreError(f"{store_path} holds no sweep {sweep!r}; it holds: {', '.join(sorted(known)) or 'none'}")
    single = [SINGLE] if sweep is None and places_of(results, SINGLE) else []
    session = Session(store_path, address, pages, answer_s)
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


_SERVER = "API request to "
_SERVERS = (
    ("Connection refused", "nothing listens there"),
    ("timed out", "it did not answer in time"),
    ("Failed to resolve", "no machine of that name is known"),
    (r"No route to host|unreachable", "no way leads there"),
    (r"Connection aborted|reset by peer", "it closed the connection"),
    ("CERTIFICATE_VERIFY_FAILED", "its certificate is not trusted"),
    (r"too many (\d+) error responses|error code (\d+)", "it answered with error {}"),
    ("not in a valid JSON format", "what answers there is no MLflow"),
)
"""What errors of MLflow's requests to a server say, and the same for a reader who does not know its libraries."""


def failure_text(uri: str, error: BaseException) -> str:
    """One sentence that says which server did not take the results, and why; without the login of its address."""
    reason = _in_words(str(error)) or (str(error).splitlines() or [""])[0] or type(error).__name__
    for secret in _secrets(uri):
        reason = reason.replace(secret, HIDDEN)
    text = without_secrets(f"MLflow at {uri} did not take the results: {reason[:300]}")
    return text if text.endswith(".") else f"{text}."


def _in_words(text: str) -> str:
    """What became of a request to a server, in a user's words; empty where it is not known."""
    if not text.startswith(_SERVER):
        return ""
    for pattern, words in _SERVERS:
        if found := re.search(pattern, text):
            return words.format(*(group for group in found.groups() if group))
    return ""


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
        pages: Pages | None = None,
        limit: int = 1000,
        pause_s: float = 2.0,
        say: Callable[[str], None] | None = None,
    ) -> None:
        """`limit`: keys that may wait; `pause_s`: shortest pause between batches; `say`: gets `failure` once."""
        self.store_path, self.sweep, self.failure = store_path, sweep, None
        self._given, self._uri = uri, uri or local_uri(store_path)
        self._session = Session(store_path, self._uri, pages, SWEEP_ANSWER_S)
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
            self._fail(TimeoutError(f"it is slow, {timeout:g} s after the last run some were missing"))
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
