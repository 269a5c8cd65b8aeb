"""Peak memory of one side of a case in a fresh process: `python -m benchmarks.memory <suite> <case> <side> <quick>`."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys

# One thread unless the environment says otherwise.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from benchmarks.catalogue import collect

MIB = 1024.0
"""ru_maxrss counts KiB on Linux."""


def peak(suite: str, name: str, side: str, quick: bool) -> dict[str, float]:
    """MiB before and after one call of `side` (reference or ours), in this process."""
    case = next(c for _, c in collect([suite], quick, name) if c.name == name)
    if case.prepare is not None:
        case.prepare()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MIB
    getattr(case, side)()
    return {"before": before, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MIB}


def report(suite: str, name: str, quick: bool) -> dict[str, object]:
    """Peak MiB above the built case of both sides, each in a fresh process; prints one line."""
    above: dict[str, float] = {}
    for side in ("reference", "ours"):
        command = [sys.executable, "-m", "benchmarks.memory", suite, name, side, str(quick)]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        above[side] = found["peak"] - found["before"]
    ratio = above["ours"] / max(above["reference"], 1e-9)
    print(f"{suite:<10} {name:<34} {above['reference']:>8.0f} MiB {above['ours']:>8.0f} MiB {ratio:>6.2f}", flush=True)
    return {"suite": suite, "name": name, "reference_mib": above["reference"], "ours_mib": above["ours"]}


if __name__ == "__main__":
    print(json.dumps(peak(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4] == "True")))
