"""A recipe of two networks: what each stage is given, what its key holds, killed in each stage and resumed to the same
bytes with one worker and with two."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
import torch.distributed as dist
from recipe_toys import registered
from safetensors.torch import load_file

import harness.store
from harness.cli.parsing import parse
from harness.cli.run_words import Words
from harness.engine.context import Context
from harness.engine.phases import phase_table
from harness.engine.run import execute
from harness.engine.session import LocalSession
from harness.engine.stages import per_image
from harness.errors import BadInput
from harness.plan.payload import Payload
from harness.plan.plan import make_plan
from harness.plan.recipes import judged, recipe_of

WORDS = ["method=twostage", "ray=off", "data.n_train=8", "data.n_val=3", "data.n_test=4", "checkpoint_every=1"]


@pytest.fixture(autouse=True)
def method() -> Iterator[None]:
    with registered():
        yield


def payload_of(store: Path, *more: str) -> Payload:
    plan = make_plan(parse([*WORDS, f"store={store}", *more], Words, "train", ["twostage"]), single=True)
    study = dataclasses.replace(plan.studies[0].study, trials=1, space=None)
    return plan.resolve(study, {}, study.seeds[0])


def run_row(store: Path, payload: Payload) -> dict[str, Any]:
    (row,) = harness.store.load(store).runs.filter(pl.col("key") == payload.key).to_dicts()
    return {**row, "seconds": json.loads(row["seconds"])}


def digest(store: Path, payload: Payload) -> str:
    return harness.store.digest(harness.store.load(store), payload.key)


def made(store: Path) -> dict[str, str]:
    """Digests of all networks and artefacts in the cache by name; curves of losses also say where a run resumed."""
    found: dict[str, str] = {}
    for done in store.glob("cache/*/done.json"):
        found |= {n: value for n, value in json.loads(done.read_text())["digests"].items() if not n.endswith(".losses")}
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Payload]:
    store = tmp_path_factory.mktemp("undisturbed")
    with registered():
        payload = payload_of(store)
        execute(payload, LocalSession())
    return store, payload


def test_each_stage_has_its_own_sizes_and_all_of_them_count(undisturbed: tuple[Path, Payload]) -> None:
    store, payload = undisturbed
    assert payload.run.networks["segmenter"]["iterations"] == 4
    assert payload.run.total == 10
    half = dataclasses.replace(payload.run, fidelity=0.5)
    assert (half.own_steps, half.total) == (3, 5)
    results = harness.store.load(store)
    steps = results.steps.group_by("stage").agg(pl.col("step").max(), pl.col("name").unique()).sort("stage").to_dicts()
    assert steps == [
        {"stage": "train", "step": 5, "name": ["cls"]},
        {"stage": "train-segmenter", "step": 3, "name": ["seg"]},
    ]
    assert results.evals["target"].unique().sort().to_list() == ["cam", "segmentation"]
    assert set(results.artifacts["kind"]) == {"weights", "weights-segmenter", "maps-cams", "example"}
    fitted = dict(results.params.filter(pl.col("knob").str.starts_with("fitted.")).select("knob", "text").iter_rows())
    assert (fitted["fitted.crop"], fitted["fitted.segmenter.crop"]) == ("48", "32")
    assert run_row(store, payload)["iterations"] == 10


def test_maps_are_written_of_all_images_small_and_of_present_classes(undisturbed: tuple[Path, Payload]) -> None:
    store, _ = undisturbed
    (folder,) = store.glob("cache/*/files")
    assert len(list(folder.glob("*.npz"))) == 8 + 3 + 4


class Stop(BaseException):
    """Ends a run as a kill would."""


def killed(monkeypatch: pytest.MonkeyPatch, stage: str, at: int) -> None:
    """The run dies in this stage: at a training step, or before its n-th file is written."""
    report = Context.report_progress

    def dying(self: Context, name: str, step: int, total: int, losses: Any = None) -> None:
        report(self, name, step, total, losses)
        if name == stage and step == at:
            raise Stop

    monkeypatch.setattr(Context, "report_progress", dying)


@pytest.mark.parametrize(("stage", "at"), [("train", 4), ("write-cams", 5), ("train-segmenter", 8), ("score test", 0)])
def test_killed_in_any_stage_and_resumed_to_the_same_bytes(
    undisturbed: tuple[Path, Payload], tmp_path: Path, stage: str, at: int
) -> None:
    payload = payload_of(tmp_path)
    with pytest.MonkeyPatch.context() as dying:
        killed(dying, stage, at)
        with pytest.raises(Stop):
            execute(payload, LocalSession())
    execute(payload, LocalSession())
    store, first = undisturbed
    assert payload.key == first.key
    assert digest(tmp_path, payload) == digest(store, first)
    assert made(tmp_path) == made(store)
    assert "reused" not in run_row(tmp_path, payload)["seconds"], "its own earlier attempt is no other run"


def test_seconds_are_told_by_stage(undisturbed: tuple[Path, Payload]) -> None:
    seconds = run_row(*undisturbed)["seconds"]
    by_stage = seconds.pop("by_stage")
    assert list(by_stage) == ["train", "write-cams", "train-segmenter"]
    assert all(value > 0 for value in by_stage.values())
    assert sum(by_stage.values()) < sum(seconds.values()), "start, build and scores lie outside"
    assert "by stage: train " in phase_table({**seconds, "by_stage": by_stage})


def test_a_stage_that_is_done_is_not_run_again(
    undisturbed: tuple[Path, Payload], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a kill in the last stage only what was missing is done: each of fifteen files is written once."""
    payload, real, written = payload_of(tmp_path), per_image.write_bytes, []

    def counted(path: Path, content: bytes, *, sync: bool = True) -> None:
        written.append(path.name)
        real(path, content, sync=sync)

    monkeypatch.setattr(per_image, "write_bytes", counted)
    for stage, at in (("write-cams", 5), ("train-segmenter", 8)):
        with pytest.MonkeyPatch.context() as dying:
            killed(dying, stage, at)
            with pytest.raises(Stop):
                execute(payload, LocalSession())
    assert len(written) == len(set(written)) == 15
    execute(payload, LocalSession())
    assert len(written) == 15


def test_a_knob_makes_again_what_reads_it_and_what_depends_on_that(
    undisturbed: tuple[Path, Payload], tmp_path: Path
) -> None:
    first = payload_of(tmp_path)
    execute(first, LocalSession())
    stages = {"train", "write-cams", "train-segmenter"}
    for word, again in {
        "twostage.seed_threshold=0.6": {"train-segmenter"},
        "segmenter.iterations=5": {"train-segmenter"},
        "twostage.power=2.0": {"write-cams", "train-segmenter"},
        "twostage.lr=0.01": stages,
        "twostage.momentum=0.1": stages,
        "scales=1,1.5": set(),
    }.items():
        before = {p: p.stat().st_mtime_ns for p in tmp_path.glob("cache/*/done.json")}
        other = payload_of(tmp_path, word)
        assert other.key != first.key
        execute(other, LocalSession())
        after = {p: p.stat().st_mtime_ns for p in tmp_path.glob("cache/*/done.json")}
        assert all(after[p] == t for p, t in before.items()), "what was there is as it was"
        assert len(after) - len(before) == len(again), word
        seconds = run_row(tmp_path, other)["seconds"]
        assert (seconds.get("reused", 0) > 0) == (again != stages), word
        assert (seconds["data"] > 0) == bool(again), word


def test_a_recipe_ends_early_with_the_target_made_so_far(undisturbed: tuple[Path, Payload], tmp_path: Path) -> None:
    whole, store = payload_of(tmp_path), undisturbed[0]
    early = payload_of(tmp_path, "until=write-cams")
    assert payload_of(tmp_path, "until=train-segmenter").key == whole.key, "the last stage is where it ends anyway"
    assert early.key != whole.key
    assert (early.run.total, early.run.networks) == (6, {})
    outcome = execute(early, LocalSession())
    results = harness.store.load(tmp_path)
    assert results.evals["target"].unique().to_list() == ["cam"]
    curve = harness.store.load(store).evals.filter(
        (pl.col("target") == "cam") & (pl.col("split") == "val") & (pl.col("threshold_rule") == "held-out")
    )
    assert curve.height == 1
    assert outcome.objective == pytest.approx(miou_of(harness.store.load(store), curve["eval"][0]))
    with pytest.raises(BadInput, match="nothing can be scored after train") as caught:
        payload_of(tmp_path, "until=train")
    assert "write-cams, train-segmenter" in caught.value.problems[0].fix
    with pytest.raises(BadInput, match="until=masks"):
        payload_of(tmp_path, "until=masks")
    with pytest.raises(BadInput, match="affinity"):
        payload_of(tmp_path, "affinity.iterations=3")


def test_what_a_run_ends_with_early_is_there_for_those_who_go_further(tmp_path: Path) -> None:
    """Maps that no stage of the early run reads: the next run takes network and maps, and only trains the second."""
    early, whole = payload_of(tmp_path, "until=write-cams"), payload_of(tmp_path)
    again = payload_of(tmp_path, "until=write-cams", "scales=1,1.5")
    spent, names = {}, {"early": early, "whole": whole, "again": again}
    for name, payload in names.items():
        execute(payload, LocalSession())
        seconds = run_row(tmp_path, payload)["seconds"]
        spent[name] = {phase for phase in seconds if phase != "by_stage" and seconds[phase] > 0}
        folders = sorted(p.parent.name for p in tmp_path.glob("cache/*/done.json"))
        assert len(folders) == (2 if name == "early" else 3), name
    first = {"start", "build", "data", "views", "method", "engine", "checkpoint", "stages", "score"}
    assert spent["early"] == first
    assert spent["whole"] == (first | {"reused"}) - {"stages"}
    assert spent["again"] == {"start", "build", "score", "reused"}, "nothing is trained or written"
    kinds = harness.store.load(tmp_path).artifacts.filter(pl.col("key") == early.key)["kind"]
    assert set(kinds) == {"weights", "maps-cams", "example"}
    nothing = payload_of(tmp_path / "none", "until=write-cams", "keep=none")
    execute(nothing, LocalSession())
    assert not list((tmp_path / "none" / "cache").glob("*/files")), "keep=none keeps nothing"


def miou_of(results: Any, eval_id: str) -> float:
    from harness.scoring.metrics import miou

    return miou(results.counts.filter(pl.col("eval") == eval_id))[0]


def test_rungs_lie_within_networks_that_predict_and_at_ends_of_stages(tmp_path: Path) -> None:
    payload = payload_of(tmp_path)
    ends, blind = judged(payload.run, recipe_of(payload.run))
    assert ends == (0.6,)
    assert blind == ((0.0, 0.6),), "the first network's maps are in files only"
    told: list[tuple[float, float]] = []
    session = LocalSession(rungs=(0.6, 0.8), on_report=lambda reached, value: told.append((reached, value)) or True)
    execute(payload, session)
    assert [reached for reached, _ in told] == [0.6, 0.8]
    assert all(0 < value < 1 for _, value in told)


def test_a_run_that_is_stopped_at_the_end_of_a_stage_trains_no_further(tmp_path: Path) -> None:
    payload = payload_of(tmp_path)
    with pytest.raises(SystemExit):
        execute(payload, LocalSession(rungs=(0.6,), on_report=lambda reached, value: False))
    assert sorted(made(tmp_path)) == ["cams", "network"]


def _work(rank: int, folder: Path) -> None:
    """One of two workers: a whole run; then one that is killed in each stage, and goes on."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    session = LocalSession(rank=rank, world_size=2)
    with registered():
        execute(payload_of(folder / "whole"), session)
        for stage, at in (("train", 4), ("write-cams", 3), ("train-segmenter", 8)):
            with pytest.MonkeyPatch.context() as dying:
                killed(dying, stage, at)
                with pytest.raises(Stop):
                    execute(payload_of(folder / "broken"), session)
        execute(payload_of(folder / "broken"), session)
    dist.barrier()
    dist.destroy_process_group()


def test_two_workers_agree_with_one_and_are_killed_and_resumed_to_the_same_bytes(
    undisturbed: tuple[Path, Payload], tmp_path: Path
) -> None:
    # Spawned: this process has used polars, whose threads a fork would wait for.
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_work, args=(rank, tmp_path)) for rank in range(2)]
    for p in processes:
        p.start()
    for p in processes:
        p.join(timeout=300)
    assert [p.exitcode for p in processes] == [0, 0]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert made(broken) == made(whole)
    payload = payload_of(whole)
    assert digest(broken, payload) == digest(whole, payload)
    for name in ("network", "segmenter"):
        one, two = (weights_of(store, name) for store in (undisturbed[0], whole))
        assert all(torch.allclose(one[k], two[k], rtol=1e-4, atol=1e-5) for k in one), name


def weights_of(store: Path, name: str) -> dict[str, torch.Tensor]:
    (done,) = [p for p in store.glob("cache/*/done.json") if name in json.loads(p.read_text())["digests"]]
    return load_file(done.parent / "weights.safetensors")
