"""Fault classes, and one run from payload to outcome with every fault turned into data."""

from __future__ import annotations

import atexit
import errno
import gc
import math
import os
import random
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from harness.engine.leaving import Left
from harness.engine.saying import said
from harness.engine.session import Session
from harness.errors import BadInput
from harness.plan.payload import Payload
from harness.plan.studies import Outcome

PREEMPTED = "preempted"
"""Process, node, GPU or disk were taken away or full: run again for free, at the latest by the same command."""
NODE = "node"
"""The whole machine went away: a death that says nothing of the run. Stored as preempted."""
LEFT = "left"
"""The run was told to leave and has a checkpoint: never stored, it goes on from there."""
OOM = "oom"
"""Out of memory: run again once with `low_memory`."""
BAD_INPUT = "bad_input"
"""Data that could only be found damaged while it was used."""
BUG = "bug"
"""Everything else: never run again by itself."""

MESSAGE_LIMIT = 20_000
_NO_MEMORY = re.compile(
    r"can't allocate memory|(CUDA|HIP)( driver)?( error:)? out of memory|CU[A-Z]+_STATUS_(\w+_)?ALLOC(ATION)?_FAILED"
    r"|running low on memory|exceeds the memory usage threshold"
)
"""What comes as a plain RuntimeError; and how Ray puts that its memory monitor ended a process."""
_NODE_DIED = re.compile(r"\bnode (has died|was terminated|is dead|.{0,40}preempt)", re.IGNORECASE)
_PASSING = frozenset({errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.ESTALE})
_TAKEN = re.compile(
    r"DataLoader worker \(pid.*\) is killed by signal|\(os error (" + "|".join(map(str, sorted(_PASSING))) + r")\)"
)
"""A loader that the system killed, mostly for memory; and the errors above as libraries written in Rust put them."""


def classify(error: BaseException) -> str:
    """The fault class of an exception; looks through causes, needs neither torch nor Ray."""
    seen: BaseException | None = error
    while seen is not None:
        names = {c.__name__ for c in type(seen).__mro__}
        text = str(seen)
        if names & {"OutOfMemoryError", "MemoryError"} or _NO_MEMORY.search(text):
            return OOM
        if names & {"ActorDiedError", "RayActorError", "WorkerCrashedError", "NodeDiedError"} or _TAKEN.search(text):
            # Ray wraps why it ended a process: for its memory, for instance.
            inner = _inner(seen)
            return OOM if inner is not None and classify(inner) == OOM else PREEMPTED
        if isinstance(seen, OSError) and seen.errno in _PASSING:
            return PREEMPTED
        if isinstance(seen, BadInput):
            return BAD_INPUT
        seen = _inner(seen)
    return BUG


def _inner(error: BaseException) -> BaseException | None:
    """What lies behind an exception: its cause, or what Ray Train keeps in fields of its own."""
    for name in ("__cause__", "health_check_failure", "controller_failure"):
        found = getattr(error, name, None)
        if isinstance(found, BaseException):
            return found
    return None


def death_of(error: BaseException) -> str:
    """Why a run's process ended: its fault class, or NODE where the machine went with it."""
    fault = classify(error)
    seen: BaseException | None = error
    while fault == PREEMPTED and seen is not None:
        if "NodeDiedError" in {c.__name__ for c in type(seen).__mro__} or _NODE_DIED.search(str(seen)):
            return NODE
        seen = _inner(seen)
    return fault


def worst(outcomes: Sequence[Outcome]) -> Outcome:
    """That of a run whose workers ended with these: peers of a dead worker show mere symptoms."""
    order = (OOM, PREEMPTED, BAD_INPUT)
    return min(outcomes, key=lambda o: order.index(o.error_class) if o.error_class in order else len(order))


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


def attempt(execute: Execute, payload: Payload, session: Session, threads: int = 1) -> Outcome:
    """Runs `execute` in a cleaned process; out of memory is tried once more, with `low_memory`.

    Exceptions become outcomes. SystemExit (a stopped trial) and KeyboardInterrupt pass. Nothing is tried where an
    earlier run broke the GPU for this process: that is no fault of this one. What the run said is in the outcome.
    """
    said()  # of an earlier run
    if lost := lost_gpu():
        text = f"an earlier run left this process without its GPU ({lost}): run the same command again"
        return Outcome("failed", None, 0.0, PREEMPTED, text)
    for last in (False, True):
        clean_process(threads)
        try:
            outcome = finite(execute(payload.with_low_memory() if last else payload, session))
        except Left as left:
            outcome = Outcome("failed", None, 0.0, LEFT, str(left))
        except Exception as error:
            # A retry must start after this block: the error's frames hold the tensors that filled the memory.
            outcome = failed(error)
        if outcome.status == "done" or outcome.error_class != OOM:
            break
    return replace(outcome, notes=said())


def lost_gpu() -> str:
    """Why this process can use its GPU no more; empty where it can, or has none.

    A device-side assert or an illegal access breaks the process's CUDA context for good: every later call fails.
    """
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return ""
    try:
        torch.zeros(1, device="cuda").add_(1).cpu()
    except RuntimeError as error:
        return "" if classify(error) == OOM else (str(error).splitlines() or [type(error).__name__])[0]
    return ""


def leave_without_gpu() -> None:
    """Ends a process whose GPU is lost: its scheduler sees it die and starts the run in another one, for free."""
    if lost_gpu():
        os._exit(1)


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


Execute = Callable[[Payload, Session], Outcome]
"""One run from payload to store, on one worker."""
