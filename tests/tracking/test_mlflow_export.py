"""MLflow filled from the store: nested runs, idempotence, content, servers that are down or never answer."""

from __future__ import annotations

import http.server
import importlib
import importlib.util
import json
import shlex
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import quote

import pytest
from PIL import Image

from harness.errors import StoreError
from harness.store import load
from harness.store.reading import load_of
from harness.tracking import mlflow_session
from harness.tracking.mlflow_client import local_uri, make_client
from harness.tracking.mlflow_export import Exporter, export, failure_text, how_to_go_on
from harness.tracking.mlflow_names import eval_name, legal
from harness.tracking.mlflow_session import Summary
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


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated database without content: making one takes seconds, and is tested once by `exported`."""
    root = tmp_path_factory.mktemp("empty")
    make_client(local_uri(root)).search_experiments()
    return root / "mlflow.db"


@pytest.fixture
def toy_root(tmp_path: Path, empty_database: Path) -> Path:
    """The toy store, and a database that is ready."""
    root = tmp_path / "with space"
    toys.toy_store(root)
    shutil.copy(empty_database, root / "mlflow.db")
    return root


def _filled(root: Path) -> Any:
    toy = toys.toy_store(root)
    toy.store.write(
        "steps",
        "cam0",
        toys.frame(
            "steps",
            [{"key": "cam0", "stage": "train", "step": s, "name": "cls", "value": 1.0 / (s + 1)} for s in range(1500)],
        ),
    )
    picture = toy.store.work("cam0") / "toy_0.png"
    picture.parent.mkdir(parents=True)
    Image.new("RGB", (8, 8), (200, 30, 30)).save(picture)
    secret = root.parent / "secret.png"
    secret.write_text("nobody asked for this")
    (picture.parent / "link.png").symlink_to(secret)
    toy.store.write(
        "artifacts",
        "cam0",
        toys.frame(
            "artifacts",
            [
                {"key": "cam0", "kind": "example", "path": str(picture.relative_to(root)), "digest": "d"},
                {"key": "cam0", "kind": "example", "path": str(secret), "digest": "d"},
                {"key": "cam0", "kind": "example", "path": "work/cam0/link.png", "digest": "d"},
                {"key": "cam0", "kind": "example", "path": "../secret.png", "digest": "d"},
                {"key": "cam0", "kind": "checkpoint", "path": "work/cam0/last.safetensors", "digest": "e"},
            ],
        ),
    )
    return toy


def _board(store: Path, sweep: str) -> dict[str, str]:
    return {"leaderboard.md": f"# {sweep}: {load(store).runs.height} runs\n"}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Summary]:
    root = tmp_path_factory.mktemp("exported") / "results"
    _filled(root)
    return root, export(root, pages=_board)


def _runs(root: Path) -> dict[str, Any]:
    client = make_client(local_uri(root))
    experiment = client.get_experiment_by_name(EXPERIMENT)
    return {r.data.tags["key"]: r for r in client.search_runs([experiment.experiment_id])}


def _per_class(root: Path, run_id: str, name: str) -> list[dict[str, Any]]:
    path = root / "mlflow-artifacts" / run_id / "artifacts" / "per_class" / f"{name}.json"
    table = json.loads(path.read_text())
    return [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]


def test_runs_are_nested_and_carry_their_status(exported: tuple[Path, Summary]) -> None:
    root, summary = exported
    assert (summary.sweeps, summary.created, summary.updated, summary.known) == (1, 10, 0, 0)
    assert str(summary).endswith("; 3 files outside the store were not sent")
    sent = {p.name for p in (root / "mlflow-artifacts").rglob("*.png")}
    assert sent == {"toy_0.png"}
    runs = _runs(root)
    sweep = runs[f"sweep:{toys.SWEEP}"]
    study = runs[f"study:{toys.SWEEP}/fsr"]
    assert "mlflow.parentRunId" not in sweep.data.tags
    assert study.data.tags["mlflow.parentRunId"] == sweep.info.run_id
    for key, status in (("fsr0", "FINISHED"), ("fsr1", "FINISHED"), ("fsrbad", "FAILED")):
        assert runs[key].data.tags["mlflow.parentRunId"] == study.info.run_id
        assert runs[key].info.status == status
    assert runs["cam1"].info.status == "KILLED"
    assert sweep.info.status == study.info.status == "FINISHED"
    assert len(runs) == 10 + 4 + 1
    assert runs["fsr0"].data.tags["role"] == "final,trial"
    assert runs["fsrbad"].data.tags["error_class"] == "bug"


def test_params_metrics_tables_pictures_and_leaderboard(exported: tuple[Path, Summary]) -> None:
    root, _ = exported
    client, runs = make_client(local_uri(root)), _runs(root)
    run = runs["cam0"]
    assert run.data.params["cam.mask_ratio"] == "0.4"
    assert run.data.params["cam.selection"] == "random"
    assert (run.data.params["method"], run.data.params["seed"], run.data.params["iterations"]) == (
        "cam",
        "0",
        "300",
    )
    assert run.data.metrics["miou/segmentation/test"] == round(toys.swapped_miou(20), 3)
    assert run.data.metrics["miou/cam/test/oracle"] == round(toys.swapped_miou(16), 3)
    assert run.data.metrics["objective"] == 46.0
    assert runs["fsr0"].data.metrics["miou/segmentation/test/teacher"] == round(toys.swapped_miou(9), 3)
    assert run.data.metrics["threshold/cam/test/held-out"] == 0.4
    assert run.data.metrics["seconds/method"] == 1500.0
    history = client.get_metric_history(run.info.run_id, "train/cls")
    assert sorted((m.step, m.value) for m in history) == [(s, 1.0 / (s + 1)) for s in range(1500)]
    files = root / "mlflow-artifacts" / run.info.run_id / "artifacts"
    rows = _per_class(root, run.info.run_id, "segmentation-test")
    assert [(r["class"], r["name"], r["tp"], r["fp"], r["fn"]) for r in rows] == [
        (0, "background", 360, 120, 120),
        (1, "disc", 120, 120, 120),
    ]
    assert [r["IoU %"] for r in rows] == [60.0, 33.33]
    assert [r["scored"] for r in _per_class(root, run.info.run_id, "cam-test")] == [
        *["cam/test/fixed"] * 2, *["cam/test/held-out"] * 2, *["cam/test/oracle"] * 2,
    ]  # fmt: skip
    shown = json.loads(run.data.tags["mlflow.loggedArtifacts"])
    assert [s["path"] for s in shown] == ["per_class/cam-test.json", "per_class/segmentation-test.json"]
    assert Image.open(files / "examples" / "toy_0.png").size == (8, 8)
    assert json.loads((files / "config.json").read_text())["method"] == "cam"
    assert (
        "NonFiniteLoss"
        in (root / "mlflow-artifacts" / runs["fsrbad"].info.run_id / "artifacts" / "error.txt").read_text()
    )
    board = root / "mlflow-artifacts" / runs[f"sweep:{toys.SWEEP}"].info.run_id / "artifacts" / "leaderboard.md"
    assert board.read_text() == f"# {toys.SWEEP}: 10 runs\n"


def test_a_second_export_adds_nothing_and_a_new_eval_updates_one_run(tmp_path: Path, empty_database: Path) -> None:
    root = tmp_path / "with space"
    toy = _filled(root)
    shutil.copy(empty_database, root / "mlflow.db")
    export(root)
    before = _runs(root)
    again = export(root, sweep=toys.SWEEP)
    assert (again.created, again.updated, again.known) == (0, 0, 10)
    toy.evaluate("cam0", "segmentation", 18, scales="0.5,1", flip=True)
    later = export(root)
    assert (later.created, later.updated, later.known) == (0, 1, 9)
    after = _runs(root)
    assert {k: r.info.run_id for k, r in before.items()} == {k: r.info.run_id for k, r in after.items()}
    metrics = after["cam0"].data.metrics
    assert metrics["miou/segmentation/test/scales 0.5 1 max/flip"] == round(toys.swapped_miou(18), 3)
    client = make_client(local_uri(root))
    assert len(client.get_metric_history(after["cam0"].info.run_id, "train/cls")) == 1500
    assert len(client.get_metric_history(after["cam0"].info.run_id, "miou/segmentation/test")) == 1
    assert metrics == before["cam0"].data.metrics | {
        k: v for k, v in metrics.items() if k.endswith("/segmentation/test/scales 0.5 1 max/flip")
    }
    assert len(_per_class(root, after["cam0"].info.run_id, "segmentation-test")) == 4


def test_counts_and_steps_are_read_for_a_few_new_runs_at_a_time(
    toy_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[set[str]] = []

    def watched(path: Path, tables: Any, *, keys: Any, evals: Any) -> Any:
        results = load_of(path, tables, keys=keys, evals=evals)
        if "steps" in tables:
            of = dict(load(path, ["evals"]).evals.select("eval", "key").iter_rows())
            assert {of[e] for e in results.counts["eval"]} | set(results.params["key"]) <= set(keys)
            read.append(set(keys))
        return results

    monkeypatch.setattr(mlflow_session, "load_of", watched)
    monkeypatch.setattr(mlflow_session, "RUNS_AT_A_TIME", 3)
    assert export(toy_root, pages=_board).created == 10
    assert len(read) == 4
    assert max(map(len, read)) <= 3
    assert set.union(*read) >= {"cam0", "fsr0", "fsr1"}
    read.clear()
    assert export(toy_root, pages=_board).known == 10
    assert read == []


def test_one_batch_of_a_running_sweep_reads_its_runs_only(toy_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[list[str]] = []

    def watched(path: Path, tables: Any, *, keys: Any, evals: Any) -> Any:
        results = load_of(path, tables, keys=keys, evals=evals)
        read.append(sorted(set(results.params["key"])))
        return results

    monkeypatch.setattr(mlflow_session, "load_of", watched)
    exporter = Exporter(toy_root, sweep=toys.SWEEP, pause_s=0)
    exporter._write({"fsr0"})
    assert exporter.summary.created == 1
    assert read == [["fsr0"]]


def test_an_export_that_was_cut_off_is_finished_by_the_next(toy_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    real, calls = MlflowClient.log_batch, []

    def breaks(self: MlflowClient, *args: Any, **words: Any) -> None:
        calls.append(1)
        if len(calls) == 5:
            raise OSError("cut off")
        real(self, *args, **words)

    monkeypatch.setattr(MlflowClient, "log_batch", breaks)
    with pytest.raises(StoreError, match=r"cut off.*The store is unharmed"):
        export(toy_root)
    done = export(toy_root)
    assert done.created + done.updated + done.known == 10
    assert export(toy_root).known == 10
    assert len(_runs(toy_root)) == 15
    for key in ("cam0", "fsr0", "twin1"):
        assert len(_per_class(toy_root, _runs(toy_root)[key].info.run_id, "segmentation-test")) in (2, 4)


def test_an_unknown_sweep_is_named_with_the_known_ones(toy_root: Path) -> None:
    with pytest.raises(StoreError, match=f"no sweep 'x'; it holds: {toys.SWEEP}"):
        export(toy_root, sweep="x")


def test_runs_outside_any_sweep_are_exported(toy_root: Path) -> None:
    toys.ToyStore(toy_root).run("alone", "cam")
    assert export(toy_root).created == 11
    assert _runs(toy_root)["alone"].data.tags["sweep"] == "single-runs"


def test_exporter_fills_while_a_sweep_runs(toy_root: Path) -> None:
    exporter = Exporter(toy_root, sweep=toys.SWEEP, pages=_board, pause_s=0.0)
    exporter.start()
    assert exporter.submit("cam0")
    deadline = time.monotonic() + 60
    while exporter.summary.created < 1 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert set(_runs(toy_root)) == {f"sweep:{toys.SWEEP}", f"study:{toys.SWEEP}/cam", "cam0"}
    assert exporter.close(60), exporter.failure
    assert len(_runs(toy_root)) == 15
    assert not exporter.submit("late")
    assert export(toy_root, pages=_board).created == 0


@pytest.fixture(scope="session")
def mlflow_imported() -> None:
    """The import takes seconds, which must not count as waiting for a server."""
    importlib.import_module("mlflow")


@pytest.fixture
def dead_port(mlflow_imported: None) -> str:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return f"http://user:secret@127.0.0.1:{s.getsockname()[1]}"


@pytest.fixture
def silent_server(mlflow_imported: None) -> Iterator[str]:
    """Accepts connections and never answers."""
    server = socket.create_server(("127.0.0.1", 0))
    held: list[socket.socket] = []

    def accept() -> None:
        while True:
            try:
                held.append(server.accept()[0])
            except OSError:
                return

    threading.Thread(target=accept, daemon=True).start()
    yield f"http://127.0.0.1:{server.getsockname()[1]}"
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    for connection in held:
        connection.close()


class Answers(http.server.BaseHTTPRequestHandler):
    """Every request gets the status that the address names, 0 none at all."""

    def do_GET(self) -> None:
        if status := int(self.path.split("/")[1]):
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b"hello")

    do_POST = do_GET

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.mark.parametrize(
    ("status", "why"),
    [(0, "it closed the connection"), (200, "what answers there is no MLflow"), (401, "it answered with error 401"),
     (404, "it answered with error 404"), (503, "it answered with error 503")],
)  # fmt: skip
def test_what_a_server_answers_is_said_in_plain_words(tmp_path: Path, status: int, why: str) -> None:
    toys.toy_store(tmp_path)
    with http.server.HTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        uri = f"http://127.0.0.1:{server.server_port}/{status}"
        with pytest.raises(StoreError) as e:
            export(tmp_path, uri)
        server.shutdown()
    text = f"MLflow at {uri} did not take the results: {why}. The store is unharmed; the same command goes on."
    assert str(e.value) == text


def test_export_to_a_dead_port_fails_fast_in_plain_words(tmp_path: Path, dead_port: str) -> None:
    toys.toy_store(tmp_path)
    before = load(tmp_path).runs
    started = time.monotonic()
    with pytest.raises(StoreError, match=r"did not take the results: nothing listens there\.") as e:
        export(tmp_path, dead_port)
    assert time.monotonic() - started < 5
    assert "secret" not in str(e.value)
    assert load(tmp_path).runs.equals(before)


def test_export_to_a_silent_server_ends(tmp_path: Path, silent_server: str) -> None:
    toys.toy_store(tmp_path)
    started = time.monotonic()
    with pytest.raises(StoreError, match=r"did not take the results: it did not answer in time\."):
        export(tmp_path, silent_server, answer_s=2)
    assert 2 <= time.monotonic() - started < 8


@pytest.mark.parametrize("server", ["dead_port", "silent_server"])
def test_a_sweep_never_waits_for_a_bad_server(tmp_path: Path, server: str, request: pytest.FixtureRequest) -> None:
    toys.toy_store(tmp_path)
    said: list[str] = []
    exporter = Exporter(tmp_path, request.getfixturevalue(server), sweep=toys.SWEEP, limit=2, say=said.append)
    exporter.start()
    started = time.monotonic()
    for _ in range(1000):
        exporter.submit("cam0")
    assert time.monotonic() - started < 0.5
    started = time.monotonic()
    assert not exporter.close(1.0)
    assert time.monotonic() - started < 2
    assert exporter.failure is not None
    assert "secret" not in exporter.failure
    uri = request.getfixturevalue(server).replace("user:secret@", "***@")
    later = shlex.join(["python", "-m", "harness.store", "export-mlflow", f"store={tmp_path}", f"mlflow={uri}"])
    assert f"export later with {later}" in exporter.failure
    assert ("with the login in place of ***" in exporter.failure) == (server == "dead_port")
    assert said == [exporter.failure]
    assert not exporter.submit("cam0")


def test_a_process_with_a_hanging_exporter_still_ends(tmp_path: Path, silent_server: str) -> None:
    code = (
        "from harness.tracking.mlflow_export import Exporter\n"
        f"e = Exporter({str(tmp_path)!r}, {silent_server!r}, sweep='s'); e.start(); e.submit('k')\n"
        "e.close(0.2); print('ended')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "ended\n"


def test_reading_the_store_does_not_import_mlflow() -> None:
    code = "import sys, harness.store, harness.tracking.mlflow_export; print('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_names() -> None:
    row = {
        "target": "cam",
        "split": "val",
        "threshold_rule": "oracle",
        "tags": "none",
        "weights": "teacher",
        "scales": "0.5,1",
        "fusion": "sum",
        "flip": True,
        "crf": "coco",
    }
    assert eval_name(row) == "cam/val/oracle/tags none/teacher/scales 0.5 1 sum/flip/crf coco"
    assert legal("a|b,c(d)") == "a_b_c_d_"


@pytest.mark.parametrize("password", ["p", "p@ss/w#rd?", "%70 %40"])
def test_a_login_never_shows(password: str) -> None:
    uri = f"postgresql://u:{quote(password)}@host:5432/db?sslpassword=hush&x=1"
    for error in (
        OSError(f"bad {uri}\nmore"),
        OSError(f"no user u:{password}"),
        OSError(f"password {password} is wrong"),
    ):
        text = failure_text(uri, error)
        assert text.startswith("MLflow at postgresql://***@host:5432/db?sslpassword=***&x=1 did not take the results: ")
        assert password not in text.partition("results: ")[2].replace("password", "").replace("postgresql", "")
        assert quote(password) not in text.partition("results: ")[2].replace("password", "").replace("postgresql", "")
    assert how_to_go_on(uri, OSError("down")) == "the same command goes on"


def test_a_database_is_found_in_a_folder_of_any_name(tmp_path: Path, empty_database: Path) -> None:
    root = tmp_path / "a%41b q?x [1] #* 100%"
    toys.toy_store(root)
    shutil.copy(empty_database, root / "mlflow.db")
    assert export(root).created == 10
    assert export(root).known == 10
    assert [p.name for p in tmp_path.iterdir()] == [root.name], "MLflow leaves a folder where it misreads the address"


def test_a_deleted_experiment_says_how_to_bring_it_back(toy_root: Path) -> None:
    export(toy_root)
    client = make_client(local_uri(toy_root))
    number = client.get_experiment_by_name(EXPERIMENT).experiment_id
    client.delete_experiment(number)
    with pytest.raises(StoreError) as error:
        export(toy_root)
    text = str(error.value)
    assert f"its experiment {number} ({EXPERIMENT}) was deleted" in text
    uri = shlex.quote(local_uri(toy_root))
    assert f"MLFLOW_TRACKING_URI={uri} mlflow experiments restore --experiment-id {number}" in text
    assert "the same command goes on" not in text
    client.restore_experiment(number)
    assert export(toy_root).known == 10
    exporter = Exporter(toy_root, sweep=toys.SWEEP)
    client.delete_experiment(number)
    exporter.start()
    assert not exporter.close()
    assert exporter.failure is not None
    assert "mlflow experiments restore" in exporter.failure
