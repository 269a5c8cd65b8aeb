"""Optuna's storage made from the store: studies, rungs, pruned trials; made again it is equal."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import optuna
import pytest

from harness.cli.parsing import main
from harness.store.__main__ import run
from harness.tracking.mlflow_client import sqlite_uri
from harness.tracking.optuna_export import export_optuna
from harness.tuning.search import STARTUP_TRIALS, Tpe


def _toys() -> Any:
    path = Path(__file__).parents[1] / "reports" / "fixture_store.py"
    spec = importlib.util.spec_from_file_location("toy_fixture_store", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


toys = _toys()


@pytest.fixture
def searched(tmp_path: Path) -> Path:
    """One study of four trials: two done, one pruned at its second rung, one failed; and one that searched nothing."""
    toy = toys.ToyStore(tmp_path / "results")
    ends = [("done", 1.0, 0.5), ("done", 1.0, 0.6), ("pruned", 0.5, 0.3), ("failed", 0.1, None)]
    for n, (status, reached, objective) in enumerate(ends):
        config = json.dumps({"method": "cam", "knobs": {"lr": 0.01 * (n + 1), "kind": "ab"[n % 2], "same": 1}})
        toy.run(f"t{n}", "cam", trial=n, status=status, config=config, study="cam-toy")
        toy.trial(f"t{n}", "cam-toy", trial=n, status=status, reached=reached, objective=objective)
    rungs = [
        {"key": "t2", "stage": "rung", "step": s, "name": "objective", "value": v} for s, v in ((75, 0.2), (150, 0.3))
    ]
    toy.store.write("steps", "t2-rung", toys.frame("steps", rungs))
    toy.trial(toy.run("alone", "full", study="full-toy", supervision="masks"), "full-toy")
    return toy.root


def _read(path: Path) -> list[Any]:
    storage = optuna.storages.RDBStorage(sqlite_uri(path))
    found = []
    for name in optuna.get_all_study_names(storage):
        study = optuna.load_study(study_name=name, storage=storage)
        found.append((name, study.user_attrs, [
            (t.number, t.state, t.value, t.params, t.distributions, t.intermediate_values, t.user_attrs,
             t.datetime_start, t.datetime_complete) for t in study.trials
        ]))  # fmt: skip
    storage.engine.dispose()
    return found


def test_studies_have_values_at_rungs_and_pruned_trials(searched: Path, tmp_path: Path) -> None:
    assert export_optuna(searched, tmp_path / "studies.db") == ("cam-toy",)
    ((name, attributes, trials),) = _read(tmp_path / "studies.db")
    assert (name, attributes) == ("cam-toy", {"method": "cam", "protocol": "held-out"})
    states = optuna.trial.TrialState
    assert [t[1] for t in trials] == [states.COMPLETE, states.COMPLETE, states.PRUNED, states.FAIL]
    assert [t[2] for t in trials] == [0.5, 0.6, None, None]
    assert [t[3] for t in trials][1] == {"lr": 0.02, "kind": "b"}
    assert trials[2][5] == {25: 0.2, 50: 0.3}
    assert trials[2][6]["key"] == "t2"


def test_made_again_it_is_equal(searched: Path, tmp_path: Path) -> None:
    export_optuna(searched, tmp_path / "studies.db")
    first = _read(tmp_path / "studies.db")
    (tmp_path / "studies.db").unlink()
    export_optuna(searched, tmp_path / "studies.db")
    assert _read(tmp_path / "studies.db") == first


def test_the_command_says_how_to_open_it_and_overwrites_nothing(
    searched: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["export-optuna", f"store={searched}", f"out={tmp_path / 'x.db'}"]
    assert main(run, words) == 0
    out = capsys.readouterr().out
    assert "1 study written: cam-toy" in out
    assert f"optuna-dashboard {sqlite_uri((tmp_path / 'x.db').resolve())}" in out
    before = (tmp_path / "x.db").read_bytes()
    assert main(run, words) == 2
    assert "x.db exists" in capsys.readouterr().err
    assert (tmp_path / "x.db").read_bytes() == before
    assert main(run, words[:2]) == 2
    assert "out=studies.db, a new SQLite file" in capsys.readouterr().err


def test_a_store_in_which_nothing_was_searched_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toys.ToyStore(tmp_path / "s").run("one", "cam")
    assert main(run, ["export-optuna", f"store={tmp_path / 's'}", f"out={tmp_path / 'x.db'}"]) == 2
    assert "holds no study that searched" in capsys.readouterr().err
    assert not (tmp_path / "x.db").exists()


def test_the_dashboard_opens_it(searched: Path, tmp_path: Path) -> None:
    dashboard = pytest.importorskip("optuna_dashboard", reason="optuna-dashboard is not installed")
    export_optuna(searched, tmp_path / "studies.db")
    storage = optuna.storages.RDBStorage(sqlite_uri(tmp_path / "studies.db"))
    said: list[str] = []
    environ: dict[str, Any] = {"PATH_INFO": "/api/studies"}
    setup_testing_defaults(environ)
    body = b"".join(dashboard.wsgi(storage)(environ, lambda status, headers, exc_info=None: said.append(status)))
    assert said == ["200 OK"]
    assert [s["study_name"] for s in json.loads(body)["study_summaries"]] == ["cam-toy"]
    storage.engine.dispose()


def test_the_sampler_says_what_optuna_may_change(monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.plan.studies import Outcome
    from search_spaces.cam import SPACE

    preset = SPACE.from_unit([0.5] * 64)
    real, given = optuna.samplers.TPESampler, []

    def watched(**words: Any) -> Any:
        given.append(words)
        return real(**words)

    def proposals() -> list[dict[str, Any]]:
        search = Tpe(SPACE, preset, 0)
        out = []
        for trial in range(STARTUP_TRIALS + 3):
            out.append(search.ask(trial))
            search.tell(trial, Outcome("done", 0.1 * (trial % 3)))
        return out

    monkeypatch.setattr(optuna.samplers, "TPESampler", watched)
    explicit = proposals()
    ours = [words for words in given if "seed" in words]  # a study has one of its own until it is given ours
    assert len(ours) == STARTUP_TRIALS + 2
    assert all(words["multivariate"] is words["constant_liar"] is True for words in ours)
    monkeypatch.setattr(optuna.samplers, "TPESampler", lambda seed=None, n_startup_trials=10, **_: real(
        seed=seed, n_startup_trials=n_startup_trials))  # fmt: skip
    assert proposals() == explicit, "today's defaults are what is said"
