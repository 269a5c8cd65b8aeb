"""Checkpoints: safetensors for tensors, JSON for the rest, written whole or not at all.

Schedules, RNG and data position are pure functions of (seed, step), so the step restores them.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
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
from harness.errors import StoreError
from harness.files import file_digest

PREFIX = "step-"
WRITE_ERRORS = (OSError, SafetensorError)
"""What a full or unwritable disk raises: safetensors has a class of its own, which is no OSError."""


def save_training(folder: Path, method: Method, plans: Sequence[OptimizerPlan], meta: Mapping[str, Any]) -> None:
    """Write model, optimisers and `meta` (with `step`, the steps already done) as `<folder>/step-<n>`.

    Older ones are dropped. Nothing is forced to the disk: a killed process loses nothing, and after a power cut a
    damaged checkpoint is found out and the run starts from an older one or anew. Raises StoreError on a full or
    unwritable disk, leaving the previous checkpoint.
    """
    target = folder / f"{PREFIX}{meta['step']:08d}"
    tmp = folder / f".{target.name}.{os.getpid()}.tmp"
    try:
        tmp.mkdir(parents=True, exist_ok=True)
        _write_tensors(tmp / "model.safetensors", method.state_dict())
        for i, plan in enumerate(plans):
            tensors, rest = _flatten_optimizer(plan.optimizer)
            _write_tensors(tmp / f"optimizer-{i}.safetensors", tensors)
            (tmp / f"optimizer-{i}.json").write_text(json.dumps(rest))
        (tmp / "meta.json").write_text(json.dumps(dict(meta)))
        if target.exists():
            shutil.rmtree(target)
        os.rename(tmp, target)
    except WRITE_ERRORS as e:
        raise StoreError(
            f"no checkpoint could be written to {target}: {e}; free space and run the same command "
            "again, it continues from the checkpoint before"
        ) from e
    finally:
        # Half a checkpoint would keep a full disk full; after the rename there is nothing to remove.
        shutil.rmtree(tmp, ignore_errors=True)
    for old in _found(folder):
        if old != target:
            shutil.rmtree(old, ignore_errors=True)


def load_training(folder: Path, method: Method, plans: Sequence[OptimizerPlan]) -> dict[str, Any] | None:
    """Restore the newest readable checkpoint and return its meta, or None where there is none."""
    for left in folder.glob(f".{PREFIX}*.tmp"):
        # Of a process that was killed while it wrote: nobody else writes here now.
        shutil.rmtree(left, ignore_errors=True)
    for path in reversed(_found(folder)):
        try:
            meta = json.loads((path / "meta.json").read_text())
            tensors = load_file(path / "model.safetensors")
            states = [
                (load_file(path / f"optimizer-{i}.safetensors"), json.loads((path / f"optimizer-{i}.json").read_text()))
                for i in range(len(plans))
            ]
        except (OSError, ValueError, SafetensorError) as e:
            print(f"checkpoint {path} cannot be read ({e}); trying an older one", flush=True)
            continue
        method.load_state_dict(tensors)
        for plan, (flat, rest) in zip(plans, states, strict=True):
            _restore_optimizer(plan.optimizer, flat, rest)
        return dict(meta)
    return None


def save_weights(path: Path, method: Method, meta: Mapping[str, str]) -> str:
    """Write a method's state dict as safetensors and return its digest. Raises StoreError as `write_tensors`."""
    write_tensors(path, method.state_dict(), meta)
    return file_digest(path)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, str]) -> None:
    """Write named tensors as safetensors, whole or not at all. Raises StoreError on a full or unwritable disk."""
    tmp = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_tensors(tmp, tensors, meta)
        os.rename(tmp, path)
    except WRITE_ERRORS as e:
        raise StoreError(f"{path} could not be written: {e}; free space and run the same command again") from e
    finally:
        if tmp.exists():
            tmp.unlink()


def load_weights(path: Path, method: Method) -> None:
    """Load a state dict written by `save_weights`; every key must match."""
    method.load_state_dict(load_file(path))


def weights_meta(path: Path) -> dict[str, str]:
    """The metadata of a weights file."""
    with safe_open(path, "pt") as f:
        return dict(f.metadata() or {})


def _found(folder: Path) -> list[Path]:
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


WEIGHTS = "weights.safetensors"

STEPS = "steps.parquet"

BEST = "best.safetensors"
"""Weights of the rung with the highest objective: beside the final ones, where a run had rungs and keeps `best`."""


def keep_best(path: Path, method: Method, objective: float, step: int) -> None:
    """Write the weights of a rung unless those that are there, also of an attempt that was killed, scored as high.

    The file itself says what they scored and after how many steps: nothing beside it can disagree with it.
    """
    before = -math.inf
    if path.exists():
        # What a power cut left of a file is no rival.
        with contextlib.suppress(SafetensorError):
            before = float(weights_meta(path).get("objective", before))
    if objective > before:
        save_weights(path, method, {"objective": repr(objective), "step": str(step)})
