"""Whole recipes of real methods at their smallest: killed in every stage and phase and resumed to the same bytes, and
two workers beside one."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
import torch.distributed as dist
from PIL import Image
from safetensors.torch import load_file

import harness.store
from harness.api.recipe import Train
from harness.api.registry import registry
from harness.cli.parsing import parse
from harness.cli.run_words import Words
from harness.engine.context import Context
from harness.engine.run import execute
from harness.engine.session import LocalSession
from harness.engine.stages import per_image
from harness.plan.payload import Payload
from harness.plan.plan import make_plan
from harness.plan.recipes import recipe_of, run_of, steps_before

SMALL = [
    "ray=off", "data.n_train=8", "data.n_val=3", "data.n_test=3", "crop=48", "batch=4", "group=2",
    "affinity.iterations=3", "affinity.crop=96", "segmenter.iterations=3", "segmenter.backbone=shapes_cnn",
    "segmenter.crop=48", "segmenter.batch=4", "segmenter.group=2", "checkpoint_every=1",
]  # fmt: skip
BRNF = ["iterations=12", "brnf.density_pixels=1", "brnf.region_min=1", "brnf.rw_steps=2"]
PHASES = (1, 3, 5, 9)
"""Steps of BRNF's twelve: warm, densities that learn (from 2), used (from 4), everything at full weight."""
MORE = {"irn": ["iterations=4", "irn.rw_steps=2"], "sipe": ["iterations=4", "sipe.rw_steps=2"], "cam+brnf": BRNF}


def payload_of(method: str, store: Path) -> Payload:
    argv = [f"method={method}", *SMALL, *MORE[method], f"store={store}"]
    plan = make_plan(parse(argv, Words, "train", registry().names()), single=True)
    study = dataclasses.replace(plan.studies[0].study, trials=1, space=None)
    return plan.resolve(study, {}, study.seeds[0])


def digest(store: Path, payload: Payload) -> str:
    return harness.store.digest(harness.store.load(store), payload.key)


def made(store: Path) -> dict[str, Path]:
    """By what a stage makes, but for curves of losses, which also say where a run resumed: its folder."""
    return {
        name: done.parent
        for done in store.glob("cache/*/done.json")
        for name in json.loads(done.read_text())["digests"]
        if not name.endswith(".losses")
    }


def digests(store: Path) -> dict[str, str]:
    return {name: json.loads((at / "done.json").read_text())["digests"][name] for name, at in made(store).items()}


class Stop(BaseException):
    """Ends a run as a kill would."""


def run_with_kills(payload: Payload, session: LocalSession) -> list[tuple[str, int]]:
    """The run of a payload, killed once in every stage, in BRNF's network in each of its phases; where that was: at a
    step of T, or before a file is written."""
    recipe, places = recipe_of(payload.run), []
    for stage in recipe.stages:
        before = steps_before(payload.run, recipe, stage)
        if not isinstance(stage, Train):
            places.append((stage.name, 2))
        elif stage.name == "train" and payload.run.method == "cam+brnf":
            places += [(stage.name, before + at) for at in PHASES]
        else:
            places.append((stage.name, before + run_of(payload.run, stage).own_steps - 1))
    for name, at in places:
        trains = isinstance(recipe.stage(name), Train)
        with pytest.MonkeyPatch.context() as patch:
            _kill(patch, name, at, trains=trains)
            try:
                execute(payload, session)
            except Stop:
                continue
            raise AssertionError(f"stage {name} never came to {at}")
    execute(payload, session)
    return places


def _kill(patch: pytest.MonkeyPatch, stage: str, at: int, *, trains: bool) -> None:
    report, write = Context.report_progress, per_image.write_bytes
    now, written = [""], []

    def reported(self: Context, name: str, step: int, total: int, losses: Any = None) -> None:
        report(self, name, step, total, losses)
        now[0] = name
        if trains and name == stage and step >= at:
            raise Stop

    def counted(path: Path, content: bytes, *, sync: bool = True) -> None:
        if not trains and now[0] == stage:
            if len(written) == at:
                raise Stop
            written.append(path)
        write(path, content, sync=sync)

    patch.setattr(Context, "report_progress", reported)
    patch.setattr(per_image, "write_bytes", counted)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["sipe", "cam+brnf"])
def test_killed_in_every_stage_and_phase_and_resumed_to_the_same_bytes(method: str, tmp_path: Path) -> None:
    whole, broken = (payload_of(method, tmp_path / name) for name in ("whole", "broken"))
    execute(whole, LocalSession())
    places = run_with_kills(broken, LocalSession())
    assert {stage for stage, _ in places} == {stage.name for stage in recipe_of(whole.run).stages}
    assert digests(tmp_path / "broken") == digests(tmp_path / "whole")
    assert digest(tmp_path / "broken", broken) == digest(tmp_path / "whole", whole)
    if method == "cam+brnf":
        held = load_file(made(tmp_path / "broken")["network"] / "weights.safetensors")
        assert int(held["bank.filled_K"].sum()) > 0, "regions were kept"
        assert float(held["bank.aug_weight_KS"].sum()) > 0, "samples were drawn"
        assert all(int((held[f"{flow}.seen_K"] > 0).sum()) >= 2 for flow in ("f1", "f2")), "both densities learned"


def _work(rank: int, method: str, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    execute(payload_of(method, folder / "two"), LocalSession(rank=rank, world_size=2))
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["irn", "sipe"])
def test_two_workers_agree_with_one(method: str, tmp_path: Path) -> None:
    """Weights up to the order of sums, and with them maps, masks and scores."""
    one = payload_of(method, tmp_path / "one")
    execute(one, LocalSession())
    # Spawned: this process has used polars, whose threads a fork would wait for.
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_work, args=(rank, method, tmp_path)) for rank in range(2)]
    for p in processes:
        p.start()
    for p in processes:
        p.join(timeout=300)
    assert [p.exitcode for p in processes] == [0, 0]
    ours, theirs = made(tmp_path / "one"), made(tmp_path / "two")
    assert set(ours) == set(theirs)
    for name in ("network", "affinity", "segmenter"):
        first, second = (load_file(of[name] / "weights.safetensors") for of in (ours, theirs))
        assert all(torch.allclose(first[k], second[k], rtol=1e-3, atol=1e-4) for k in first), name
    for name in ("ir-labels", "masks"):
        files = sorted((ours[name] / "files").iterdir())
        assert [f.name for f in files] == sorted(f.name for f in (theirs[name] / "files").iterdir())
        same = [np.asarray(Image.open(f)) == np.asarray(Image.open(theirs[name] / "files" / f.name)) for f in files]
        assert np.mean([s.mean() for s in same]) > 0.999, name
    scores = [objective(tmp_path / name, payload) for name, payload in (("one", one), ("two", one))]
    assert scores[0] == pytest.approx(scores[1], abs=0.02)


def objective(store: Path, payload: Payload) -> float:
    """Share of right pixels of the segmentation on the reported split."""
    results = harness.store.load(store)
    mine = results.evals.filter(
        pl.col("key") == payload.key, pl.col("target") == "segmentation", pl.col("split") == "test"
    )
    counts = results.counts.join(mine.select("eval"), on="eval")
    return float(counts["tp"].sum() / (counts["tp"].sum() + counts["fp"].sum()))
