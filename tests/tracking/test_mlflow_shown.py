"""What people see in MLflow: studies and sweeps that say what came out, links, artefacts that move with the store."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from chromium import needs_chromium, page
from mlflow_server import FIRST_ROW, RUN_NAMES, open_when_up, printed_link, served
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from harness.store import load
from harness.tracking.mlflow_client import local_uri, make_client, where_to_look
from harness.tracking.mlflow_export import export
from harness.tracking.mlflow_names import FORMAT
from harness.tracking.mlflow_tracker import EXPERIMENT


def _fixture_module() -> ModuleType:
    path = Path(__file__).parents[1] / "reports" / "fixture_store.py"
    spec = importlib.util.spec_from_file_location("toy_fixture_store", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


toys = _fixture_module()
SWEEP = toys.SWEEP


def _pages(store: Path, sweep: str) -> dict[str, str]:
    return {"leaderboard.html": f"<h1>board of {sweep}</h1>", "leaderboard.md": f"# {sweep}\n"}


def _store(root: Path) -> None:
    toy = toys.toy_store(root)
    pictures = root / "pictures" / "cam0"
    pictures.mkdir(parents=True)
    said = PngInfo()
    said.add_text("Description", "toy_0: image, truth <&>")
    Image.new("RGB", (8, 8), (200, 30, 30)).save(pictures / "example-0.png", pnginfo=said)
    row = {"key": "cam0", "kind": "example", "path": "pictures/cam0/example-0.png", "digest": "d"}
    toy.store.write("artifacts", "cam0", toys.frame("artifacts", [row]))
    lines = [{"key": "cam0", "stage": "train", "step": s, "name": "cls", "value": 1.0 / (s + 1)} for s in (0, 100, 200)]
    lines.append({"key": "cam0", "stage": "rung", "step": 150, "name": "objective", "value": 0.4})
    toy.store.write("steps", "cam0", toys.frame("steps", lines))
    outline = {"sweep": SWEEP, "pid": 1, "words": [{"methods": "cam,fsr,full", "data": "toy"}], "studies": []}
    (root / "sweeps").mkdir()
    (root / "sweeps" / f"{SWEEP}.json").write_text(json.dumps(outline))


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shown") / "results"
    _store(root)
    assert export(root, pages=_pages).created == 10
    return root


def _runs(root: Path) -> dict[str, Any]:
    client = make_client(local_uri(root))
    experiment = client.get_experiment_by_name(EXPERIMENT)
    return {r.data.tags["key"]: r for r in client.search_runs([experiment.experiment_id])}


def _table(root: Path) -> dict[str, Any]:
    """All that MLflow was told, without its own numbers and the clock."""
    runs = _runs(root)
    own = {r.info.run_id: key for key, r in runs.items()}

    def named(text: str) -> str:
        return re.sub(r"[0-9a-f]{32}", lambda m: own[m[0]], text)

    client = make_client(local_uri(root))
    return {
        key: (
            r.info.run_name, r.info.status, r.data.params, r.data.metrics,
            {k: named(v) for k, v in r.data.tags.items()},
            sorted((i.dataset.name, i.dataset.digest) for i in r.inputs.dataset_inputs),
            sorted((m.step, m.value) for m in client.get_metric_history(r.info.run_id, "train/cls")),
            _files(root, r),
        )
        for key, r in runs.items()
    }  # fmt: skip


def _experiment_tags(root: Path) -> dict[str, str]:
    """What the experiment opens on, without MLflow's own numbers."""
    tags = make_client(local_uri(root)).get_experiment_by_name(EXPERIMENT).tags
    return {k: re.sub(r"[0-9a-f]{32}", "", v) for k, v in tags.items() if not k.startswith("mlflow.experiment")}


def _files(root: Path, run: Any) -> dict[str, bytes]:
    folder = root / "mlflow-artifacts" / run.info.run_id / "artifacts"
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_sweep_and_its_studies_start_with_their_first_run_and_end_after_it(shown: Path) -> None:
    started = int(datetime.fromisoformat("2026-01-02T03:04:05+00:00").timestamp() * 1000)
    for key, run in _runs(shown).items():
        assert run.info.start_time == started, key
        assert run.info.end_time > started, key


def test_a_study_shows_its_best_trial_and_what_the_chosen_config_scored(shown: Path) -> None:
    runs = _runs(shown)
    cam, fsr = (runs[f"study:{SWEEP}/{name}"] for name in ("cam", "fsr"))
    assert (cam.info.run_name, fsr.info.run_name) == ("cam on toy, tags", "fsr on toy, tags")
    assert cam.data.metrics["objective"] == 46.0
    assert cam.data.tags["best_trial"] == "0"
    assert cam.data.metrics["miou/segmentation/test"] == round(toys.swapped_miou(20), 3)
    # Two seeds, with 10 and 8 swapped pixels of each class.
    mean = (toys.swapped_miou(10) + toys.swapped_miou(8)) / 2
    assert fsr.data.metrics["miou/segmentation/test"] == pytest.approx(mean, abs=1e-3)
    assert fsr.data.metrics["runs/failed"] == 1
    assert fsr.data.metrics["hours"] == pytest.approx(3 * 0.5)
    client = make_client(local_uri(shown))
    history = client.get_metric_history(cam.info.run_id, "best objective so far")
    assert [(m.step, m.value) for m in history] == [(0, 46.0), (1, 46.0)]
    note = fsr.data.tags["mlflow.note.content"]
    assert (
        "Best of 2 trials: trial 0, objective 71.0 % on the split that tuning looks at. Chosen config, 2 seeds:" in note
    )
    assert f"| segmentation/test | {mean:.1f} ± " in note


def test_sweep_and_study_have_params_data_source_and_description(shown: Path) -> None:
    runs = _runs(shown)
    sweep, study = runs[f"sweep:{SWEEP}"], runs[f"study:{SWEEP}/fsr"]
    assert sweep.info.run_name == "cam, fsr, full, twin on toy (5weep)"
    assert (sweep.data.params["methods"], sweep.data.params["dataset"]) == ("cam, fsr, full, twin", "toy")
    assert (study.data.params["method"], study.data.params["backbone"]) == ("fsr", "shapes_vit")
    assert sweep.data.metrics["runs/done"] == 7
    for run in (sweep, study):
        assert [i.dataset.name for i in run.inputs.dataset_inputs] == ["toy test"]
        assert run.data.tags["mlflow.source.git.commit"] == "c0ffee"
    assert sweep.data.tags["mlflow.source.name"] == "python -m harness.sweep methods=cam,fsr,full data=toy"
    assert "python -m harness.sweep methods=cam,fsr,full data=toy" in sweep.data.tags["mlflow.note.content"]


def test_runs_are_called_by_method_trial_and_seed(shown: Path) -> None:
    runs = _runs(shown)
    assert runs["cam1"].info.run_name == "cam trial 1 seed 0"
    assert runs["fsr1"].info.run_name == "fsr trial 0 seed 1, final"


def test_no_value_that_a_run_has_once_is_drawn_as_a_line_of_one_dot(shown: Path) -> None:
    """MLflow draws bars of what stands at step 0 alone."""
    client = make_client(local_uri(shown))
    for run in _runs(shown).values():
        for name in run.data.metrics:
            steps = [m.step for m in client.get_metric_history(run.info.run_id, name)]
            assert steps == [0] or len(set(steps)) > 1, (run.info.run_name, name, steps)


def test_examples_have_captions(shown: Path) -> None:
    run = _runs(shown)["cam0"]
    gallery = _files(shown, run)["examples.html"].decode()
    assert "<figcaption>toy_0: image, truth &lt;&amp;&gt;</figcaption>" in gallery
    assert "data:image/png;base64," in gallery
    assert f"runs/{run.info.run_id}/artifacts/examples.html?workflowType=" in run.data.tags["mlflow.note.content"]


def test_a_database_made_again_is_equal(shown: Path, tmp_path: Path) -> None:
    root = tmp_path / "again"
    shutil.copytree(shown, root, ignore=shutil.ignore_patterns("mlflow*"))
    export(root, pages=_pages)
    first, second = _table(shown), _table(root)
    assert len(first) == 15
    assert first == second
    assert _experiment_tags(shown) == _experiment_tags(root)
    assert load(root).runs.height == 10


def test_a_moved_store_keeps_its_artefacts_and_new_ones_go_along(shown: Path, tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "moved"
    shutil.copytree(shown, old)
    export(old)  # now its addresses are its own
    client = make_client(local_uri(old))
    before = {k: r.info.artifact_uri for k, r in _runs(old).items()}
    assert all(f"{old.as_uri()}/mlflow-artifacts/" in uri for uri in before.values())
    old.rename(new)
    toys.ToyStore(new).run("alone", "cam")
    assert export(new).created == 1
    client = make_client(local_uri(new))
    for key, run in _runs(new).items():
        assert run.info.artifact_uri.startswith(f"{new.as_uri()}/mlflow-artifacts/{run.info.run_id}/"), key
    board = client.download_artifacts(_runs(new)[f"sweep:{SWEEP}"].info.run_id, "leaderboard.md", str(tmp_path))
    assert Path(board).read_text() == f"# {SWEEP}\n"
    assert "config.json" in _files(new, _runs(new)["alone"])
    assert not old.exists()


def test_what_an_older_harness_exported_is_made_anew(shown: Path, tmp_path: Path) -> None:
    root = tmp_path / "older"
    shutil.copytree(shown, root)
    client, before = make_client(local_uri(root)), _runs(root)
    client.set_tag(before["cam0"].info.run_id, "format", "1")
    assert export(root, pages=_pages).created == 1
    after = _runs(root)
    assert after["cam0"].info.run_id != before["cam0"].info.run_id
    assert after["cam0"].data.tags["format"] == FORMAT
    assert len(after) == 15


def test_the_printed_address_opens_training_runs_and_hides_logins() -> None:
    local = where_to_look("sqlite:////a b/mlflow.db", "7")
    runs = "#/experiments/7/runs?workflowType=machine_learning&viewStateShareKey=runs"
    assert local == (
        "mlflow ui --workers 1 --backend-store-uri 'sqlite:////a b/mlflow.db'",
        f"http://127.0.0.1:5000/{runs}",
    )
    served = where_to_look("https://user:hush@host:5000/", "7")
    assert served == (f"https://***@host:5000/{runs}",)
    assert where_to_look("https://host", "") == ()


@pytest.mark.slow
@needs_chromium
def test_in_a_browser_runs_leaderboard_and_pictures_are_there(shown: Path) -> None:
    export(shown, pages=_pages)
    text, name = "(document.body?.innerText ?? '')", "cam, fsr, full, twin on toy"
    link_called = "[...document.querySelectorAll('a')].find(a => a.innerText.startsWith('{}'))"
    with served(shown) as server, page() as tab:
        tab.size(1500, 1000)
        open_when_up(tab, server.address + printed_link(shown))
        tab.wait(FIRST_ROW, 120)
        assert "Model training" in tab.run(text)
        # Of the runs the best stands first, and nothing but runs is there: no closed sweep.
        assert tab.run(RUN_NAMES)[0] == "full trial 0 seed 0"
        assert not any(shown_name.startswith(name) for shown_name in tab.run(RUN_NAMES))
        tab.wait(link_called.format(name), 30)
        # Links of a description open a tab of their own.
        tab.open(tab.run(link_called.format(name) + ".href"))
        tab.wait(link_called.format("leaderboard"), 60)
        tab.open(tab.run(link_called.format("leaderboard") + ".href"))
        tab.wait("document.querySelector('iframe') && location.href.includes('leaderboard.html')", 60)
        assert not tab.outside()
