"""How a run ended, as the search hears it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from harness.engine.session import Session

Status = Literal["done", "pruned", "failed"]


@dataclass(frozen=True)
class Outcome:
    """How a run ended. `error_class` is a fault class of `harness.tuning.faults`, empty unless failed."""

    status: Status
    objective: float | None = None
    """mIoU in [0,1]; of the last rung where pruned; None where failed."""
    reached: float = 1.0
    """Share of T."""
    error_class: str = ""
    error_message: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)


Execute = Callable[[Mapping[str, Any], Session], Outcome]
"""One run from payload to store, on one worker."""
