"""A method in another package, installed by entry point, with its space: conformance, `methods=all`, a run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import harness.store
from harness.store import latest_runs

FILES = {
    "toycam/__init__.py": "",
    "toycam/config.py": """
from dataclasses import dataclass
from harness.errors import Problem
from harness.api.spec import MethodConfig, MethodSpec, Preset, knob


@dataclass(frozen=True, kw_only=True)
class ToyConfig(MethodConfig):
    lr: float = knob(0.01, "learning rate", source="here")
    width: int = knob(8, "channels", source="here")

    def problems(self):
        return [Problem("toycam.lr", f"{self.lr} is not positive", "give a positive rate")] if self.lr <= 0 else []


def preset(family, tier, variant):
    return Preset(backbone="shapes_vit", decoder="largefov", crop=48, batch=4, group=2, iterations=6,
                  card_iterations=6)


METHOD = MethodSpec(name="toycam", config=ToyConfig, preset="toycam.config:preset", build="toycam.method:build",
                    labels=("tags",), targets=("cam",), title="two convolutions and a class map")
""",
    "toycam/space.py": """
from harness.api.space import Float, Space

SPACE = Space({"lr": Float(0.001, 0.1, log=True)})
""",
    "toycam/method.py": """
import numpy as np
import torch
from torch import nn
from harness.api.method import Method, OptimizerPlan, Prediction, StepOutput, Views


class View:
    def __call__(self, sample, rng):
        top, left = rng.integers(0, 48, 2)
        cut = np.ascontiguousarray(sample.image_HW3[top:top + 48, left:left + 48])
        return Views({"image": torch.from_numpy(cut).permute(2, 0, 1).float() / 255 - 0.5})


class ToyCam(Method):
    def __init__(self, config, info):
        super().__init__()
        self.config, self.info = config, info
        self.body = nn.Sequential(nn.Conv2d(3, config.width, 3, 2, 1), nn.ReLU())
        self.top = nn.Conv2d(config.width, info.num_classes, 1, bias=False)

    def transform(self):
        return View()

    def cam_logits(self, images_B3HW):
        return self.top(self.body(images_B3HW))

    def step(self, group, progress):
        logits = self.cam_logits(group.views["image"]).mean((2, 3))
        return StepOutput({"cls": nn.functional.multilabel_soft_margin_loss(logits, group.tags_BC)})

    def optimizers(self):
        return [OptimizerPlan(torch.optim.AdamW(self.parameters(), lr=self.config.lr), lambda step: 1.0)]

    def normalisation(self):
        return (0.5, 0.5, 0.5), (1.0, 1.0, 1.0)

    @torch.no_grad()
    def predict(self, images_B3HW, tags_BC=None, *, want, weights="student"):
        maps = nn.functional.interpolate(self.cam_logits(images_B3HW).relu(), images_B3HW.shape[-2:])
        maps = maps / (maps.amax((2, 3), keepdim=True) + 1e-5)
        return Prediction(cam_BCHW=maps if tags_BC is None else maps * tags_BC[:, :, None, None])


def build(config, info):
    return ToyCam(config, info)
""",
    "toycam-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: toycam\nVersion: 1.0\n",
    "toycam-1.0.dist-info/entry_points.txt": """[wsss_harness.methods]
toycam = toycam.config:METHOD

[wsss_harness.search_spaces]
toycam = toycam.space:SPACE
""",
    "test_toycam.py": """
from harness.testing import MethodTests


class TestToyCam(MethodTests):
    method = "toycam"
""",
}


HALF = {
    "halfcam.py": """from dataclasses import dataclass

from harness.api.spec import MethodConfig, MethodSpec, knob
from toycam.method import ToyCam
from toycam.config import preset


@dataclass(frozen=True, kw_only=True)
class HalfConfig(MethodConfig):
    lr: float = knob(0.01, "learning rate", source="here")
    width: int = knob(8, "channels", source="here")


class HalfCam(ToyCam):
    def __init__(self, config, info):
        super().__init__(config, info)
        self.head = self.body.width


def build(config, info):
    return HalfCam(config, info)


METHOD = MethodSpec(name="half-cam", config=HalfConfig, preset="toycam.config:preset", build="halfcam:build",
                    labels=("tags",), targets=("cam",), title="half of a method")
""",
    "stepless.py": """import dataclasses

from harness.api.method import Method
from halfcam import METHOD as HALF


class Stepless(Method):
    def transform(self): ...
    def optimizers(self): ...
    def predict(self, images_B3HW, tags_BC=None, *, want, weights="student"): ...


def build(config, info):
    return Stepless()


METHOD = dataclasses.replace(HALF, name="stepless", build="stepless:build")
""",
    "halfcam-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: halfcam\nVersion: 1.0\n",
    "halfcam-1.0.dist-info/entry_points.txt": """[wsss_harness.methods]
half-cam = halfcam:METHOD
lost-cam = lostcam:METHOD
stepless = stepless:METHOD
""",
}
"""A second package: a method that fails when it is built, one without `step`, one whose module is not there."""


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("site")
    for name, text in FILES.items():
        path = root / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return root


def python(package: Path, *args: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(package), "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *args], env=env, capture_output=True, text=True, check=False)


def test_it_passes_the_conformance_suite(package):
    done = python(package, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(package / "test_toycam.py"))
    assert done.returncode == 0, done.stdout[-3000:]
    assert "passed" in done.stdout


def test_methods_all_has_it_with_its_space(package, tmp_path):
    done = python(package, "-m", "harness.sweep", "methods=all", "dry_run=true", f"store={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert "toycam-tags-" in done.stdout
    assert "searched (*): lr Float(low=0.001" in done.stdout


def test_it_runs_and_its_rules_are_read(package, tmp_path):
    words = [
        "methods=toycam",
        "ray=off",
        "mlflow=off",
        f"store={tmp_path}",
        "data.n_train=8",
        "data.n_val=4",
        "data.n_test=4",
    ]
    done = python(package, "-m", "harness.sweep", *words)
    assert done.returncode == 0, done.stderr
    assert "toycam" in done.stdout
    runs = latest_runs(harness.store.load(tmp_path).runs)
    assert runs["status"].to_list() == ["done", "done"]
    bad = python(package, "-m", "harness.sweep", *words, "toycam.lr=-1")
    assert bad.returncode == 2
    assert "not positive" in bad.stderr


def test_broken_methods_are_left_out_of_all_and_named_with_file_and_line(package, tmp_path):
    for name, text in HALF.items():
        path = tmp_path / "site" / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(text)
    both = Path(f"{package}{os.pathsep}{tmp_path / 'site'}")
    words = ["dry_run=true", f"store={tmp_path / 'store'}"]
    done = python(both, "-m", "harness.sweep", "methods=all", *words)
    assert done.returncode == 0, done.stderr
    file = tmp_path / "site" / "halfcam.py"
    fails = "method 'half-cam' (entry point of package halfcam) fails: AttributeError: 'Sequential' object has no"
    assert f"left out: {file}:17: {fails}" in done.stdout
    assert "left out: lostcam:METHOD: method 'lost-cam'" in done.stdout
    assert "No module named 'lostcam'; fix: install lostcam" in done.stdout
    assert f"left out: {tmp_path / 'site' / 'stepless.py'}:7: Stepless has no" in done.stdout
    assert "toycam-tags-" in done.stdout
    assert "half-cam-tags-" not in done.stdout
    alone = python(both, "-m", "harness.sweep", "methods=half-cam,lost-cam", *words)
    assert alone.returncode == 2
    assert "error: lostcam:METHOD" in alone.stderr
    alone = python(both, "-m", "harness.sweep", "methods=half-cam", *words)
    assert alone.returncode == 2
    assert f"error: {file}:17: {fails}" in alone.stderr
    assert "Traceback" not in alone.stderr
