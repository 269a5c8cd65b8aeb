"""Precision of the passes of a step through which no gradient flows. Plans read this too and import no torch for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import Problem

if TYPE_CHECKING:
    import torch

WHOLE, NO_GRADIENT = "bf16", "bf16-nograd"
"""Words of `precision` besides fp32: bfloat16 in every pass, or in those alone through which no gradient flows."""
_low: ContextVar[bool] = ContextVar("low", default=False)


@contextmanager
def of_run(precision: str, device: str) -> Iterator[None]:
    """The block runs in a run's precision on a device."""
    import torch

    before = _low.set(precision == NO_GRADIENT)
    try:
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=precision == WHOLE):
            yield
    finally:
        _low.reset(before)


@contextmanager
def no_gradient(device: torch.device) -> Iterator[None]:
    """The block takes no gradient: a CAM, mask or teacher pass. In runs of precision `bf16-nograd` it is made in
    bfloat16; what comes out is cast to float32 by whoever computes with it."""
    import torch

    if not _low.get():
        with torch.no_grad():
            yield
        return
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16):
        yield


def lacking(precision: str, kind: str, cpuinfo: Path = Path("/proc/cpuinfo")) -> list[Problem]:
    """What is wrong with a precision on the cpu or cuda device of this machine; nothing where it has no GPU, and other
    machines do the work. bf16 on any CPU is correct, if slow; bf16-nograd is there for speed."""
    if precision == WHOLE and kind == "cpu":
        return []
    if precision in (WHOLE, NO_GRADIENT) and kind == "cuda":
        import torch

        if torch.cuda.is_available() and not torch.cuda.is_bf16_supported(including_emulation=False):
            found = f"{precision}, but {torch.cuda.get_device_name()} computes in float32 and float16 only"
            return [Problem("precision", found, "precision=fp32")]
    elif precision == NO_GRADIENT and kind == "cpu":
        flags = cpuinfo.read_text(encoding="utf-8").split() if cpuinfo.is_file() else []
        if not any("bf16" in flag for flag in flags):
            has = ", ".join(sorted({f for f in flags if f in ("avx2", "avx512f", "asimd")})) or "nothing that is known"
            found = f"{precision}, but this CPU has no bfloat16 instructions (it has {has}): passes would be slower"
            return [Problem("precision", found, "precision=fp32")]
    return []
