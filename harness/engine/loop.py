"""The one training loop: groups, reductions, schedules, checkpoints. It knows neither Ray nor any method."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.api.method import Batch, Method, OptimizerPlan, Progress
from harness.engine import checkpoint
from harness.engine.gradients import Gradients
from harness.engine.leaving import NOTICE, Left
from harness.engine.parallel import barrier, reduce_gradients, reduce_losses, reduce_stats
from harness.engine.phases import Phases
from harness.engine.session import Session
from harness.errors import NonFiniteLoss, StoreError

LOG_POINTS = 200
"""Loss values kept per run and term."""
CHECKPOINT_SECONDS = 30.0
CHECKPOINT_SHARE = 0.02
"""Of the wall time, at most, that goes into saving: a checkpoint that takes 3 s is made every 150 s."""


@dataclass
class LoopConfig:
    """What the loop needs to know besides the method."""

    total: int
    seed: int
    groups: int
    """Groups in the global batch."""
    precision: str
    folder: Path
    """Where checkpoints of this run in progress lie."""
    checkpoint_every: int | None = None
    """Steps; None means about every 30 seconds, and more rarely where saving takes long."""
    together: int | None = None
    """Groups whose passes run at once where the method takes several; None: as many as fit on a GPU, one on the CPU."""
    rungs: Mapping[int, float] | None = None
    """By steps done: the share of the run's T that is reported there; None: those of the session, of a run of one
    network."""


@dataclass
class Trained:
    """What training leaves behind besides the method itself."""

    steps: list[tuple[int, str, float]] = field(default_factory=list)
    """(step, loss term or logged value, value): means over all groups."""
    logged: set[str] = field(default_factory=set)
    """Names in `steps` that are no loss terms."""
    resumed_at: int = 0


def train(
    method: Method,
    make_loader: Callable[[int], Iterable[list[Batch]]],
    config: LoopConfig,
    session: Session,
    phases: Phases,
    *,
    report_progress: Callable[[int, dict[str, float]], None],
    evaluate: Callable[[int], float] | None = None,
) -> Trained:
    """Run the loop from the newest checkpoint to the end.

    `make_loader(start_step)` yields this rank's groups for each further step. At each rung
    (`LoopConfig.rungs`) the objective is reported, which `evaluate(steps done)` finds. Raises NonFiniteLoss with step,
    term and the saved batch; Left, with a checkpoint of the step before, where it is told to leave.
    """
    plans = method.optimizers()
    initial = [[g["lr"] for g in plan.optimizer.param_groups] for plan in plans]
    result = Trained()
    with phases.of("checkpoint"):
        meta = checkpoint.load_training(config.folder, method, plans, session)
    if meta:
        result.resumed_at = int(meta["step"])
        result.steps = [(int(s), str(n), float(v)) for s, n, v in meta["losses"]]
    saved_at, saving = time.perf_counter(), 0.0
    every = max(1, config.total // LOG_POINTS)
    usual = {max(1, round(r * config.total)): r for r in session.rungs}
    rungs = usual if config.rungs is None else config.rungs
    waiting: deque[_Pending] = deque()

    def settle(left: int = 0) -> None:
        """Look at the losses of all but the newest `left` steps, log them and tell whoever watches."""
        while len(waiting) > left:
            one = waiting.popleft()
            values = one.check(config.folder, session)
            kept = one.step % every == 0 or one.step == config.total - 1
            result.steps.extend((one.step, n, v) for n, v in values.items() if kept)
            report_progress(one.step + 1, {n: v for n, v in values.items() if kept and n not in result.logged})

    method.train()
    gradients = Gradients(method, session, config.seed, config.groups, config.precision, config.together)
    batches = iter(make_loader(result.resumed_at))
    for step in range(result.resumed_at, config.total):
        with phases.of("data"):
            groups = [_to_device(b, session.device) for b in next(batches)]
        with phases.of("views"):
            groups = [method.on_device(group) for group in groups]
        progress = Progress(step, config.total)
        with phases.of("method"):
            found = gradients.of(groups, progress)
        result.logged |= found.logged
        with phases.of("engine"):
            told = reduce_gradients(method, session, NOTICE.told())
            waiting.append(_Pending(step, found.names, *_to_host(reduce_losses(found.values, session)), groups))
            settle(left=0 if waiting[-1].ready is None else 1)
        with phases.of("method"):
            _optimise(plans, initial, progress)
        with phases.of("engine"):
            reduced = reduce_stats(found.stats, method.stats_concat, session)
        with phases.of("method"):
            method.update(reduced, progress)
        done = step + 1
        leaves = told and done < config.total
        due = leaves or (done < config.total and _due(done, config, saved_at, saving))
        rung = done in rungs and evaluate is not None
        if rung or due:
            settle()
        if rung and evaluate is not None:
            with phases.of("score"):
                objective = evaluate(done)
                method.train()
            session.report(rungs[done], objective)
        if due:
            with phases.of("checkpoint"):
                began = time.perf_counter()
                if session.rank == 0:
                    checkpoint.save_training(config.folder, method, plans, _meta(done, config, result))
                saved_at = time.perf_counter()
                saving = saved_at - began
        if leaves:
            # Of several workers the others end only once the first has written.
            barrier(session)
            raise Left(f"told to leave, it wrote a checkpoint at step {done} of {config.total}: no step is lost")
    settle()
    barrier(session)
    return result


def _meta(done: int, config: LoopConfig, result: Trained) -> dict[str, Any]:
    return {"step": done, "total": config.total, "seed": config.seed, "losses": result.steps}


def _due(done: int, config: LoopConfig, saved_at: float, saving: float) -> bool:
    if config.checkpoint_every is not None:
        return done % config.checkpoint_every == 0
    return time.perf_counter() - saved_at > max(CHECKPOINT_SECONDS, saving / CHECKPOINT_SHARE)


def _optimise(plans: Sequence[OptimizerPlan], initial: Sequence[Sequence[float]], progress: Progress) -> None:
    for plan, rates in zip(plans, initial, strict=True):
        if not plan.active(progress):
            continue
        factor = plan.factor(progress.step)
        for group, rate in zip(plan.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * factor
        if plan.clip_norm is not None:
            params = [p for g in plan.optimizer.param_groups for p in g["params"]]
            torch.nn.utils.clip_grad_norm_(params, plan.clip_norm)
        plan.optimizer.step()


def _to_host(losses: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
    """The losses where the host can read them, and what it has to wait for: nothing on the CPU.

    From a GPU the copy is queued right behind the work that makes them. Asked for later it would be queued behind the
    next step, and reading them would drain the GPU at every step.
    """
    if losses.device.type != "cuda":
        return losses, None
    host = torch.empty_like(losses, device="cpu", pin_memory=True)
    host.copy_(losses, non_blocking=True)
    ready = torch.cuda.Event()
    ready.record(torch.cuda.current_stream(losses.device))
    return host, ready


@dataclass
class _Pending:
    """A step whose losses have not been looked at yet: looking one step later keeps a GPU from waiting."""

    step: int
    names: list[str]
    losses: Tensor
    ready: torch.cuda.Event | None
    groups: Sequence[Batch]

    def check(self, folder: Path, session: Session) -> dict[str, float]:
        """The losses by term. Raises NonFiniteLoss if one is not finite; the batch is saved beside the checkpoints."""
        if self.ready is not None:
            self.ready.synchronize()
        values = dict(zip(self.names, self.losses.tolist(), strict=True))
        bad = [n for n, v in values.items() if not math.isfinite(v)]
        if not bad:
            return values
        saved = _save_batch(folder / f"nonfinite-step{self.step}-rank{session.rank}.safetensors", self.groups)
        shown = ", ".join(f"{n}={v:.4g}" for n, v in values.items())
        ids = ", ".join(i for g in self.groups for i in g.ids)
        raise NonFiniteLoss(
            f"step {self.step}: loss term {' and '.join(bad)} is not finite ({shown}). Images: {ids}. "
            f"The batch {saved}; lower the learning rate or look at these images."
        )


def _save_batch(path: Path, groups: Sequence[Batch]) -> str:
    """Save a batch and say where; a disk that is full as well must not hide which loss failed."""
    tensors: dict[str, Tensor] = {}
    for g, group in enumerate(groups):
        tensors[f"{g}.tags_BC"] = group.tags_BC
        tensors.update({f"{g}.{name}": view for name, view in {**group.extra, **group.views}.items()})
        if group.label_BHW is not None:
            tensors[f"{g}.label_BHW"] = group.label_BHW
    try:
        checkpoint.write_tensors(path, tensors, {str(g): " ".join(group.ids) for g, group in enumerate(groups)})
    except StoreError:
        # Without the system's words: they would class the run as one that only lacked room.
        return f"is not saved, {path} could not be written"
    return f"is saved in {path}"


def _to_device(batch: Batch, device: str) -> Batch:
    return batch if device == "cpu" else batch.to(device)
