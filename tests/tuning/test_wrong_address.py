"""A sweep for a head that is not there: one line, code 2, and nothing of it stays."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from unittest import mock

import pytest
import ray

from harness.cli.parsing import main
from harness.errors import EXIT_BAD_INPUT
from harness.sweep import run

WORDS = [
    "methods=pce", "labels=points", "data=shapes", "data.n_train=8", "data.n_val=2", "data.n_test=2", "crop=48",
    "iterations=2", "trials=1", "seeds=1", "gpus=0", "mlflow=off",
]  # fmt: skip


def children() -> set[str]:
    """Processes that this one has started."""
    return {pid for file in Path("/proc/self/task").glob("*/children") for pid in file.read_text().split()}


def test_a_sweep_for_a_head_that_is_not_there_says_so_in_one_line_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    before = children()
    with mock.patch.dict(os.environ):
        assert main(run, [*WORDS, f"address={address}", f"store={tmp_path / 'store'}"]) == EXIT_BAD_INPUT
    said = capsys.readouterr().err.splitlines()
    errors = [line for line in said if line.startswith("error:")]
    assert errors == [f"error: address: no Ray head answers at {address} (connection refused)"]
    assert said[said.index(errors[0]) + 1].startswith("    fix: start a head there with `ray start --head")
    assert children() <= before
    assert not ray.is_initialized()
    assert not list(tmp_path.rglob("*.parquet"))
