"""Words and exit codes of `python -m harness.data`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from harness import data
from harness.cli.data_words import DataCommandWords
from harness.cli.parsing import command_words
from harness.datasets import DATASETS, LABEL_OPTIONS
from harness.datasets.coco import MASKS
from harness.datasets.shapes import Options
from harness.errors import EXIT_NO_READER, BadInput


def test_help_explains_every_word(capsys: pytest.CaptureFixture[str]) -> None:
    assert data.main(["--help"]) == 0
    text = capsys.readouterr().out
    for command, meaning in data.SUBCOMMANDS.items():
        assert f"{command}: {meaning}" in text
        for name, word in command_words(DataCommandWords, command).items():
            assert f"{name}=" in text
            assert word.metadata["text"] in text
    assert data.main(["make-backbones", "--help"]) == 0
    assert "data.masks" not in capsys.readouterr().out


@pytest.mark.parametrize("command", [[], ["check"], ["weak-labels"]])
def test_help_names_options_and_defaults_of_every_dataset(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert data.main([*command, "--help"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.strip()}
    for name in DATASETS:
        for option in LABEL_OPTIONS:
            assert (f"data.{option}" in lines[name]) == (name != "shapes")
    assert f"data.masks (default {MASKS})" in lines["coco"]
    assert "data.masks (default SegmentationClassAug)" in lines["voc"]
    assert "data.masks (default SegmentationClass)," in lines["folder"]
    assert "data.masks (default gtFine)" in lines["cityscapes"]
    assert "data.masks" not in lines["acdc"]
    assert f"data.n_train (default {Options.n_train})" in lines["shapes"]
    assert "data.tag_noise (default 0.0)" in lines["shapes"]
    assert "classes.txt" in lines["data.classes="]


def _started(*words: str, **options: object) -> subprocess.Popen[str]:
    """The command in a process of its own, its stderr as text."""
    return subprocess.Popen(
        [sys.executable, "-m", "harness.data", *words],
        stderr=subprocess.PIPE,
        text=True,
        **options,  # type: ignore[call-overload]
    )


def test_ctrl_c_exits_130_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("harness.datasets.tools.checking.survey", stopped)
    assert data.main(["check"]) == 130
    assert capsys.readouterr().err == "stopped; the same command continues\n"


def test_a_reader_that_has_gone_ends_the_command_quietly() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with _started("--help", stdout=writing) as process:
        os.close(writing)
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert process.returncode == EXIT_NO_READER


def test_names_that_are_not_utf_8_are_reported(tmp_path: Path) -> None:
    cams = tmp_path / "cams"
    cams.mkdir()
    np.save(cams / "train~000000.npy", {0: np.ones((2, 2))})
    with open(os.fsencode(cams) + b"/\xff.npy", "wb") as file:
        np.save(file, np.zeros(1))
    words = [
        "import-cams",
        f"cams={cams}",
        f"out={tmp_path / 'out'}",
        "data.n_train=1",
        "data.n_val=1",
        "data.n_test=0",
    ]
    env = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    with _started(*words, stdout=subprocess.PIPE, env=env) as process:
        out, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    assert "1 files converted" in out
    assert "1 files are of no image here: \\udcff.npy" in out


@pytest.mark.parametrize(
    ("arguments", "pieces"),
    [
        ([], ["no subcommand given", "make-backbones"]),
        (["make-backbone"], ["unknown subcommand 'make-backbone'", "did you mean make-backbones"]),
        (
            ["make-backbones", "sed=1", "threads=none", "names=shapes_vt", "out="],
            ["did you mean seed", "threads: 'none'", "did you mean shapes_vit", "out: no value given"],
        ),
        (["make-backbones", "threads=0", "seed"], ["threads: 0 is below 1", "seed: no value given"]),
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
    name, parsed = data.read(["make-backbones", "names=shapes_vit", "seed=3"])
    words = parsed.words
    assert (name, words.names, words.out, words.seed, words.threads) == ("make-backbones", "shapes_vit", None, 3, 1)
    with pytest.raises(BadInput) as caught:
        data.read(["make-backbones", "a=1", "b=2"])
    assert len(caught.value.problems) == 2
    with pytest.raises(BadInput) as caught:
        data.read(["weak-labels", "kind=points", "kind=blocks", "data=vocc", "split=trian"])
    assert [p.where for p in caught.value.problems] == ["kind", "split", "out", "data"]
