"""A dataset of another package: the one of docs/datasets.md, exactly as the page says, and broken ones beside it."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import harness
import harness.store
from harness.api.dataset import Dataset
from harness.datasets import finding, open_dataset, opener_of
from harness.errors import BadInput, Problem
from harness.store import latest_runs

PAGE = Path(__file__).parents[2] / "docs" / "datasets.md"
BROKEN = {
    "gone": ("no_such_package.data", None),
    "cut": ("cut_data", "CLASSES = (\n"),
    "raising": ("raising_data", "import math\n\nSIZE = math.sqrt(-1)\n"),
    "empty": ("empty_data", "NAME = 1\n"),
    "half": (
        "half_data:Half",
        "from harness.api.dataset import Dataset\n\n\nclass Half(Dataset):\n"
        "    def splits(self):\n        return {'train': True}\n",
    ),
    "nameless": (
        "nameless_data:Nameless",
        "from harness.datasets.shapes import Shapes\n\n\nclass Nameless(Shapes):\n    family = 'voc'\n"
        "    class_names = ['a', 'a']\n",
    ),
    "failing": ("failing_data:open", "def open(*, root=None):\n    return {}['x']\n"),
    "number": ("number_data:open", "def open(*, root=None):\n    return 7\n"),
}
"""Datasets that are broken in one way each: target of the entry point, and the module's text."""


def blocks() -> dict[str, str]:
    """The page's files by their name, and its commands as `sh`."""
    found = {}
    for language, text in re.findall(r"```(python|toml|sh)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S):
        first, _, rest = text.partition("\n")
        found["sh" if language == "sh" else first.removeprefix("# ")] = text if language == "sh" else rest
    return found


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's package as installed, photos of leaves beside it, and a package of broken datasets."""
    root = tmp_path_factory.mktemp("site")
    files = blocks()
    for name, text in files.items():
        if name.endswith(".py"):
            (root / name).parent.mkdir(exist_ok=True)
            (root / name).write_text(text)
    project = tomllib.loads(files["pyproject.toml"])["project"]
    _install(root, project["name"], project["entry-points"]["wsss_harness.datasets"])
    for target, text in BROKEN.values():
        if text is not None:
            (root / f"{target.partition(':')[0]}.py").write_text(text)
    _install(root, "broken", {name: target for name, (target, _) in BROKEN.items()})
    rng = np.random.default_rng(0)
    for number in range(12):
        folder = root / "leaf_photos" / ("train" if number < 8 else "val")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 56, 3), dtype=np.uint8)).save(folder / f"leaf{number}.jpg")
        mask = np.zeros((40, 56), np.uint8)
        mask[8:30, 10:40] = 1 + number % 2
        mask[30, 10:40] = 255
        Image.fromarray(mask).save(folder / f"leaf{number}_mask.png")
    return root


def _install(root: Path, name: str, points: dict[str, str]) -> None:
    info = root / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = "".join(f"{point} = {target}\n" for point, target in points.items())
    (info / "entry_points.txt").write_text(f"[wsss_harness.datasets]\n{lines}")


def run(package: Path, line: str) -> subprocess.CompletedProcess[str]:
    """A command of the page, run where the package lies."""
    path = os.pathsep.join((str(package), str(Path(harness.__file__).parents[1])))
    env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    words = [sys.executable, *shlex.split(line)[1:]]
    return subprocess.run(words, env=env, cwd=package, capture_output=True, text=True, check=False, timeout=600)


def test_the_page_is_built_checked_trained_and_scored(package: Path) -> None:
    conformance, check, sweep, board = blocks()["sh"].splitlines()
    done = run(package, conformance + " -q -p no:cacheprovider")
    assert done.returncode == 0, done.stdout[-3000:]
    assert re.search(r"\b1[4-9] passed", done.stdout), done.stdout[-300:]
    done = run(package, check)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "leaf-photos:leaf_photos: a folder for each split" in done.stdout
    assert "train           8 images,      8 masks" in done.stdout
    done = run(package, sweep)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    results = harness.store.load(package / "results")
    assert latest_runs(results.runs)["status"].to_list() == ["done"]
    assert set(results.runs["dataset"]) == {"leaf-photos:leaf_photos"}
    assert results.counts["image"].n_unique() == 4
    done = run(package, board)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "leaf-photos:leaf_photos" in done.stdout


@pytest.fixture
def registered(package: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The package's datasets, registered in this process."""
    monkeypatch.syspath_prepend(str(package))
    entries, clashes = finding.found()
    monkeypatch.setattr(finding, "ENTRIES", entries)
    monkeypatch.setattr(finding, "CLASHES", clashes)
    return package


def refusal(name: str, **words: str) -> Problem:
    with pytest.raises(BadInput) as caught:
        open_dataset(name, **words)
    (problem,) = caught.value.problems
    return problem


def test_broken_datasets_are_one_problem_each_and_stop_no_other(registered: Path) -> None:
    expected = {
        "gone": ("cannot be imported: ModuleNotFoundError: No module named 'no_such_package'", "package broken"),
        "cut": ("SyntaxError", f"{registered / 'cut_data.py'}:1"),
        "raising": ("ValueError", f"{registered / 'raising_data.py'}:3"),
        "empty": ("is no opener", "entry point of package broken"),
        "failing": ("cannot be opened: KeyError: 'x'", f"{registered / 'failing_data.py'}:2"),
        "number": ("gives a int, a harness.api.dataset.Dataset is expected", "entry point of package broken"),
    }
    for name, (found, place) in expected.items():
        problem = refusal(name)
        assert found in problem.found
        assert place in f"{problem.where} {problem.found} {problem.fix}"
        assert problem.fix
    half = refusal("half")
    assert half.where == f"{registered / 'half_data.py'}:4"
    assert "Half has no fingerprint and no ids and no image and no mask" in half.found
    nameless = refusal("nameless")
    assert nameless.where == f"{registered / 'nameless_data.py'}:4"
    assert nameless.found == "class_names of Nameless are ['a', 'a']"
    leaves = open_dataset("leaf-photos", root=str(registered / "leaf_photos"))
    assert leaves.class_names == ("background", "healthy", "sick")


def test_commands_that_touch_all_datasets_survive_broken_ones(package: Path) -> None:
    done = run(package, "python -m harness.data check --help")
    assert done.returncode == 0, done.stderr
    assert re.search(
        r"^ +cut +dataset 'cut' \(entry point of package broken\) cannot be imported: SyntaxError", done.stdout, re.M
    )
    assert re.search(r"^ +leaf-photos +data.weak, data.tags", done.stdout, re.M)
    done = run(package, "python -m harness.data check data=raising")
    assert done.returncode == 2
    assert "raising_data.py:3" in done.stderr
    assert "Traceback" not in done.stderr


def test_words_and_names_of_foreign_datasets_are_judged(registered: Path) -> None:
    problem = refusal("leaf-photos", root=str(registered / "leaf_photos"), masks="x")
    assert (problem.where, problem.found) == ("data.masks", "leaf-photos takes none")
    assert refusal("leaf-photo").fix == "did you mean leaf-photos?"
    with pytest.raises(BadInput, match="leaf-photos has no such option"):
        open_dataset("leaf-photos", root=str(registered / "leaf_photos"), options={"seed": "1"})
    (registered / "leaf_photos/val/leaf8_mask.png").rename(registered / "mask.png")
    try:
        problem = refusal("leaf-photos", root=str(registered / "leaf_photos"))
        assert problem.found == "1 listed ids have no mask: leaf8"
    finally:
        (registered / "mask.png").rename(registered / "leaf_photos/val/leaf8_mask.png")


def test_a_name_that_two_have_is_told_when_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _install(tmp_path, "first", {"shapes": "first.data", "mine": "first.data"})
    monkeypatch.syspath_prepend(str(tmp_path))
    entries, clashes = finding.found()
    monkeypatch.setattr(finding, "ENTRIES", entries)
    monkeypatch.setattr(finding, "CLASHES", clashes)
    assert entries["shapes"].target == "harness.datasets.shapes"
    problem = refusal("shapes")
    assert problem.found.startswith("is registered twice: harness.datasets.shapes (")
    assert "entry point of package first" in problem.found
    assert opener_of("folder").entry.target == "harness.datasets.folder"


def test_a_class_is_an_opener_and_its_keywords_are_words(monkeypatch: pytest.MonkeyPatch) -> None:
    class Points(Dataset):
        name, family, class_names, has_background = "points", "voc", ("background", "dot"), True

        def __init__(self, *, side: str = "8") -> None:
            self.side = int(side)

        def splits(self) -> dict[str, bool]:
            return {"train": True, "val": True}

        def ids(self, split: str) -> tuple[str, ...]:
            return (f"{split}0", f"{split}1")

        def image(self, image_id: str) -> np.ndarray:
            return np.zeros((self.side, self.side, 3), np.uint8)

        def mask(self, image_id: str) -> np.ndarray:
            return np.eye(self.side, dtype=np.uint8)

        def fingerprint(self, ids: tuple[str, ...]) -> str:
            return repr((self.side, ids))

    opener = finding.Opener(finding.Entry("points", "here:Points", "here"), Points, None)
    assert opener.options == {"side": "8"}
    assert opener.open({"root": None, "masks": None, "classes": None}, {"side": "5"}).size("train0") == (5, 5)
    with pytest.raises(BadInput, match=r"data.root: points takes none"):
        opener.open({"root": "x"}, {})
