"""One run from payload to store: the function that a Tune actor, a Train worker or this process calls."""

from __future__ import annotations

import dataclasses
import gc
import json
import math
import resource
import shutil
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any

import polars as pl
import torch

from harness.api.recipe import maps_kind, weights_kind
from harness.datasets import open_dataset
from harness.datasets.splits import plan_splits
from harness.engine.checkpoint import RESUMED_AT
from harness.engine.context import Context
from harness.engine.heartbeat import Heartbeat
from harness.engine.inference.examples import write_examples
from harness.engine.inference.score import Tables, score_run, stored_objective
from harness.engine.leaving import NOTICE, Left
from harness.engine.parallel import barrier, gather_objects
from harness.engine.phases import Phases
from harness.engine.session import Session
from harness.engine.stages.recipe import run_recipe
from harness.engine.stages.stage import clean, kept
from harness.engine.stages.train import RUNG, losses_of
from harness.engine.turns import TURN, turn
from harness.files import discard
from harness.plan.payload import Payload
from harness.plan.recipes import recipe_of, steps_before
from harness.plan.studies import Outcome
from harness.store import MissingRows, Store, latest_runs
from harness.store.files import write_atomic
from harness.store.reading import load_of
from harness.store.rows import BY_STAGE, REUSED, param_rows
from harness.store.schema import conform


def execute(payload: Payload, session: Session) -> Outcome:
    """Execute one run and write it to the store; every exception but a stop passes to the caller's fault classes.

    Every worker of the run calls this; the first one writes. Of processes at the same key (a second sweep on the store,
    a worker that outlived its driver) one runs, and the others answer what it stored.
    """
    work = Store(payload.machine.store).work(payload.key)
    # Whoever waits is silent: the heartbeat is that of the process that runs.
    with turn(work, session, partial(_leave_if_told, session)):
        try:
            return _execute(payload, session)
        finally:
            if session.rank == 0:
                discard(work / TURN)
                with suppress(OSError):
                    work.rmdir()


def _leave_if_told(session: Session) -> None:
    if session.world_size == 1 and NOTICE.told():
        raise Left("told to leave while another process was at the same run: no step is lost")


def _execute(payload: Payload, session: Session) -> Outcome:
    phases = Phases()
    started = datetime.now(UTC)
    with phases.of("start"):
        _fresh_state(session, payload.machine.threads)
        context = open_context(payload, session, phases)
        stored = gather_objects(_stored(context) if session.rank == 0 else None, session)[0]
    if stored is not None:
        return Outcome(status="done", objective=stored)
    if session.device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
    context.report_progress("start", 0, context.run.total)
    context.check_data()
    with context.in_use:
        run_recipe(context, payload.versions)
        with phases.of("score"):
            tables = score_run(context)
        # By all workers: one that has to be built for it is built by all.
        fitted = _described(context)
        if session.rank == 0:
            with phases.of("store"):
                _write(context, tables, fitted, payload, phases, started)
                clean(context, context.made)
                shutil.rmtree(context.store.work(context.key), ignore_errors=True)
    barrier(session)
    objective = tables.objective
    if not math.isfinite(objective):
        raise ValueError(
            f"the objective of {context.run.method} is {objective}: no image of the tuning split has a "
            "label that counts"
        )
    return Outcome("done", objective, 1.0, *_told(context, payload))


def _told(context: Context, payload: Payload) -> tuple[str, str]:
    """Error class and message of a finished run: the retry after running out of memory normalised over other groups."""
    if context.run == payload.run:
        return "", ""
    group = context.run.group
    message = f"ran with groups of {group} for want of memory, so it is not ranked; with group={group} it would be"
    return "oom", message


def _stored(context: Context) -> float | None:
    """The objective of this run where another process has finished it since it was planned; else None."""
    store, key = context.store, context.key
    runs = latest_runs(load_of(store.root, ["runs"], keys=[key], evals=[]).runs)
    if runs.is_empty() or runs["status"][0] != "done":
        return None
    target, protocol = context.recipe.targets[-1], context.machine.protocol
    try:
        return stored_objective(store, runs.row(0, named=True), target, context.splits, protocol)
    except MissingRows:
        return None


def open_context(payload: Payload, session: Session, phases: Phases) -> Context:
    """The run that a payload describes, with its data opened."""
    run, machine, key = payload.run, payload.machine, payload.key
    options = {k: v for k, v in run.options.items() if k != "tune"}
    dataset = open_dataset(
        run.dataset, root=machine.data_root, masks=run.masks, classes=machine.classes_file, options=options
    )
    splits = plan_splits(dataset, run.options.get("tune", "auto"), machine.protocol, report=run.split)
    if machine.low_memory:
        networks = {n: {**sizes, "group": _smaller(sizes["group"])} for n, sizes in run.networks.items()}
        run = dataclasses.replace(run, group=_smaller(run.group), networks=networks)
    store = Store(machine.store)
    heartbeat = Heartbeat(store.work(key))
    return Context(
        run,
        recipe_of(run),
        key,
        machine,
        dataset,
        splits,
        session,
        phases,
        heartbeat,
        store,
        payload.data,
        payload.origin,
    )


def _smaller(group: int) -> int:
    """The largest group below this one that still divides it, so that whole groups fill the batch."""
    return next(g for g in range(max(1, group // 2), 0, -1) if group % g == 0)


def _write(
    context: Context, tables: Tables, fitted: dict[str, Any], payload: Payload, phases: Phases, started: datetime
) -> None:
    """All tables of a run; `runs` comes last and makes the others count."""
    key, store, training = context.key, context.store, context.recipe.training
    named = {"network": weights_kind, "files": maps_kind}
    artifacts = [
        {"key": key, "kind": named[a.kind](name), "path": str(a.path.relative_to(store.root)), "digest": a.digest}
        for name, a in context.made.items()
        if a.kind in named and kept(context, name, a.path.name)
    ]
    artifacts += write_examples(context)
    losses = pl.concat(
        pl.read_parquet(context.made[losses_of(s)].path, glob=False).with_columns(stage=pl.lit(s.name))
        for s in training
    )
    frames = {
        "evals": pl.DataFrame(tables.evals),
        "counts": pl.concat(tables.counts),
        "params": param_rows(key, payload.run.knobs, payload.run.base_knobs, fitted),
    }
    if tables.curves:
        frames["curves"] = pl.concat(tables.curves)
    if losses.height:
        frames["steps"] = losses.with_columns(key=pl.lit(key)).select("key", "stage", "step", "name", "value")
    if artifacts:
        frames["artifacts"] = pl.DataFrame(artifacts)
    for table, frame in frames.items():
        _replace(store, table, key, frame)
    cuda = context.session.device.startswith("cuda")
    earlier = context.heartbeat.earlier
    wall = earlier + sum(phases.seconds.values())
    peak = torch.cuda.max_memory_allocated() if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    more = {"earlier": earlier, REUSED: context.reused}
    seconds: dict[str, Any] = {k: round(v, 4) for k, v in phases.seconds.items()}
    seconds |= {k: round(v, 4) for k, v in more.items() if v}
    if len(context.by_stage) > 1:
        seconds[BY_STAGE] = {k: round(v, 4) for k, v in context.by_stage.items()}
    error_class, error_message = _told(context, payload)
    row = payload.row(
        "done",
        started=started.isoformat(),
        seconds=json.dumps(seconds),
        device=torch.cuda.get_device_name() if cuda else "cpu",
        world_size=context.session.world_size,
        gpu_seconds=wall * context.session.world_size * payload.gpus if cuda else 0.0,
        peak_memory=int(peak),
        steps_lost=_steps_lost(context),
        error_class=error_class,
        error_message=error_message,
    )
    store.write("runs", key, pl.DataFrame([row]), again=True)


def _replace(store: Store, table: str, key: str, frame: pl.DataFrame) -> None:
    """Write a run's table over that of an earlier attempt: the newest one counts.

    In one rename: where damage has taken one table of a done run, it never stands without those that it had.
    """
    path = store.path(table, key)
    # Only done runs are merged into larger files, and equal keys mean equal numbers.
    if path.exists() or not store.has(table, key):
        write_atomic(conform(table, frame), path)


def _described(context: Context) -> dict[str, Any]:
    """Values fitted to this size: of the run's first network as they are, of the others by its name."""
    out: dict[str, Any] = {}
    for stage in context.recipe.training:
        prefix = "" if stage is context.recipe.training[0] else f"{stage.network}."
        out |= {f"{prefix}{name}": value for name, value in context.described(stage.network).items()}
    return out


def _steps_lost(context: Context) -> int:
    """Steps that the attempt before had done of the stage that it was at, and that were done again."""
    before, training = context.heartbeat.before, context.recipe.training
    step = int(before.get("step", 0))
    # The stage that it was scoring at a rung of is the one that these steps belong to.
    spans = {s.name: steps_before(context.run, context.recipe, s) for s in training}
    at = [
        s for s in training if before.get("stage") == s.name or (before.get("stage") == RUNG and spans[s.name] < step)
    ]
    if not at:
        return 0
    stage = at[-1]
    resumed = int(pl.read_parquet_metadata(context.made[losses_of(stage)].path).get(RESUMED_AT, 0))
    return max(0, step - spans[stage.name] - resumed)


def _fresh_state(session: Session, threads: int) -> None:
    """Undo what an earlier trial of the same process may have left behind."""
    gc.collect()
    torch.set_num_threads(threads)
    torch.set_default_dtype(torch.float32)
    torch.set_grad_enabled(True)
    if session.device.startswith("cuda"):
        torch.cuda.empty_cache()
