"""Fault classes."""

from __future__ import annotations

import pytest
import torch

from harness.errors import BadInput, NonFiniteLoss, Problem
from harness.tuning.faults import BAD_INPUT, BUG, OOM, PREEMPTED, classify, failed, with_low_memory, worst


class ActorDiedError(Exception):
    """Named like Ray's."""


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (ValueError("x"), BUG),
        (NonFiniteLoss("step 3"), BUG),
        (MemoryError(), OOM),
        (torch.OutOfMemoryError("x"), OOM),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), OOM),
        (ActorDiedError(), PREEMPTED),
        (BadInput(Problem("a.png", "damaged", "replace it")), BAD_INPUT),
    ],
)
def test_classes(error: Exception, fault: str) -> None:
    assert classify(error) == fault
    wrapped = RuntimeError("around")
    wrapped.__cause__ = error
    assert classify(wrapped) == fault


def test_the_cause_outweighs_the_symptoms_of_its_peers() -> None:
    symptom = RuntimeError("connection closed by peer")
    assert worst([symptom, MemoryError()]) == OOM
    assert worst([symptom, ActorDiedError()]) == PREEMPTED
    assert worst([symptom]) == BUG


def test_a_failure_keeps_class_message_and_traceback() -> None:
    try:
        raise KeyError("knob")
    except KeyError as error:
        outcome = failed(error)
    assert (outcome.status, outcome.objective, outcome.error_class) == ("failed", None, "bug")
    assert outcome.error_message.splitlines()[0] == "KeyError: 'knob'"
    assert "test_faults.py" in outcome.error_message


def test_low_memory_reaches_the_machine() -> None:
    assert with_low_memory({"key": "k"}) == {"key": "k", "low_memory": True}
    payload = {"machine": {"threads": 2}}
    assert with_low_memory(payload)["machine"] == {"threads": 2, "low_memory": True}
    assert payload == {"machine": {"threads": 2}}
