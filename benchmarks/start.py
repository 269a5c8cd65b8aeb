"""`python -m benchmarks.start`: how long a sweep takes from its command to the end of its first training step."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from harness.cli.helping import help_text, wants_help
from harness.cli.parsing import main, parse, word
from harness.engine.heartbeat import FILE
from harness.errors import EXIT_DONE, EXIT_FAILED

ABOUT = """Starts a sweep under Ray on the embedded dataset in an empty store, ends it after its first steps, and prints
the seconds from the command to the end of the first step. Wall time: only where nothing else runs."""
GOAL = 8.0
LONGEST_S = 300.0
"""A start that takes longer has failed."""
STAGE = "train"


@dataclass
class StartWords:
    """Words of `python -m benchmarks.start`."""

    rounds: int = word(3, "starts, of which the median is judged", least=1)
    method: str = word("cam", "what is trained, at tier smoke")
    dry_run: bool = word(False, "print the sweep that is started")


def sweep_of(method: str, store: Path) -> list[str]:
    """The command: one trial on all of this machine's cores."""
    words = [f"methods={method}", "data=shapes", "tier=smoke", "trials=1", "seeds=1", "mlflow=off", "gpus=0"]
    return [sys.executable, "-m", "harness.sweep", *words, f"threads={os.cpu_count() or 1}", f"store={store}"]


def first_step(store: Path) -> float | None:
    """When the first step of a store's first run was over, seconds since the epoch; None while it is not."""
    for file in store.glob(f"work/*/{FILE}"):
        said = json.loads(file.read_text(encoding="utf-8"))
        if said.get("stage") == STAGE:
            return float(said["stage_started"])  # a stage's first report comes with its first step
    return None


def start(command: list[str], store: Path) -> float:
    """Seconds to the first step. Raises TimeoutError, or CalledProcessError for a sweep that ends before."""
    began = time.time()
    output = subprocess.DEVNULL
    sweep = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
    try:
        while (over := first_step(store)) is None:
            if sweep.poll() is not None:
                raise subprocess.CalledProcessError(sweep.returncode, command)
            if time.time() > began + LONGEST_S:
                raise TimeoutError(f"no step within {LONGEST_S:g} s: {' '.join(command)}")
            time.sleep(0.05)
        return over - began
    finally:
        sweep.send_signal(signal.SIGTERM)
        sweep.wait()


def run(argv: list[str]) -> int:
    """The command. Returns the exit code: 1 where the goal is missed; raises BadInput."""
    if wants_help(argv):
        print(help_text("benchmarks.start", StartWords, ABOUT))
        return EXIT_DONE
    words: StartWords = parse(argv, StartWords).words
    found = []
    for n in range(words.rounds):
        with tempfile.TemporaryDirectory() as temporary:
            command = sweep_of(words.method, Path(temporary))
            if words.dry_run:
                print(*command)
                return EXIT_DONE
            load = os.getloadavg()[0]
            found.append(start(command, Path(temporary)))
            print(f"start {n + 1}: first step after {found[-1]:.1f} s, load {load:.1f} before", flush=True)
    median = statistics.median(found)
    print(f"median {median:.1f} s, goal {GOAL:g} s")
    return EXIT_FAILED if median > GOAL else EXIT_DONE


if __name__ == "__main__":
    raise SystemExit(main(run))
