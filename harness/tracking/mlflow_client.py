"""Where MLflow is, and a client that gives up quickly."""

from __future__ import annotations

import logging
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from harness.errors import without_secrets
from harness.files import local_root
from harness.tracking.mlflow_views import RUNS

if TYPE_CHECKING:
    from mlflow import MlflowClient

ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""Without these and `ANSWER` a dead server blocks a call for four minutes, one that hangs for two (MLflow 3.17)."""
ANSWER = "MLFLOW_HTTP_REQUEST_TIMEOUT"
ANSWER_S = 30
"""For so long a command that does nothing else waits for an answer: the first one of a server that has just been
started took more than 3 s on a machine with much else to do."""
_OF_THE_USER = frozenset(os.environ)


TRAINING = "?workflowType=machine_learning"
"""Ends addresses of MLflow's pages for trained models; without it the first visit lands among those for language
models."""


def local_uri(store: str | Path) -> str:
    """The SQLite database inside a store, as a tracking URI."""
    return sqlite_uri(local_root(store).resolve() / "mlflow.db")


def sqlite_uri(path: Path) -> str:
    """The tracking URI of a SQLite database. Only what would be misread is quoted: MLflow makes a folder of the name as
    it stands in the address, SQLAlchemy opens the one that it stands for."""
    text = str(path)
    return f"sqlite:///{quote(text) if '?' in text or unquote(text) != text else text}"


def database_of(uri: str) -> Path | None:
    """The file of a bare SQLite database; None for the address of anything else."""
    if not uri.startswith("sqlite:///"):
        return None
    return Path(unquote(uri.removeprefix("sqlite:///").partition("?")[0]))


def where_to_look(uri: str, experiment: str) -> tuple[str, ...]:
    """What to run and what to open, to see the training runs of an experiment; without its number just the command.

    MLflow opens an experiment on its pages for language models, and there on closed sweeps, unless the address says
    otherwise: it names the saved view of runs, best first.
    """
    shown = without_secrets(uri)
    served = uri.startswith(("http://", "https://"))
    run = () if served else (shlex.join(["mlflow", "ui", "--workers", "1", "--backend-store-uri", shown]),)
    base = shown.rstrip("/") if served else "http://127.0.0.1:5000"
    return (*run, f"{base}/#/experiments/{experiment}/runs{TRAINING}&viewStateShareKey={RUNS}") if experiment else run


def make_client(uri: str, answer_s: int = ANSWER_S) -> MlflowClient:
    """A client that gives up where an answer takes more than `answer_s` seconds. Values that the user set in the
    environment win."""
    values = {**ENVIRONMENT, ANSWER: str(answer_s)}
    os.environ.update({name: value for name, value in values.items() if name not in _OF_THE_USER})
    from mlflow import MlflowClient

    for name in ("alembic", "mlflow"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return MlflowClient(uri)


@contextmanager
def folder_of(uri: str) -> Iterator[None]:
    """Make the folder of a SQLite database, whose absence SQLite reports in riddles; drop the one that MLflow makes
    where it misreads the address."""
    text = uri.removeprefix("sqlite:///").partition("?")[0]
    folder, misread = Path(unquote(text)).parent, Path(text).parent
    local = uri.startswith("sqlite:///")
    strange = local and not misread.exists()
    if local:
        folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        if strange and misread != folder:
            # Not where somebody has put something there.
            with suppress(OSError):
                misread.rmdir()
