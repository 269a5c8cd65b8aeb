"""Benchmarks do not time page faults: what one call has freed the next one finds."""

from __future__ import annotations

import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
import numpy as np
from benchmarks.timing import keep_heap
kept = keep_heap() if sys.argv[1] == "warm" else False
def fault():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(8 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
fault()
print(kept, fault())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mallopt is glibc's")
def test_a_large_temporary_faults_once() -> None:
    found = {}
    for heap in ("cold", "warm"):
        done = subprocess.run([sys.executable, "-c", FAULTS, heap], check=True, capture_output=True, text=True)
        kept, faults = done.stdout.split()
        found[heap] = int(faults)
        assert kept == str(heap == "warm")
    assert found["warm"] <= 2 < found["cold"], found
