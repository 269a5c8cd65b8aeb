"""MLflow's own server on a store's database, started as the printed command does, for tests that look at it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from chromium import Page

from harness.tracking.mlflow_client import local_uri, make_client, where_to_look
from harness.tracking.mlflow_tracker import EXPERIMENT

RUN_NAMES = (
    "[...document.querySelectorAll('.ag-row a[href*=\"/runs/\"]')]"
    ".map(a => [Number(a.closest('.ag-row').getAttribute('row-index')), a.innerText])"
    ".sort((a, b) => a[0] - b[0]).map(pair => pair[1])"
)
"""JavaScript: the names in the table of runs, from above; elements stand in another order."""
FIRST_ROW = f"{RUN_NAMES}.length"


@dataclass(frozen=True)
class Served:
    """A server that runs, and its session of processes."""

    address: str
    session: int


@contextmanager
def served(root: Path) -> Iterator[Served]:
    """The printed command's server on a free port, ended at the end; what it says goes to `server.log` in the store."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
    command = [sys.executable, "-m", "mlflow", "ui", "--workers", "1", "--port", port, "--backend-store-uri"]
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (root / "server.log").open("wb") as log:
        server = subprocess.Popen([*command, local_uri(root)], stdout=log, stderr=log, env={**os.environ, **quiet},
                                  start_new_session=True)  # fmt: skip
        try:
            yield Served(f"http://127.0.0.1:{port}", server.pid)
        finally:
            os.killpg(server.pid, 15)
            server.wait(30)


def printed_link(root: Path) -> str:
    """The part of the printed address behind the server's name."""
    experiment = make_client(local_uri(root)).get_experiment_by_name(EXPERIMENT).experiment_id
    return where_to_look("http://here", experiment)[0].removeprefix("http://here")


def open_when_up(tab: Page, address: str) -> None:
    """Wait for a server that starts, which takes seconds. AssertionError where it never answers."""
    for _ in range(600):
        tab.open(address)
        if not tab.run("document.title.includes('127.0.0.1') || location.href.startsWith('chrome-error')"):
            return
        tab.run("new Promise(done => setTimeout(done, 300))")
    raise AssertionError(f"nobody answers at {address}")
