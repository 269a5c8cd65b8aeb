"""Heartbeat files: rare, whole, newest first."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from harness.engine.heartbeat import Heartbeat, read_heartbeats


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_writes_at_most_every_interval_and_keeps_fields(tmp_path: Path) -> None:
    clock = Clock()
    heartbeat = Heartbeat(tmp_path / "work" / "k1", every_s=1.0, clock=clock)
    assert heartbeat.write(key="k1", study="s", trial=0, step=0, total=10)
    clock.now = 100.5
    assert not heartbeat.write(step=1)
    clock.now = 101.0
    assert heartbeat.write(step=2, losses={"cls": 0.5})
    read = json.loads((tmp_path / "work" / "k1" / "progress.json").read_text())
    assert read["step"] == 2
    assert read["total"] == 10
    assert read["losses"] == {"cls": 0.5}
    assert (read["started"], read["updated"], read["pid"]) == (100.0, 101.0, os.getpid())
    clock.now = 101.1
    assert heartbeat.write(force=True, stage="score")
    assert heartbeat.write(force=True, stage="score", step=7)
    assert json.loads((tmp_path / "work" / "k1" / "progress.json").read_text())["stage_started"] == 101.1
    assert os.listdir(tmp_path / "work" / "k1") == ["progress.json"]


@pytest.mark.parametrize("call", ["mkdir", "write_bytes", "replace"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.ESTALE])
def test_a_disk_that_fails_ends_no_run(tmp_path: Path, monkeypatch, call: str, code: int) -> None:
    clock = Clock()
    heartbeat = Heartbeat(tmp_path / "work" / "k1", clock=clock)

    def fails(*args: object, **kwargs: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as broken:
        broken.setattr(os if call == "replace" else Path, call, fails)
        assert not heartbeat.write(key="k1", step=1)
    clock.now += 1
    assert heartbeat.write(step=2), "it goes on when the disk does"
    assert json.loads(heartbeat.path.read_text())["step"] == 2


def test_what_is_no_json_is_still_an_error(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        Heartbeat(tmp_path).write(losses=object())


def test_reads_newest_first_and_skips_half_gone_files(tmp_path: Path) -> None:
    clock = Clock()
    for key in ("a", "b"):
        Heartbeat(tmp_path / "work" / key / "progress.json", clock=clock).write(key=key)
        clock.now += 5
    (tmp_path / "work" / "c").mkdir()
    (tmp_path / "work" / "c" / "progress.json").write_text('{"key": "c"')
    assert [b["key"] for b in read_heartbeats(tmp_path)] == ["b", "a"]
    assert read_heartbeats(tmp_path / "nowhere") == []


def test_attempts_add_up(tmp_path: Path) -> None:
    clock = Clock()
    first = Heartbeat(tmp_path, clock=clock)
    assert (first.earlier, first.before) == (0.0, {})
    first.write(stage="train", step=0)
    clock.now = 130.0
    first.write(stage="train", step=7)
    clock.now = 1000.0
    second = Heartbeat(tmp_path, clock=clock)
    assert second.earlier == 30.0, "what lies between the attempts costs nothing"
    assert second.before["step"] == 7
    second.write(stage="train", step=5)
    clock.now = 1012.0
    second.write(stage="train", step=9)
    assert Heartbeat(tmp_path, clock=clock).earlier == 42.0
    (tmp_path / "progress.json").write_text('{"key": ')
    assert Heartbeat(tmp_path, clock=clock).earlier == 0.0


def test_clear_removes_the_file(tmp_path: Path) -> None:
    heartbeat = Heartbeat(tmp_path, clock=Clock())
    heartbeat.write(key="a")
    heartbeat.clear()
    heartbeat.clear()
    assert os.listdir(tmp_path) == []
