"""The wheel, installed beside nothing of the checkout, does what the commands do."""

from __future__ import annotations

import json
import os
import shutil
import site
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SMALL = ["data.n_train=8", "data.n_val=4", "data.n_test=4", "crop=48", "batch=4", "group=2", "iterations=2"]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from the tracked files. Skipped where neither uv nor hatchling is at hand."""
    if shutil.which("uv") is None:
        pytest.skip("no uv, which builds the wheel")
    out = tmp_path_factory.mktemp("dist")
    build = ["uv", "build", "--wheel", "--offline", str(ROOT), "-o", str(out)]
    done = subprocess.run(build, capture_output=True, text=True)
    if done.returncode and "hatchling" in done.stderr and "network" in done.stderr:
        pytest.skip("no hatchling in uv's cache, and no network")
    assert not done.returncode, done.stderr
    (path,) = out.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def bare(wheel, tmp_path_factory) -> Path:
    """An environment with the wheel, whose other packages are those of this one; the checkout is on no path of it."""
    root = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(root / "env")], check=True)
    (packages,) = (root / "env" / "lib").glob("python*/site-packages")
    subprocess.run(
        ["uv", "pip", "install", "--offline", "--no-deps", "-q", "--python", str(root / "env/bin/python"), str(wheel)],
        check=True,
    )
    # Lines of a .pth file are followed, those of the .pth files in the folder that it names are not: an editable
    # install of the checkout stays out.
    (packages / "others.pth").write_text("\n".join(site.getsitepackages()))
    return root


def wsss(bare: Path, *argv: str) -> str:
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run([str(bare / "env/bin/wsss"), *argv], cwd=bare, env=env, capture_output=True, text=True)
    assert done.returncode == 0, f"wsss {' '.join(argv)}\n{done.stdout}{done.stderr}"
    return done.stdout


def python(bare: Path, code: str) -> str:
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run([bare / "env/bin/python", "-c", code], cwd=bare, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_holds_plans_weights_and_printed_numbers_and_no_tests(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    plans = sorted(p.name for p in (ROOT / "docs" / "plans").glob("*.yaml"))
    assert sorted(n.rpartition("/")[2] for n in names if n.startswith("harness/packaged/plans/")) == plans
    clusters = {"harness/packaged/cluster.yaml", *(f"harness/packaged/cluster/{n}" for n in ("local.yaml", "node.sh"))}
    assert clusters | {"methods/parts/nets/weights/shapes_vit.safetensors"} <= set(names)
    published = {f"reports/published/{p.name}" for p in (ROOT / "reports/published").iterdir() if p.is_file()}
    assert published <= set(names)
    assert not [n for n in names if n.startswith(("tests/", "benchmarks/", "docs/"))]


def test_it_trains_predicts_exports_and_reports_outside_the_checkout(bare):
    places = python(bare, "import harness, methods, reports, search_spaces as s\n"
                          "print(harness.__file__, methods.__file__, reports.__file__, s.__file__)")  # fmt: skip
    assert places.count(str(bare)) == 4, places
    version = wsss(bare, "--version").strip()
    assert version in python(bare, "from importlib.metadata import version; print(version('wsss-harness'))")
    assert all(Path(line).is_file() for line in wsss(bare, "files").splitlines())
    wsss(bare, "train", "method=full", "ray=off", *SMALL, "store=results")
    stored = "import json, harness.store as s; r = s.load('results').runs.row(0, named=True)"
    key, config = json.loads(python(bare, f"{stored}; print(json.dumps([r['key'], r['config']]))"))
    (bare / "run.json").write_text(config)
    assert f"run {key}: full" in wsss(bare, "train", "config=run.json", "ray=off", "store=results")
    wsss(bare, "store", "export-masks", f"run={key}", "out=masks", "store=results")
    predict = ["predict", f"run={key}", "images=masks/JPEGImages", "out=predicted", "store=results"]
    assert "8 predicted" in wsss(bare, *predict)
    assert len(list((bare / "predicted/masks").glob("*.png"))) == 8
    assert "full" in wsss(bare, "leaderboard", "store=results", "tier=smoke")
    planned = wsss(bare, "sweep", "plan=tags", "tier=smoke", "crop=48", "store=results", "dry_run=true")
    assert all(method in planned for method in ("toco", "unia", "class_token"))
    code = f"import harness; from PIL import Image; run = harness.load_run('results', {key!r})\n" \
           "print(run.config.method, run.predict(Image.new('RGB', (30, 20))).shape)"  # fmt: skip
    assert python(bare, code).split(maxsplit=1) == ["full", "(20, 30)\n"]
    code = "from harness.store import load; from reports.sections.leaderboard import build\n" \
           "print(build(load('results'))._repr_html_())"  # fmt: skip
    assert "full" in python(bare, code)
    wsss(bare, "page", "store=results", "out=board.html")
    assert "full" in (bare / "board.html").read_text()
