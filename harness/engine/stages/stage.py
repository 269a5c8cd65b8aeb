"""Stages: steps of a recipe with typed inputs and outputs, cached under the key of what they read."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.engine.checkpoint import Artifact
from harness.engine.context import Context
from harness.engine.parallel import barrier, gather_objects
from harness.errors import BadInput, HarnessError, StoreError
from harness.files import Lease, content_digest, digest_of, plain_words, sync_tree, write_json
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
    values = run.identity()
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
    images = base.get("images") or {}
    if stage.training:
        versions = {name: version for name, version in base["versions"].items() if name != "scoring"}
        identity |= {name: value for name, value in base.items() if name != "images"} | {"versions": versions}
        identity |= {"pixels": images["train"]} if images else {}
    else:
        identity["images"] = digest_of([*context.splits.tune, "|", *context.splits.report])
        identity |= {"pixels": [images["tune"], images["report"]]} if images else {}
    return digest_of(identity)


def run_stages(stages: Sequence[Stage], context: Context, base: Mapping[str, Any]) -> dict[str, Artifact]:
    """Run a recipe's stages in order, taking finished ones from the cache; returns all outputs by name.

    `base` holds what stages add to their key: train fingerprint, weights digest, versions, and digests of the images
    by role. A stage that another process works on is waited for.
    """
    done: dict[str, Artifact] = {}
    for stage in stages:
        missing = [n for n in stage.inputs if n not in done]
        if missing:
            raise HarnessError(f"stage {stage.name} needs {missing}, which no stage before it makes")
        folder = context.store.root / "cache" / stage_key(stage, context, done, base)
        with _turn(folder, context, stage.name):
            # The first worker decides for all: between two looks another process may finish the stage.
            found = gather_objects(_finished(folder, stage) if context.session.rank == 0 else None, context.session)[0]
            if context.session.rank == 0:
                _use(folder, stage, context)
            if found is None:
                context.folder = folder.relative_to(context.store.root).as_posix()
                _make(stage, context, {n: done[n] for n in stage.inputs}, folder)
                barrier(context.session)
                made = _finish(folder, stage) if context.session.rank == 0 else None
                found = gather_objects(made, context.session)[0]
        if found is None:
            raise HarnessError(f"stage {stage.name} did not leave {list(stage.outputs.values())} in {folder}")
        done.update(found)
    return done


def _make(stage: Stage, context: Context, inputs: Mapping[str, Artifact], folder: Path) -> None:
    """Run a stage. What it made of data that changed under it is dropped, its checkpoints too: no retry goes on from
    there."""
    try:
        stage.run(context, inputs, folder)
        context.check_data()
    except BadInput:
        if context.session.rank == 0:
            for path in folder.iterdir():
                if path.name not in (TURN, USERS):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
        raise


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


def _finished(folder: Path, stage: Stage) -> dict[str, Artifact] | None:
    """The outputs of a stage that was done before; None where it has to be made.

    Each is read whole and held against the digest that was written with it: what a disk has damaged is removed, so that
    nothing of it is taken for whole, and one line says so.
    """
    found, damage = _checked(folder, stage)
    if damage:
        print(f"{damage}: stage {stage.name} is made again", flush=True)
        (folder / DONE).unlink(missing_ok=True)
        for path in stage.outputs.values():
            if (folder / path).is_dir():
                shutil.rmtree(folder / path, ignore_errors=True)
            else:
                (folder / path).unlink(missing_ok=True)
    return found


def _checked(folder: Path, stage: Stage) -> tuple[dict[str, Artifact] | None, str]:
    """The outputs of a stage that are what was written, all of them or none; and what is damaged."""
    try:
        digests = dict(json.loads((folder / DONE).read_text()))
    except FileNotFoundError:
        return None, ""
    except (OSError, ValueError, TypeError) as e:
        return None, f"{folder / DONE} cannot be read ({e})"
    found = {}
    for name, path in stage.outputs.items():
        if not (folder / path).exists():
            return None, f"{folder / path} is gone"
        try:
            same = content_digest(folder / path) == digests.get(name)
        except OSError as e:
            return None, f"{folder / path} cannot be read ({plain_words(e)})"
        if not same:
            return None, f"{folder / path} is not what was written"
        found[name] = Artifact(folder / path, digests[name])
    return found, ""


def _finish(folder: Path, stage: Stage) -> dict[str, Artifact] | None:
    """Note the digests of a stage's outputs once they are on the disk; None where one of them is missing."""
    found = {}
    try:
        for name, path in stage.outputs.items():
            if not (folder / path).exists():
                return None
            sync_tree(folder / path)
            found[name] = Artifact(folder / path, content_digest(folder / path))
        write_json(folder / DONE, {name: artifact.digest for name, artifact in found.items()})
    except OSError as e:
        raise StoreError(f"{folder} could not be written: {plain_words(e)}") from e
    return found


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
        context.report_progress(f"waiting for {stage}", 0, context.run.total)
        time.sleep(POLL_SECONDS)
    with handle or nullcontext():
        yield


def _use(folder: Path, stage: Stage, context: Context) -> None:
    """Keep others from removing a stage's folder until this run ends, and for good where `keep` says so."""
    handle = _lock(folder, USERS, shared=True)
    if handle is None:
        raise StoreError(f"{folder} is removed by another process while this one holds {TURN}")
    context.in_use.enter_context(handle)
    if any(kept(context, name) for name in stage.outputs):
        (folder / KEPT).touch()


def _lock(folder: Path, name: str = TURN, *, shared: bool = False) -> Lease | None:
    """The lock of a stage's folder; None while another process holds it, or has just removed the folder."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return Lease.take(folder / name, shared=shared)
    except FileNotFoundError:
        return None
    except OSError as e:
        raise StoreError(f"cannot write into {folder}: {plain_words(e)}") from e
