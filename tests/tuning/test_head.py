"""Heads that answer, never answered, or are lost."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from importlib.machinery import ModuleSpec

import pytest

from harness.errors import BadInput
from harness.tuning.head import check_head, place_of, watched_head


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("10.0.0.1:6379", ("10.0.0.1", 6379)),
        ("ray://head:10002", ("head", 10002)),
        ("ray://head", ("head", 10001)),
        ("[::1]:6379", ("::1", 6379)),
        ("auto", None),
        ("local", None),
    ],
)
def test_places(address, place):
    assert place_of(address) == place


@pytest.fixture
def head():
    server = socket.create_server(("127.0.0.1", 0))
    yield server
    server.close()


def address_of(server):
    return f"127.0.0.1:{server.getsockname()[1]}"


def test_an_address_where_nobody_answers_is_bad_input_at_once(head):
    address = address_of(head)
    check_head(address)
    check_head("auto")
    head.close()
    began = time.monotonic()
    with pytest.raises(
        BadInput, match=rf"address: no Ray head answers at {address} \(connection refused\)\n.*ray start"
    ):
        check_head(address)
    assert time.monotonic() - began < 5


def test_a_lost_head_is_told_once(head, monkeypatch):
    said, told = [], threading.Event()

    def lost(text):
        said.append(text)
        told.set()

    address = address_of(head)
    monkeypatch.setattr(sys, "argv", ["x", "methods=cam", "mlflow=http://me:word@host", "--flag"])
    with watched_head(address, lost, said.append, every_s=0.02, said_s=0.1, silent_s=0.4):
        time.sleep(0.3)
        assert said == []
        head.close()
        assert told.wait(30)
        time.sleep(0.1)
    assert said[0] == f"the Ray head at {address} does not answer (connection refused): waiting for it, 0 s at most"
    assert len(said) == 2
    assert said[1].startswith(f"error: the Ray head at {address} has not answered for 0 s (connection refused): ")
    assert said[1].endswith("this continues: python -m harness.sweep methods=cam 'mlflow=http://***@host'")


def test_the_command_that_continues_is_the_one_that_runs(head, monkeypatch):
    told: list[str] = []
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", ModuleSpec("reports.ablations", None))
    monkeypatch.setattr(sys, "argv", ["x", "paper=fsr", "table=4", "execute=true"])
    with watched_head(address_of(head), told.append, lambda text: None, every_s=0.02, silent_s=0.1):
        head.close()
        for _ in range(1500):
            if told:
                break
            time.sleep(0.02)
    assert told[0].endswith("this continues: python -m reports.ablations paper=fsr table=4 execute=true")


def test_a_head_that_comes_back_is_said_and_the_wait_begins_anew(head):
    said = []
    address = address_of(head)
    with watched_head(address, said.append, said.append, every_s=0.02, said_s=0.1, silent_s=30):
        head.close()
        until = time.monotonic() + 20
        while not said and time.monotonic() < until:
            time.sleep(0.02)
        back = socket.create_server(("127.0.0.1", int(address.rpartition(":")[2])))
        while len(said) < 2 and time.monotonic() < until:
            time.sleep(0.02)
        back.close()
    assert [line.rpartition(" after")[0] or "waits" for line in said] == [
        "waits", f"the Ray head at {address} answers again,"
    ]  # fmt: skip


def test_a_head_that_is_left_in_peace_is_not_watched_any_longer(head):
    said = []
    with watched_head(address_of(head), said.append, every_s=0.02, silent_s=0.05):
        pass
    head.close()
    time.sleep(0.2)
    assert said == []


def test_a_driver_that_cannot_end_cleanly_ends_all_the_same():
    """Ray without its head swallows the interrupt and waits: the process ends with exit code 1."""
    code = (
        "import time\n"
        "from harness.tuning import head\n"
        "head.LEAVE_S = 0.5\n"
        "with head.watched_head('127.0.0.1:9', every_s=0.05, silent_s=0.1):\n"
        "    while True:\n"
        "        try:\n"
        "            time.sleep(60)\n"
        "        except KeyboardInterrupt:\n"
        "            pass\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "the Ray head at 127.0.0.1:9 has not answered" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_ray_publishes_to_drivers_is_not_printed(capsys):
    from ray._private import worker

    from harness.tuning.ray_adapters import without_notes_of_ray

    note = {"lines": ["The node with node id: 4da3 has been marked dead"], "pid": "raylet", "is_err": False}
    with without_notes_of_ray():
        worker.print_to_stdstream(dict(note), ignore_prefix=False)
    assert capsys.readouterr().out == ""
    worker.print_to_stdstream(dict(note), ignore_prefix=False)
    assert "marked dead" in capsys.readouterr().out
