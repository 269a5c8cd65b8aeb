"""Words and exit codes of `python -m harness.data`."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import data
from harness.errors import BadInput


def test_help_explains_every_word(capsys: pytest.CaptureFixture[str]) -> None:
    assert data.main(["--help"]) == 0
    text = capsys.readouterr().out
    for command, entry in data.COMMANDS.items():
        assert command in text
        for word, meaning in entry.words.items():
            assert word in text
            assert meaning.help in text
    assert data.main(["make-backbones", "--help"]) == 0


@pytest.mark.parametrize(
    ("arguments", "pieces"),
    [
        ([], ["no subcommand given", "make-backbones"]),
        (["make-backbone"], ["unknown subcommand 'make-backbone'", "did you mean make-backbones"]),
        (
            ["make-backbones", "sed=1", "threads=none", "names=shapes_vt", "out="],
            ["did you mean seed", "threads: bad value 'none'", "did you mean shapes_vit", "out: no value given"],
        ),
        (["make-backbones", "threads=0", "seed"], ["must be at least 1", "seed: no value given"]),
    ],
)
def test_bad_words_exit_2_all_at_once(
    arguments: list[str], pieces: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert data.main(arguments) == 2
    text = capsys.readouterr().err
    for piece in pieces:
        assert piece in text


def test_unwritable_folder_exits_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert data.main(["make-backbones", f"out={tmp_path / 'file' / 'folder'}"]) == 2
    assert "cannot write to" in capsys.readouterr().err


def test_words_become_typed_values() -> None:
    _, values = data.parse(["make-backbones", "names=shapes_vit", "seed=3"])
    assert values == {"names": ("shapes_vit",), "out": None, "seed": 3, "threads": 1}
    with pytest.raises(BadInput) as caught:
        data.parse(["make-backbones", "a=1", "b=2"])
    assert len(caught.value.problems) == 2
