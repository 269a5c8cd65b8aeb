"""The folder of a stage in the cache: who works on it, what it holds when it is done, who still reads it."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from harness.engine.checkpoint import Artifact, kind_of
from harness.engine.context import Context
from harness.engine.parallel import barrier, gather_objects
from harness.engine.saying import say
from harness.engine.turns import TURN, lock, turn
from harness.errors import BadInput, HarnessError, StoreError
from harness.files import content_digest, plain_words, sync_tree, way_out, write_json

DONE = "done.json"
USERS = "users"
"""Lock file of a stage's folder that all runs share which take files from it."""
KEPT = "kept"
"""Marks a stage's folder that some run keeps: runs that share it and keep nothing leave it alone."""


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """What a stage leaves in its folder: the file or folder of each output by its name."""

    name: str
    """Of the stage."""
    outputs: Mapping[str, str]


@dataclass(frozen=True)
class Done:
    """A stage that is done: what it left, the run that made it, and how long that took, seconds."""

    outputs: Mapping[str, Artifact]
    run: str
    seconds: float


def make(stage: Outputs, folder: Path, context: Context, work: Callable[[Path], None]) -> Done:
    """A stage's outputs, of the cache or made by `work(folder)`. One that another process is at is waited for.

    Raises HarnessError where the work leaves no output behind.
    """
    # Trials that share a stage, and workers left over from a killed driver, take turns.
    waiting = partial(context.report_progress, f"waiting for {stage.name}", 0, context.run.total)
    with turn(folder, context.session, waiting):
        # The first worker decides for all: between two looks another process may finish the stage.
        found = gather_objects(_finished(folder, stage) if context.session.rank == 0 else None, context.session)[0]
        if context.session.rank == 0:
            _use(folder, stage, context)
        if found is None:
            context.folder = folder.relative_to(context.store.root).as_posix()
            began = time.perf_counter()
            _work(work, context, folder)
            barrier(context.session)
            spent = time.perf_counter() - began
            made = _finish(folder, stage, context.key, spent) if context.session.rank == 0 else None
            found = gather_objects(made, context.session)[0]
    if found is None:
        raise HarnessError(f"stage {stage.name} did not leave {list(stage.outputs.values())} in {folder}")
    return found


def _work(work: Callable[[Path], None], context: Context, folder: Path) -> None:
    """Do a stage's work. What it made of data that changed under it is dropped, its checkpoints too: no retry goes on
    from there."""
    try:
        work(folder)
        context.check_data()
    except BadInput:
        if context.session.rank == 0:
            for path in folder.iterdir():
                if path.name not in (TURN, USERS):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
        raise


def kept(context: Context, name: str, file: str) -> bool:
    """Whether `keep` names this output, a file or folder; the curve of losses goes with the weights.

    What later stages read stays as well, those after `until` too: trials that differ in a later stage, and runs that go
    further, begin there; gc drops what is idle.
    """
    keep = set(context.machine.keep)
    if "none" in keep:
        return False
    if kind_of(file) != "files":
        return bool(keep & {"last", "best"})
    return "maps" in keep or name in context.read


def clean(context: Context, outputs: Mapping[str, Artifact]) -> None:
    """Drop what `keep` does not name, once a run is in the store.

    What another process is at or still reads is left to that one, and what another run keeps stays.
    """
    context.in_use.close()
    for artifact in outputs.values():
        folder = artifact.path.parent
        if artifact.kind == "losses" or not folder.is_dir() or (folder / KEPT).exists():
            continue
        with ExitStack() as closing:
            for name in (TURN, USERS):
                handle = lock(folder, name)
                if handle is None:
                    break
                closing.enter_context(handle)
            else:
                shutil.rmtree(folder, ignore_errors=True)


def _finished(folder: Path, stage: Outputs) -> Done | None:
    """The outputs of a stage that was done before; None where it has to be made.

    Each is read whole and held against the digest that was written with it: what a disk has damaged is removed, so that
    nothing of it is taken for whole, and one line says so.
    """
    found, damage = _checked(folder, stage)
    if damage:
        say(f"{damage}: stage {stage.name} is made again")
        (folder / DONE).unlink(missing_ok=True)
        for path in stage.outputs.values():
            if (folder / path).is_dir():
                shutil.rmtree(folder / path, ignore_errors=True)
            else:
                (folder / path).unlink(missing_ok=True)
    return found


def _checked(folder: Path, stage: Outputs) -> tuple[Done | None, str]:
    """The outputs of a stage that are what was written, all of them or none; and what is damaged."""
    try:
        done = dict(json.loads((folder / DONE).read_text()))
        digests, run, seconds = dict(done["digests"]), str(done["run"]), float(done["seconds"])
    except FileNotFoundError:
        return None, ""
    except (OSError, ValueError, TypeError, KeyError) as e:
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
    return Done(found, run, seconds), ""


def _finish(folder: Path, stage: Outputs, run: str, seconds: float) -> Done | None:
    """Note the digests of a stage's outputs once they are on the disk; None where one of them is missing."""
    found = {}
    try:
        for name, path in stage.outputs.items():
            if not (folder / path).exists():
                return None
            sync_tree(folder / path)
            found[name] = Artifact(folder / path, content_digest(folder / path))
        digests = {name: artifact.digest for name, artifact in found.items()}
        write_json(folder / DONE, {"digests": digests, "run": run, "seconds": round(seconds, 3)})
    except OSError as e:
        raise StoreError(f"{folder} could not be written: {plain_words(e)}; {way_out(e)}") from e
    return Done(found, run, seconds)


def _use(folder: Path, stage: Outputs, context: Context) -> None:
    """Keep others from removing a stage's folder until this run ends, and for good where `keep` says so."""
    handle = lock(folder, USERS, shared=True)
    if handle is None:
        raise StoreError(f"{folder} is removed by another process while this one holds {TURN}")
    context.in_use.enter_context(handle)
    if any(kept(context, name, file) for name, file in stage.outputs.items()):
        (folder / KEPT).touch()
