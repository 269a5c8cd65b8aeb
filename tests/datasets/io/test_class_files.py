"""Files of class names as people write them: what would make another class of label 0 is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from harness.datasets.io.class_files import class_names
from harness.datasets.tools import checking
from harness.errors import Problem

Maker = Callable[..., Path]
RIGHT = ("background", "cat", "dog")


def read(folder: Path, content: str) -> tuple[tuple[str, ...], list[str]]:
    problems: list[Problem] = []
    (folder / "classes.txt").write_bytes(content.encode())
    return class_names(folder, "SegmentationClass", None, problems), [p.found for p in problems]


@pytest.mark.parametrize("content", ["background\ncat\ndog\n", "\ufeffbackground\r\ncat\r\n dog \r\n\r\n\n"])
def test_marks_and_line_ends_of_other_systems_are_no_names(tmp_path: Path, content: str) -> None:
    assert read(tmp_path, content) == (RIGHT, [])


@pytest.mark.parametrize(
    "content",
    [
        "0\n1\n2\n",
        "2d\n3d\n",
        "1 euro\n2 euro\n5 euro\n",
        "background\n1 cat\n2 dog\n",
        "road, paved\nwall\n",
        "crack\n",
    ],
)
def test_names_may_begin_with_digits(tmp_path: Path, content: str) -> None:
    assert read(tmp_path, content) == (tuple(content.strip().splitlines()), [])


@pytest.mark.parametrize("form", ["{} {}", "{}: {}", "{}\t{}", "{}. {}", "{},{}"])
@pytest.mark.parametrize("first", [0, 1])
def test_names_behind_their_numbers_are_refused(tmp_path: Path, form: str, first: int) -> None:
    lines = [form.format(first + n, name) for n, name in enumerate(RIGHT)]
    _, (found,) = read(tmp_path, "\n".join(lines))
    assert found == f"each line begins with its number: {lines[0]!r}, {lines[1]!r}, ..."


@pytest.mark.parametrize("content", ["background,cat,dog", '["background", "cat"]', '{"0": "background"}'])
def test_all_names_on_one_line_are_refused(tmp_path: Path, content: str) -> None:
    _, (found,) = read(tmp_path, content)
    assert found == f"all names stand on one line: {content!r}"


@pytest.mark.parametrize(
    ("classes", "told"),
    [
        (
            ("# names", "background", "cat"),
            "'background' is the name of label 1, not of 0: it is taken for a class, as",
        ),
        (("cat", "dog", "Background"), "'Background' is the name of label 2, not of 0"),
        (("__background__", "cat", "dog"), "the first class name is '__background__', not 'background'"),
    ],
)
def test_a_background_that_is_none_is_a_warning(voc_folder: Maker, classes: tuple[str, ...], told: str) -> None:
    report = checking.check(checking.survey("folder", root=str(voc_folder(classes=classes))))
    assert next(p.found for p in report.warnings if "background" in p.found.lower()).startswith(told)
    assert report.exit_code == 0
