"""Faults of MLflow's server, on one machine with one worker a run: rows of `docs/faults.md`."""

from __future__ import annotations

import os
import signal
import socket
import socketserver
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sweeps import Bench, until

pytestmark = pytest.mark.faults
TABLE = "one_machine"
GONE = "MLflow at .* did not take the results"


class Server:
    """MLflow's own server, with a database in a folder."""

    def __init__(self, folder: Path):
        self.folder, self.port = folder, free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        """Starts it, on the same port and database each time, and waits until it answers."""
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        places = ["--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db", "--artifacts-destination", self.folder]
        with (self.folder / "log").open("a") as log:
            self.process = subprocess.Popen(
                [*command, *places, "--workers", "1"], stdout=log, stderr=log, start_new_session=True
            )
        until("MLflow's server listens", self._listens)

    def _listens(self) -> bool:
        assert self.process.poll() is None, (self.folder / "log").read_text()
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self) -> None:
        """Ends it at once, with its workers."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def finished(self) -> int:
        """Runs that stand there as finished."""
        with closing(sqlite3.connect(self.folder / "mlflow.db")) as database:
            return int(database.execute("select count(*) from runs where status = 'FINISHED'").fetchone()[0])


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    folder = tmp_path / "mlflow"
    folder.mkdir()
    made = Server(folder)
    yield made
    if made.process.poll() is None:
        made.kill()


class Slow(socketserver.BaseRequestHandler):
    """What stands between: every answer comes `DELAY_S` later."""

    DELAY_S = 1.0
    port = 0

    def handle(self) -> None:
        with socket.create_connection(("127.0.0.1", self.port)) as upstream:
            forward = threading.Thread(target=self._pass, args=(self.request, upstream, 0.0), daemon=True)
            forward.start()
            self._pass(upstream, self.request, self.DELAY_S)

    @staticmethod
    def _pass(source: socket.socket, target: socket.socket, delay_s: float) -> None:
        try:
            while data := source.recv(1 << 16):
                time.sleep(delay_s)
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # one of the two has closed: so has the conversation


@pytest.fixture
def silent_server() -> Iterator[str]:
    """Takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_tracking_server_dead(bench: Bench) -> None:
    port = free_port()
    sweep = bench.start(f"mlflow=http://127.0.0.1:{port}")
    sweep.end(0)
    saw = sweep.said(GONE).replace(str(port), "PORT")
    bench.record("the tracking server is dead", saw, None, injected="from the start", most=0)


def test_tracking_server_hangs(bench: Bench, silent_server: str) -> None:
    sweep = bench.start(f"mlflow={silent_server}")
    sweep.end(0)
    saw = sweep.said(GONE).replace(silent_server, "SERVER")
    bench.record("the tracking server hangs", saw, None, injected="from the start", most=0)


def later(bench: Bench, server: Server) -> None:
    """The command that the message names brings every run to the server."""
    words = ["export-mlflow", f"store={bench.store}", f"mlflow={server.uri}"]
    subprocess.run([sys.executable, "-m", "harness.store", *words], check=True, capture_output=True)
    # The two runs, their study and the sweep.
    assert server.finished() >= 4


def test_tracking_server_dies(bench: Bench, server: Server) -> None:
    bench.fault("wait", go=str(bench.go))
    sweep = bench.start(f"mlflow={server.uri}")
    bench.wait_for_fault(sweep)
    until("trial 1 is in MLflow", lambda: server.finished() >= 1, sweep)
    server.kill()
    at = time.time()
    bench.go.touch()
    sweep.end(0)
    server.start()
    later(bench, server)
    saw = sweep.said(GONE)
    bench.record(
        "the tracking server dies midway", saw.replace(server.uri, "SERVER"), saw.at - at, most=0,
    )  # fmt: skip


def test_tracking_server_slow(bench: Bench, server: Server) -> None:
    handler = type("Handler", (Slow,), {"port": server.port})
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as between:
        between.daemon_threads = True
        threading.Thread(target=between.serve_forever, daemon=True).start()
        uri = f"http://127.0.0.1:{between.server_address[1]}"
        sweep = bench.start(f"mlflow={uri}")
        sweep.end(0)
        between.shutdown()
    said = [line for line in sweep.lines if "did not take the results" in line]
    later(bench, server)
    saw = said[0].replace(uri, "SERVER") if said else "nothing: all runs are there"
    fault = f"every answer of the tracking server comes {Slow.DELAY_S:.0f} s late"
    bench.record(fault, saw, None, injected="from the start", most=0)
