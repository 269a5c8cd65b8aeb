"""Interleaved rounds of process CPU time on a warm heap, and what the machine is."""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import Case

MAX_SPREAD = 0.3
"""Median and minimum ratio may differ by this share before a goal is judged."""


TRIM_THRESHOLD, MMAP_MAX = -1, -4
"""Parameters of glibc's mallopt."""


@functools.cache
def keep_heap() -> bool:
    """Keep freed memory with the process, for good: whether that could be asked for (glibc).

    Otherwise each large temporary is mapped and cleared anew, page by page, which a process does that has just started
    and a long run does not: the side with more temporaries would be timed by its page faults.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(MMAP_MAX, 0)) and bool(mallopt(TRIM_THRESHOLD, -1))


@dataclass(frozen=True)
class Timed:
    """Result of one case; seconds are process CPU time."""

    name: str
    unit: str
    equality: str
    rounds: int
    reference_s: float
    ours_s: float
    ratio: float
    ratio_min: float
    """Ratio of the two fastest rounds."""
    goal: float | None
    images: int = 0

    @property
    def rates(self) -> tuple[float, float]:
        """Images a second of one core, reference and ours."""
        return self.images / max(self.reference_s, 1e-9), self.images / max(self.ours_s, 1e-9)

    @property
    def verdict(self) -> str:
        """`passed`, `missed`, `unsure` (noisy machine), or nothing without a goal."""
        if self.goal is None:
            return ""
        if abs(self.ratio - self.ratio_min) > MAX_SPREAD * self.ratio:
            return "unsure"
        return "passed" if self.ratio >= self.goal else "missed"

    def row(self) -> dict[str, Any]:
        """All of it as JSON has it."""
        return {**asdict(self), "verdict": self.verdict}


def measure(case: Case, rounds: int, *, relaxed: float = 1.0) -> Timed:
    """Equality, one untimed call of each side, which warms the heap, then `rounds` interleaved ones; the goal times
    `relaxed` is judged.

    Raises AssertionError where the sides disagree.
    """
    keep_heap()
    equality, agreed = case.equal(), ""
    first = case.reference(), case.ours()
    if case.agree is not None:
        case.agree(*first)
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        results = []
        for side, call in zip(seconds, (case.reference, case.ours), strict=True):
            start = time.process_time()
            results.append(call())
            side.append(time.process_time() - start)
        if case.agree is not None:
            agreed = case.agree(*results)
    if agreed:
        equality = f"{equality}; timed: {agreed}"
    reference, ours = (statistics.median(s) for s in seconds)
    return Timed(
        name=case.name,
        unit=case.unit,
        equality=equality,
        rounds=rounds,
        reference_s=reference,
        ours_s=ours,
        ratio=reference / max(ours, 1e-9),
        ratio_min=min(seconds[0]) / max(min(seconds[1]), 1e-9),
        goal=None if case.goal is None else case.goal * relaxed,
        images=case.images,
    )


def machine() -> dict[str, Any]:
    """Processor, cores, load and library versions, for the report."""
    import numpy
    import torch

    cpu = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        models = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        cpu = models[0] if models else cpu
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "load": load,
        "warm_heap": keep_heap(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
    }
