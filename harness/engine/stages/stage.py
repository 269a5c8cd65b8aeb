"""Stages: steps of a recipe with typed inputs and outputs, cached under the key of what they read."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from harness.engine.checkpoint import Artifact
from harness.engine.context import Context
from harness.engine.parallel import barrier, gather_objects
from harness.errors import HarnessError, StoreError
from harness.files import digest_of, file_digest
from harness.plan.config import INFERENCE_FIELDS, RunConfig

DONE = "done.json"
TURN, USERS = "lock", "users"
"""Lock files of a stage's folder: of the one process that is at it, and shared by all runs that take files from it."""
KEPT = "kept"
"""Marks a stage's folder that some run keeps: runs that share it and keep nothing leave it alone."""
SCORING_FIELDS = INFERENCE_FIELDS | {"cam_threshold"}
"""Config fields that no stage of training reads: a run that differs in them alone takes the training that is there.
Knobs that only `predict` reads are not told apart from the others."""
POLL_SECONDS = 1.0
"""Between two looks at a stage that another process works on."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One step of a recipe."""

    name: str
    run: Callable[[Context, Mapping[str, Artifact], Path], None]
    """Called as `run(context, inputs, folder)`; leaves each of `outputs` in `folder`."""
    outputs: Mapping[str, str]
    """Name of each output and its file or folder in the stage's folder."""
    inputs: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    """Config fields (dotted: `knobs.mask_ratio`) that it reads; `*` stands for all but those of scoring alone."""
    version: int = 1
    training: bool = False
    """True for stages that read the training split, the pretrained weights and the seed."""


def fields_read(run: RunConfig, reads: Sequence[str]) -> dict[str, Any]:
    """The values of these config fields. Raises HarnessError for a field that does not exist."""
    values = run.to_dict()
    if "*" in reads:
        return {name: value for name, value in values.items() if name not in SCORING_FIELDS}
    out = {}
    for name in reads:
        at: Any = values
        for part in name.split("."):
            if not isinstance(at, dict) or part not in at:
                raise HarnessError(f"a stage reads {name!r}, which the config of {run.method} does not have")
            at = at[part]
        out[name] = at
    return out


def stage_key(stage: Stage, context: Context, inputs: Mapping[str, Artifact], base: Mapping[str, Any]) -> str:
    """Digest of what decides a stage's output: fields read, versions, inputs' digests, data and weights."""
    identity: dict[str, Any] = {
        "stage": stage.name,
        "version": stage.version,
        "fields": fields_read(context.run, stage.reads),
        "inputs": {k: inputs[k].digest for k in stage.inputs},
    }
    if stage.training:
        versions = {name: version for name, version in base["versions"].items() if name != "scoring"}
        identity.update({**base, "versions": versions})
    else:
        identity["images"] = digest_of([*context.splits.tune, "|", *context.splits.report])
    return digest_of(identity)


def run_stages(stages: Sequence[Stage], context: Context, base: Mapping[str, Any]) -> dict[str, Artifact]:
    """Run a recipe's stages in order, taking finished ones from the cache; returns all outputs by name.

    `base` holds what training stages add to their key: train fingerprint, weights digest, versions. A stage that
    another process works on is waited for.
    """
    done: dict[str, Artifact] = {}
    for stage in stages:
        missing = [n for n in stage.inputs if n not in done]
        if missing:
            raise HarnessError(f"stage {stage.name} needs {missing}, which no stage before it makes")
        folder = context.store.root / "cache" / stage_key(stage, context, done, base)
        with _turn(folder, context, stage.name):
            # The first worker decides for all: between two looks another process may finish the stage.
            found = gather_objects(_finished(folder, stage), context.session)[0]
            if context.session.rank == 0:
                _use(folder, stage, context)
            if found is None:
                stage.run(context, {n: done[n] for n in stage.inputs}, folder)
                barrier(context.session)
                if context.session.rank == 0:
                    _finish(folder, stage)
                barrier(context.session)
                found = _finished(folder, stage)
        if found is None:
            raise HarnessError(f"stage {stage.name} did not leave {list(stage.outputs.values())} in {folder}")
        done.update(found)
    return done


def kept(context: Context, name: str) -> bool:
    """Whether `keep` names this output; the curve of losses goes with the weights."""
    keep = set(context.machine.keep)
    wanted = {"last", "best"} if name in ("weights", "steps") else {"maps"}
    return "none" not in keep and bool(keep & wanted)


def clean(context: Context, outputs: Mapping[str, Artifact]) -> None:
    """Drop what `keep` does not name, once a run is in the store.

    What another process is at or still reads is left to that one, and what another run keeps stays.
    """
    context.in_use.close()
    for name, artifact in outputs.items():
        folder = artifact.path.parent
        if name == "steps" or not folder.is_dir() or (folder / KEPT).exists():
            continue
        with ExitStack() as closing:
            for lock in (TURN, USERS):
                handle = _lock(folder, lock)
                if handle is None:
                    break
                closing.enter_context(handle)
            else:
                shutil.rmtree(folder, ignore_errors=True)


def artifact_digest(path: Path) -> str:
    """Digest of a file, or of a folder's file names and contents."""
    if path.is_file():
        return file_digest(path)
    return digest_of({str(p.relative_to(path)): file_digest(p) for p in sorted(path.rglob("*")) if p.is_file()})


def _finished(folder: Path, stage: Stage) -> dict[str, Artifact] | None:
    try:
        digests = json.loads((folder / DONE).read_text())
    except (OSError, ValueError):
        return None
    found = {name: Artifact(folder / path, digests.get(name, "")) for name, path in stage.outputs.items()}
    return found if all(a.digest and a.path.exists() for a in found.values()) else None


def _finish(folder: Path, stage: Stage) -> None:
    digests = {}
    for name, path in stage.outputs.items():
        if not (folder / path).exists():
            return
        digests[name] = artifact_digest(folder / path)
    tmp = folder / f".{DONE}.{os.getpid()}.tmp"
    tmp.write_text(json.dumps(digests))
    os.rename(tmp, folder / DONE)


@contextmanager
def _turn(folder: Path, context: Context, stage: str) -> Iterator[None]:
    """Hold a stage's folder: trials that share a stage, and workers left over from a killed driver, take turns.

    The first worker holds the lock. All of them look for it together again and again: peers that waited in one
    collective for hours would run into its time limit.
    """
    while True:
        handle = _lock(folder) if context.session.rank == 0 else None
        if gather_objects(handle is not None, context.session)[0]:
            break
        context.beat(f"waiting for {stage}", 0, context.run.total)
        time.sleep(POLL_SECONDS)
    with handle or nullcontext():
        yield


def _use(folder: Path, stage: Stage, context: Context) -> None:
    """Keep others from removing a stage's folder until this run ends, and for good where `keep` says so."""
    handle = _lock(folder, USERS, fcntl.LOCK_SH)
    if handle is None:
        raise StoreError(f"{folder} is removed by another process while this one holds {TURN}")
    context.in_use.enter_context(handle)
    if any(kept(context, name) for name in stage.outputs):
        (folder / KEPT).touch()


def _lock(folder: Path, name: str = TURN, how: int = fcntl.LOCK_EX) -> IO[str] | None:
    """The open, locked lock file of a stage's folder, which closing unlocks; None while another process holds it."""
    path = folder / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as closing:
            handle = closing.enter_context(open(path, "w"))
            fcntl.flock(handle, how | fcntl.LOCK_NB)
            # The holder before may have removed the folder (keep=none): a lock on a file that is gone binds nobody.
            if os.fstat(handle.fileno()).st_ino == path.stat().st_ino:
                closing.pop_all()
                return handle
    except (BlockingIOError, FileNotFoundError):
        return None
    except OSError as e:
        raise StoreError(f"cannot write into {folder}: {e}") from e
    return None
