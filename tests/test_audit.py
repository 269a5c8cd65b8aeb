"""`.ci/audit` says what osv.dev knows of the locked packages, and says when it could not ask."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

AUDIT = Path(__file__).parents[1] / ".ci/audit"
UV = shutil.which("uv")
FLAW = {"id": "GHSA-0000-test", "modified": "2026-01-01T00:00:00Z", "summary": "a flaw for a test", "affected": []}


@contextmanager
def advisories(vulnerable: str) -> Iterator[str]:
    """The address of a stand-in of osv.dev which knows a flaw of one package."""

    class Advisories(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["queries"]
            found = [{"vulns": [FLAW]} if q["package"]["name"] == vulnerable else {} for q in asked]
            self.answer({"results": found})

        def do_GET(self) -> None:
            self.answer(FLAW)

        def answer(self, content: object) -> None:
            body = json.dumps(content).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Advisories) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


def audit(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    """The command's exit code and all that it says."""
    return subprocess.run(
        [AUDIT, *words], env=os.environ | {"UV_HTTP_RETRIES": "0"} | env, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60,
    )  # fmt: skip


@pytest.mark.skipif(UV is None, reason="no uv")
def test_known_flaws_of_the_lock_are_said_and_a_service_that_is_not_there_too() -> None:
    with advisories("torch") as address:
        done = audit("--service-url", address)
    assert done.returncode == 1, done.stdout
    assert "torch" in done.stdout
    assert "GHSA-0000-test" in done.stdout
    with advisories("no-package-of-ours") as address:
        done = audit("--service-url", address)
    assert done.returncode == 0, done.stdout
    assert done.stdout.endswith("audit: no vulnerability is known\n")
    done = audit("--service-url", address)
    assert done.returncode == 2, done.stdout
    assert "audit: COULD NOT RUN" in done.stdout


@pytest.mark.parametrize(("code", "ends"), [(0, 0), (1, 1), (2, 2), (127, 2)])
def test_every_other_failure_of_uv_is_an_audit_that_could_not_run(tmp_path: Path, code: int, ends: int) -> None:
    stand_in = tmp_path / "uv"
    stand_in.write_text(f"#!/bin/sh\nexit {code}\n")
    stand_in.chmod(0o755)
    done = audit(PATH=f"{tmp_path}:/usr/bin:/bin")
    assert done.returncode == ends
    assert ("COULD NOT RUN" in done.stdout) == (ends == 2)
