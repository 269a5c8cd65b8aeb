"""What names of files, folders and classes hold is spelled out where it is printed, not obeyed by a terminal."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.data import main
from harness.errors import Problem, shown


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("cat\x1b[31m", r"cat\x1b[31m"),
        ("a\x1b]0;title\x07b", r"a\x1b]0;title\x07b"),
        ("\x9b2J", r"\x9b2J"),
        ("a\rb\x08", r"a\x0db\x08"),
        ("ab\u202egnp.exe", r"ab\u202egnp.exe"),
        ("K\u00e4se\tund\nBrot \u732b", "K\u00e4se\tund\nBrot \u732b"),
    ],
)
def test_control_characters_are_spelled_out(text: str, printed: str) -> None:
    assert shown(text) == printed
    assert str(Problem("w", text, "f")) == f"w: {printed}\n    fix: f"


def test_names_of_folders_and_files_do_not_reach_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "mini\x1b[2J"
    (root / "JPEGImages").mkdir(parents=True)
    (root / "classes.txt").write_text("background\ncat\x1b[31m\ncat\x1b[31m\n")
    assert main(["check", "data=folder", f"data.root={root}"]) == 1
    out = capsys.readouterr()
    assert "\x1b" not in out.out + out.err
    assert r"names given twice: cat\x1b[31m" in out.out
    assert main(["check", "data=folder", f"data.root={root}/\x1bno"]) == 2
    out = capsys.readouterr()
    assert "\x1b" not in out.out + out.err
    assert r"\x1bno" in out.err
