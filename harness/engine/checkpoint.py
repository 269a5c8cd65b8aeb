"""Checkpoints: safetensors for tensors, JSON for the rest, written whole or not at all, read only when undamaged.

Schedules, RNG and data position are pure functions of (seed, step), so the step restores them.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from harness.api.method import Method, OptimizerPlan
from harness.engine.parallel import gather_objects
from harness.engine.saying import say
from harness.engine.session import LocalSession, Session
from harness.errors import StoreError
from harness.files import TMP_SUFFIX, atomic, file_digest, way_out

PREFIX = "step-"
DIGESTS = "digests.json"
KEPT = 2
"""Checkpoints that stay: an older one to go back to where the newest is damaged."""
WRITE_ERRORS = (OSError, SafetensorError)
"""What a full or unwritable disk raises: safetensors has a class of its own, which is no OSError."""


def save_training(folder: Path, method: Method, plans: Sequence[OptimizerPlan], meta: Mapping[str, Any]) -> None:
    """Write model, optimisers and `meta` (with `step`, the steps already done) as `<folder>/step-<n>`.

    The digest of each file lies beside them; the newest KEPT checkpoints stay. Raises StoreError on a full or
    unwritable disk, leaving the checkpoints before.
    """
    target = folder / f"{PREFIX}{meta['step']:08d}"
    try:
        with atomic(target) as tmp:
            tmp.mkdir()
            _write_tensors(tmp / "model.safetensors", method.state_dict())
            for i, plan in enumerate(plans):
                tensors, rest = _flatten_optimizer(plan.optimizer)
                _write_tensors(tmp / f"optimizer-{i}.safetensors", tensors)
                (tmp / f"optimizer-{i}.json").write_text(json.dumps(rest))
            (tmp / "meta.json").write_text(json.dumps(dict(meta)))
            (tmp / DIGESTS).write_text(json.dumps({p.name: file_digest(p) for p in sorted(tmp.iterdir())}))
    except WRITE_ERRORS as e:
        text = f"no checkpoint could be written to {target}: {e}; {way_out(e)} from the checkpoint before"
        raise StoreError(text) from e
    for old in found_checkpoints(folder)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)


def load_training(
    folder: Path, method: Method, plans: Sequence[OptimizerPlan], session: Session | None = None
) -> dict[str, Any] | None:
    """Restore the newest sound checkpoint and return its meta, or None where there is none.

    Every file is held against its digest. Damaged checkpoints are removed, with one line that says what is taken
    instead. All workers of `session` take the same one: the newest that is sound for each of them.
    """
    session = session or LocalSession()
    if session.rank == 0:
        for left in folder.glob(f".{PREFIX}*{TMP_SUFFIX}"):
            # Of a process that was killed while it wrote: nobody else writes here now.
            shutil.rmtree(left, ignore_errors=True)
    paths = gather_objects(found_checkpoints(folder), session)[0]
    while paths:
        path = paths.pop()
        read, why = _read(path, len(plans))
        damages = [w for w in gather_objects(why, session) if w]
        if read is not None and not damages:
            method.load_state_dict(read.tensors)
            for plan, (flat, rest) in zip(plans, read.optimizers, strict=True):
                _restore_optimizer(plan.optimizer, flat, rest)
            return read.meta
        if session.rank == 0:
            instead = f"the one of step {_step_of(paths[-1])} is taken" if paths else "training starts anew"
            say(f"checkpoint {path} is damaged ({damages[0]}): {instead}")
            shutil.rmtree(path, ignore_errors=True)
    return None


@dataclass(frozen=True)
class _Read:
    meta: dict[str, Any]
    tensors: dict[str, Tensor]
    optimizers: list[tuple[dict[str, Tensor], dict[str, Any]]]


def _read(path: Path, optimizers: int) -> tuple[_Read | None, str]:
    """A checkpoint whose files are what was written; else None and what is wrong with it."""
    try:
        digests = json.loads((path / DIGESTS).read_text())
        for name, digest in digests.items():
            if file_digest(path / name) != digest:
                return None, f"{name} is not what was written"
        states = [
            (load_file(path / f"optimizer-{i}.safetensors"), json.loads((path / f"optimizer-{i}.json").read_text()))
            for i in range(optimizers)
        ]
        return _Read(json.loads((path / "meta.json").read_text()), load_file(path / "model.safetensors"), states), ""
    except (OSError, ValueError, AttributeError, SafetensorError) as e:
        return None, (str(e).splitlines() or [type(e).__name__])[0]


def _step_of(path: Path) -> int:
    return int(path.name.removeprefix(PREFIX))


def save_weights(path: Path, method: Method, meta: Mapping[str, str]) -> str:
    """Write a method's state dict as safetensors and return its digest. Raises StoreError as `write_tensors`."""
    write_tensors(path, method.state_dict(), meta)
    return file_digest(path)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, str]) -> None:
    """Write named tensors as safetensors, whole or not at all. Raises StoreError on a full or unwritable disk."""
    try:
        with atomic(path) as tmp:
            _write_tensors(tmp, tensors, meta)
    except WRITE_ERRORS as e:
        raise StoreError(f"{path} could not be written: {e}; {way_out(e)}") from e


def load_weights(path: Path, method: Method) -> None:
    """Load a state dict written by `save_weights`; every key must match."""
    method.load_state_dict(load_file(path))


def weights_meta(path: Path) -> dict[str, str]:
    """The metadata of a weights file."""
    with safe_open(path, "pt") as f:
        return dict(f.metadata() or {})


def found_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a run in progress, the newest last."""
    return sorted(p for p in folder.glob(PREFIX + "*") if p.is_dir())


def _write_tensors(path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, str] | None = None) -> None:
    """Tensors that share memory are written once each, because safetensors refuses aliases."""
    save_file(
        {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()},
        path,
        metadata=dict(meta) if meta else None,
    )


def _flatten_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    state = optimizer.state_dict()
    tensors: dict[str, Tensor] = {}
    rest: dict[str, Any] = {"scalars": {}}
    for index, values in state["state"].items():
        for name, value in values.items():
            key = f"{index}.{name}"
            if isinstance(value, Tensor):
                tensors[key] = value
            else:
                rest["scalars"][key] = value
    return tensors, rest


def _restore_optimizer(optimizer: torch.optim.Optimizer, flat: Mapping[str, Tensor], rest: Mapping[str, Any]) -> None:
    state: dict[int, dict[str, Any]] = {}
    for key, value in [*flat.items(), *rest["scalars"].items()]:
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = value
    # Groups come from the freshly built optimiser: learning rates are a function of the step, not state.
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


@dataclass(frozen=True)
class Artifact:
    """A file or folder that a stage wrote, with the digest of its content."""

    path: Path
    digest: str

    @property
    def kind(self) -> str:
        """network, losses (of its training), or files of images."""
        return kind_of(self.path.name)


def kind_of(file: str) -> str:
    """network, losses or files: what an output of this name holds."""
    return {WEIGHTS: "network", STEPS: "losses"}.get(file, "files")


WEIGHTS = "weights.safetensors"

STEPS = "steps.parquet"

RESUMED_AT = "resumed_at"
"""Metadata of the file of losses: the step at which the attempt began that finished training."""

BEST = "best.safetensors"
"""Weights of the rung with the highest objective: beside the final ones, where a run had rungs and keeps `best`."""


def keep_best(path: Path, method: Method, objective: float, step: int) -> None:
    """Write the weights of a rung unless those that are there, also of an attempt that was killed, scored as high.

    The file itself says what they scored, after how many steps, and the digest of its tensors: nothing beside it can
    disagree with it.
    """
    # What a power cut left of a file is no rival.
    before = float((best_meta(path) or {}).get("objective", -math.inf))
    if objective > before:
        tensors = method.state_dict()
        meta = {"objective": repr(objective), "step": str(step), "tensors": _tensors_digest(tensors)}
        write_tensors(path, tensors, meta)


def best_meta(path: Path) -> dict[str, str] | None:
    """What `keep_best` wrote beside its tensors; None where there is no such file or it is damaged."""
    try:
        meta, tensors = weights_meta(path), load_file(path)
    except (OSError, SafetensorError):
        return None
    # Files of earlier versions carry no digest.
    return meta if meta.get("tensors") in (None, _tensors_digest(tensors)) else None


def _tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """The first 20 hex digits of the SHA-256 of named tensors: names, types, shapes and bytes."""
    hasher = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        values = tensor.detach().cpu().contiguous()
        hasher.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
        hasher.update(values.flatten().view(torch.uint8).numpy().data)
    return hasher.hexdigest()[:20]
