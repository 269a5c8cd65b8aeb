"""Fault classes, and one run from payload to outcome with every fault turned into data."""

from __future__ import annotations

import atexit
import gc
import math
import random
import sys
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from harness.engine.outcome import Execute, Outcome
from harness.engine.session import Session
from harness.errors import BadInput

PREEMPTED = "preempted"
"""The process or node was taken away: run again for free."""
OOM = "oom"
"""Out of memory: run again once with `low_memory`."""
BAD_INPUT = "bad_input"
"""Data that could only be found damaged while it was used."""
BUG = "bug"
"""Everything else: never run again by itself."""

MESSAGE_LIMIT = 20_000


def classify(error: BaseException) -> str:
    """The fault class of an exception; looks through causes, needs neither torch nor Ray."""
    seen: BaseException | None = error
    while seen is not None:
        names = {c.__name__ for c in type(seen).__mro__}
        if names & {"OutOfMemoryError", "MemoryError"} or "can't allocate memory" in str(seen):
            return OOM
        if names & {"ActorDiedError", "RayActorError", "WorkerCrashedError", "NodeDiedError"}:
            return PREEMPTED
        if isinstance(seen, BadInput):
            return BAD_INPUT
        seen = seen.__cause__
    return BUG


def worst(errors: Iterable[BaseException]) -> str:
    """The class of a run whose workers failed with these errors: peers of a dead worker show mere symptoms."""
    classes = {classify(e) for e in errors}
    return next((c for c in (OOM, PREEMPTED, BAD_INPUT) if c in classes), BUG)


def failed(error: BaseException, fault: str | None = None) -> Outcome:
    """The outcome of a run that ended in `error`: class, message and traceback."""
    trace = "".join(traceback.format_exception(error))
    text = f"{type(error).__name__}: {error}\n{trace}"
    return Outcome(
        status="failed", reached=0.0, error_class=fault or classify(error), error_message=text[:MESSAGE_LIMIT]
    )


def finite(outcome: Outcome) -> Outcome:
    """`outcome`, or a failure where a finished run has no finite objective."""
    if outcome.status == "done" and (outcome.objective is None or not math.isfinite(outcome.objective)):
        message = f"ValueError: the objective is {outcome.objective}"
        return replace(outcome, status="failed", objective=None, error_class=BUG, error_message=message)
    return outcome


def attempt(execute: Execute, payload: Mapping[str, Any], session: Session, threads: int = 1) -> Outcome:
    """Runs `execute` in a cleaned process; out of memory is tried once more, `with_low_memory`.

    Exceptions become outcomes. SystemExit (a stopped trial) and KeyboardInterrupt pass.
    """
    for last in (False, True):
        clean_process(threads)
        try:
            return finite(execute(with_low_memory(payload) if last else payload, session))
        except Exception as error:
            # A retry must start after this block: the error's frames hold the tensors that filled the memory.
            outcome = failed(error)
        if last or outcome.error_class != OOM:
            break
    return outcome


def with_low_memory(payload: Mapping[str, Any]) -> dict[str, Any]:
    """The payload of the one retry after running out of memory: `low_memory` set, on the machine too."""
    machine = payload.get("machine")
    extra = {"machine": {**machine, "low_memory": True}} if isinstance(machine, Mapping) else {}
    return {**payload, "low_memory": True, **extra}


def clean_process(threads: int = 1) -> None:
    """Undoes what an earlier trial may have left in this process: seeds, dtype, threads, memory, compiled code."""
    random.seed(0)
    np.random.seed(0)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(0)
        torch.set_default_dtype(torch.float32)
        torch.set_grad_enabled(True)
        torch.use_deterministic_algorithms(False)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        if "torch._dynamo" in sys.modules:
            torch._dynamo.reset()
    gc.collect()
    if not gc.get_freeze_count():
        # Imported modules are never garbage: later collections skip them (half a second each otherwise).
        gc.freeze()
        # At exit all is collected, or extension modules complain of leaks.
        atexit.register(gc.unfreeze)
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
