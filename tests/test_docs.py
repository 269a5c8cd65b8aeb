"""Every command in README and docs runs; every link and path that they name exists."""

import re
import runpy
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.store import load

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "methods").glob("*/README.md"))]
FENCE = re.compile(r"```bash\n(.*?)```", re.S)
PATH = re.compile(r"`((?:harness|methods|search_spaces|reports|benchmarks|tests|docs)/[\w./-]+)`")
DOTTED = re.compile(r"\b(?:harness|methods|search_spaces|reports|benchmarks)(?:\.\w+)+")
LONG = re.compile(r"dry_run=true|--help|status|reports\.|harness\.store")
"""Words that make a command short; any other one is run with dry_run=true."""


# What docs/methods.md runs on the method that it shows is run by test_method_to_copy.py.
def commands() -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        for block in FENCE.findall(page.read_text()):
            for line in re.sub(r"\\\n\s*", " ", block).splitlines():
                command = line.split("python -m ", 1)
                if len(command) == 2 and not command[1].startswith("pip") and "my-method" not in command[1]:
                    found.append((page.name, command[1].split("#")[0].strip()))
    return found


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A VOC-layout folder and a store with one finished run."""
    root = tmp_path_factory.mktemp("world")
    voc = root / "voc"
    rng = np.random.default_rng(0)
    ids = {"train": ["a", "b", "c", "d"], "val": ["e", "f"], "test": ["g", "h"]}
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (voc / folder).mkdir(parents=True)
    for split, names in ids.items():
        (voc / "ImageSets/Segmentation" / f"{split}.txt").write_text("\n".join(names) + "\n")
        for name in names:
            Image.fromarray(rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)).save(voc / f"JPEGImages/{name}.jpg")
            mask = np.zeros((40, 50), np.uint8)
            mask[10:30, 10:30] = 1
            Image.fromarray(mask).save(voc / f"SegmentationClass/{name}.png")
    (voc / "classes.txt").write_text("background\nblob\n")
    store = root / "results"
    words = [
        "method=full",
        "ray=off",
        f"store={store}",
        "iterations=2",
        "crop=48",
        "batch=4",
        "group=2",
        "data.n_train=8",
        "data.n_val=4",
        "data.n_test=4",
    ]
    assert run("harness.train", words) == 0
    masks, cams = root / "masks", root / "cams"
    masks.mkdir()
    cams.mkdir()
    for name in ids["test"]:
        (masks / f"{name}.png").write_bytes((voc / f"SegmentationClass/{name}.png").read_bytes())
        np.save(cams / f"{name}.npy", np.zeros((1, 4, 5), np.float32))
    (weights,) = store.glob("cache/*/weights.safetensors")
    return {
        "<VOC-layout folder>": str(voc),
        "<folder of PNG>": str(masks),
        "<folder of CAMs>": str(cams),
        "<folder of masks>": str(voc / "SegmentationClass"),
        "<folder of photos>": str(voc / "JPEGImages"),
        "<stored config>": str(stored_config(store, root)),
        "<folder of results>": str(root / "out"),
        "<new folder>": str(root / "exported"),
        "<file>": str(weights),
        "<key>": key_of(store),
        "results": str(store),
    }


def stored_config(store: Path, root: Path) -> Path:
    path = root / "run.json"
    path.write_text(load(store).runs["config"][0])
    return path


def key_of(store: Path) -> str:
    (file,) = (store / "params").glob("*.parquet")
    return file.stem


def run(module: str, argv: list[str]) -> int:
    old = sys.argv
    sys.argv = [module, *argv]
    try:
        runpy.run_module(module, run_name="__main__")
    except SystemExit as e:
        return int(e.code or 0)
    finally:
        sys.argv = old
    return 0


@pytest.mark.parametrize(("page", "command"), commands(), ids=lambda value: value[:60])
def test_the_command_runs(page, command, world, monkeypatch, tmp_path):
    for name, value in world.items():
        if name.startswith("<"):
            command = command.replace(name, shlex.quote(value))
    module, *words = shlex.split(command)
    words = ["store=" + world["results"] if w == "store=results" else w for w in words]
    # What a reader writes beside his work is not left beside ours.
    words = [f"out={tmp_path / w[4:]}" if w.startswith("out=") and not Path(w[4:]).is_absolute() else w for w in words]
    if module == "pytest":
        return
    if not LONG.search(command) and module != "harness.data":
        words.append("dry_run=true")
    if "data=folder" in words and module != "harness.data":
        words.append("backbone=shapes_vit")  # the default one is downloaded
    assert run(module, words) == 0, f"{page}: python -m {module} {' '.join(words)}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_paths_and_modules_that_a_page_names_are_there(page):
    text = page.read_text()
    # Files that the page has the reader write.
    shown = set(re.findall(r"```python\n# (\S+\.py)\n", text))
    shown |= {"methods/my_method/__init__.py", "harness/datasets/leaf_photos.py"}
    lost = [p for p in PATH.findall(text) if not (ROOT / p).exists() and p not in shown]
    lost += [
        m
        for m in set(DOTTED.findall(text))
        if not m.startswith(("methods.my_method", "methods.mine.", "methods.x.")) and not known(m)
    ]
    assert not lost, f"{page.name} names {lost}"


def known(name: str) -> bool:
    """Whether a dotted name is a module of ours, or a name in one, seen without importing it."""
    parts = name.split(".")
    for n in range(len(parts), 1, -1):
        path = ROOT.joinpath(*parts[:n])
        source = path.with_suffix(".py") if path.with_suffix(".py").is_file() else path / "__init__.py"
        if source.is_file():
            return n == len(parts) or re.search(rf"\b{parts[n]}\b", source.read_text()) is not None
    # What a package itself gives (`harness.load_run`), or a page.
    own = ROOT / parts[0] / "__init__.py"
    given = re.search(rf'"{parts[-1]}"', own.read_text()) if own.is_file() else None
    return len(parts) == 2 and (given is not None or (ROOT / "docs" / f"{parts[0]}.{parts[1]}").is_file())


def test_there_are_commands_to_run():
    assert len(commands()) >= 8
