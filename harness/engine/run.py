"""One run from payload to store: the function that a Tune actor, a Train worker or this process calls."""

from __future__ import annotations

import dataclasses
import gc
import json
import math
import resource
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import polars as pl
import torch

from harness.api.spec import resolve
from harness.datasets import open_dataset
from harness.datasets.splits import plan_splits
from harness.engine.checkpoint import RESUMED_AT, Artifact
from harness.engine.context import Context
from harness.engine.heartbeat import Heartbeat
from harness.engine.inference.examples import write_examples
from harness.engine.inference.score import Tables, score_run
from harness.engine.parallel import barrier
from harness.engine.phases import Phases
from harness.engine.session import Session
from harness.engine.stages.stage import clean, kept, run_stages
from harness.plan.config import RunConfig
from harness.plan.payload import Payload
from harness.plan.studies import Outcome
from harness.store import Store
from harness.store.files import write_atomic
from harness.store.rows import param_rows
from harness.store.schema import conform


def execute(payload: Payload, session: Session) -> Outcome:
    """Execute one run and write it to the store; every exception but a stop passes to the caller's fault classes.

    Every worker of the run calls this; the first one writes.
    """
    phases = Phases()
    started = datetime.now(UTC)
    with phases.of("start"):
        _fresh_state(session, payload.machine.threads)
        context = open_context(payload, session, phases)
    if session.device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
    context.report_progress("start", 0, context.run.total)
    context.check_data()
    base: dict[str, Any] = {
        "train": payload.data.train,
        "weights": context.machine.weights_digest,
        "versions": payload.versions,
        "images": payload.data.images,
    }
    stages = resolve(context.run.chosen.trained.recipe)(context.run)
    with context.in_use:
        outputs = run_stages(stages, context, base)
        method = context.trained(outputs["weights"])
        with phases.of("score"):
            method.eval()
            tables = score_run(context, method, outputs)
        if session.rank == 0:
            with phases.of("store"):
                _write(context, method, outputs, tables, payload, phases, started)
                clean(context, outputs)
                shutil.rmtree(context.store.work(context.key), ignore_errors=True)
    barrier(session)
    objective = tables.objective
    if not math.isfinite(objective):
        raise ValueError(
            f"the objective of {context.run.method} is {objective}: no image of the tuning split has a "
            "label that counts"
        )
    return Outcome(status="done", objective=objective)


def open_context(payload: Payload, session: Session, phases: Phases) -> Context:
    """The run that a payload describes, with its data opened."""
    run, machine, key = payload.run, payload.machine, payload.key
    options = {k: v for k, v in run.options.items() if k != "tune"}
    dataset = open_dataset(
        run.dataset, root=machine.data_root, masks=run.masks, classes=machine.classes_file, options=options
    )
    splits = plan_splits(dataset, run.options.get("tune", "auto"), machine.protocol, report=run.split)
    if machine.low_memory:
        run = dataclasses.replace(run, group=_smaller_group(run))
    store = Store(machine.store)
    heartbeat = Heartbeat(store.work(key))
    return Context(run, key, machine, dataset, splits, session, phases, heartbeat, store, payload.data, payload.origin)


def _smaller_group(run: RunConfig) -> int:
    """The largest group below the run's that still divides it, so that whole groups fill the batch."""
    return next(g for g in range(max(1, run.group // 2), 0, -1) if run.group % g == 0)


def _write(
    context: Context,
    method: Any,
    outputs: Mapping[str, Artifact],
    tables: Tables,
    payload: Payload,
    phases: Phases,
    started: datetime,
) -> None:
    """All tables of a run; `runs` comes last and makes the others count."""
    key, store = context.key, context.store
    artifacts = [
        {"key": key, "kind": name, "path": str(a.path.relative_to(store.root)), "digest": a.digest}
        for name, a in outputs.items()
        if name == "weights" and kept(context, name)
    ]
    artifacts += write_examples(context, method)
    losses = pl.read_parquet(outputs["steps"].path, glob=False) if "steps" in outputs else pl.DataFrame()
    frames = {
        "evals": pl.DataFrame(tables.evals),
        "counts": pl.concat(tables.counts),
        "params": param_rows(key, payload.run.knobs, payload.run.base_knobs, method.describe()),
    }
    if tables.curves:
        frames["curves"] = pl.concat(tables.curves)
    if losses.height:
        frames["steps"] = losses.with_columns(key=pl.lit(key), stage=pl.lit("train")).select(
            "key", "stage", "step", "name", "value"
        )
    if artifacts:
        frames["artifacts"] = pl.DataFrame(artifacts)
    for table, frame in frames.items():
        _replace(store, table, key, frame)
    cuda = context.session.device.startswith("cuda")
    earlier = context.heartbeat.earlier
    wall = earlier + sum(phases.seconds.values())
    peak = torch.cuda.max_memory_allocated() if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    seconds = {k: round(v, 4) for k, v in phases.seconds.items()} | ({"earlier": round(earlier, 4)} if earlier else {})
    lost = max(0, _reached(context.heartbeat.before) - _resumed_at(outputs))
    row = payload.row(
        "done",
        started=started.isoformat(),
        seconds=json.dumps(seconds),
        device=torch.cuda.get_device_name() if cuda else "cpu",
        world_size=context.session.world_size,
        gpu_seconds=wall * context.session.world_size * payload.gpus if cuda else 0.0,
        peak_memory=int(peak),
        steps_lost=lost,
        # Shown and never ranked: the retry after running out of memory normalised over other groups.
        error_class="oom" if context.machine.low_memory else "",
        error_message=f"ran with groups of {context.run.group}" if context.machine.low_memory else "",
    )
    store.write("runs", key, pl.DataFrame([row]), again=True)


def _replace(store: Store, table: str, key: str, frame: pl.DataFrame) -> None:
    """Write a run's table over that of an earlier attempt: the newest one counts.

    In one rename, because another process may be at the same key (a second sweep, a worker that outlived its driver)
    and the run may be done already: at no moment does it stand without its counts.
    """
    path = store.path(table, key)
    # Only done runs are merged into larger files, and equal keys mean equal numbers.
    if path.exists() or not store.has(table, key):
        write_atomic(conform(table, frame), path)


def _resumed_at(outputs: Mapping[str, Artifact]) -> int:
    """The step at which the last attempt at training began; 0 for stages that keep no losses."""
    if "steps" not in outputs:
        return 0
    return int(pl.read_parquet_metadata(outputs["steps"].path).get(RESUMED_AT, 0))


def _reached(heartbeat: Mapping[str, Any]) -> int:
    """The training step of the last heartbeat of an earlier attempt; 0 where there was none."""
    return int(heartbeat.get("step", 0)) if heartbeat.get("stage") in ("train", "rung") else 0


def _fresh_state(session: Session, threads: int) -> None:
    """Undo what an earlier trial of the same process may have left behind."""
    gc.collect()
    torch.set_num_threads(threads)
    torch.set_default_dtype(torch.float32)
    torch.set_grad_enabled(True)
    if session.device.startswith("cuda"):
        torch.cuda.empty_cache()
