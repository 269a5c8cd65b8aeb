"""The command of a sweep, whose runs have the faults of `ray_faults`; silences are called hangs earlier."""

from __future__ import annotations

import os
from functools import partial

from harness import sweep
from harness.cli.parsing import main
from harness.tuning import drivers, restarts, run_plan

EXECUTE = "ray_faults:execute"
HANG_S = "FAULTS_HANG_S"
"""Environment variable: seconds of silence that are a hang, in place of five minutes and an hour."""

if __name__ == "__main__":
    run_plan.run_studies = partial(drivers.run_studies, execute=EXECUTE)  # type: ignore[assignment]
    run_plan.run_local = partial(drivers.run_local, execute=EXECUTE)  # type: ignore[assignment]
    if HANG_S in os.environ:
        restarts.HANG_FLOOR_S = restarts.HANG_UNKNOWN_S = float(os.environ[HANG_S])
    raise SystemExit(main(sweep.run))
