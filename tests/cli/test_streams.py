"""What is around a command: closed and full output, terminals that show ASCII alone, a current folder that is gone."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.cli.parsing import main

CHECK = (sys.executable, "-m", "harness.data", "check", "data=shapes")


def ran(command: str, **options: object) -> tuple[int, str]:
    done = subprocess.run(["bash", "-c", command, *CHECK], stderr=subprocess.PIPE, text=True, **options)  # type: ignore
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("command", "code", "told"),
    [
        ('"$0" "$@" >&-', 0, ""),
        ('"$0" "$@" 2>&- >/dev/null', 0, ""),
        ('"$0" "$@" >/dev/full', 1, "error: the output cannot be written: the disk is full\n"),
        ('"$0" "$@" | true; exit ${PIPESTATUS[0]}', 141, ""),
    ],
    ids=["closed", "no-stderr", "full", "no-reader"],
)
def test_output_that_takes_nothing_is_no_traceback(command: str, code: int, told: str) -> None:
    assert ran(command) == (code, told)


def test_a_current_folder_that_is_gone_is_said(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    sweep = f'rmdir {gone} && "$0" -m harness.sweep methods=pce data=shapes tier=smoke dry_run=true store=st'
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    assert ran(sweep, cwd=gone, env=environment) == (1, "error: the current folder is gone: cd to one that exists\n")


def test_terminals_that_show_ascii_alone_get_tables_of_the_same_width(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    assert main(lambda argv: print("a · b\n─────\n 1 – 2 bär \udcff") or 0, []) == 0
    assert raw.getvalue() == b"a | b\n-----\n 1 - 2 b\\xe4r \\udcff\n"


def test_faults_of_the_disk_are_one_line_and_others_are_bugs(capsys: pytest.CaptureFixture[str]) -> None:
    def fails(error: OSError):
        def run(argv: list[str]) -> int:
            raise error

        return run

    assert main(fails(OSError(28, "No space left on device", "/store/x")), []) == 1
    assert capsys.readouterr().err == "error: /store/x: the disk is full\n"
    with pytest.raises(FileNotFoundError):
        main(fails(FileNotFoundError(2, "No such file", "/store/x")), [])
    with pytest.raises(PermissionError):
        main(fails(PermissionError(13, "Permission denied", "/store/x")), [])
