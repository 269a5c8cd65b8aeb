"""`python -m benchmarks.scale`: what reports, checks and exports cost in a store of thousands of runs.

Each command runs in a fresh process on one store, read once before: as the end of a sweep leaves it, its small files
merged, or with `merged=false` as runs write it, a file a run and table; core-seconds are user and system time of that
process, imports included.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.many_runs import many_runs
from harness.cli.helping import help_text, wants_help
from harness.cli.parsing import main, parse, word
from harness.errors import EXIT_DONE, EXIT_FAILED

ABOUT = """Makes a store of many runs and measures the commands that read it: core-seconds of a fresh process and its
peak memory, beside their goals."""
A_STUDY = 50
"""Runs of a study: 48 trials, and two more seeds of the chosen one."""
EXPORTED = 100
"""Runs that MLflow is sent."""


@dataclass
class ScaleWords:
    """Words of `python -m benchmarks.scale`."""

    runs: int = word(2000, f"runs of the store, in studies of {A_STUDY}", least=A_STUDY)
    store: str | None = word(
        None, "folder that is made where it is not there, and stays, else measured as it is; default a temporary one"
    )
    merged: bool = word(True, "the store that is made has its small files merged, as after a sweep of so many runs")
    dry_run: bool = word(False, "list the commands with their goals")
    mlflow: bool = word(False, f"also what a run costs MLflow, of {EXPORTED}")


@dataclass(frozen=True)
class Command:
    """A command with what it may cost at 2,000 runs."""

    name: str
    argv: tuple[str, ...]
    seconds: float
    beyond: tuple[str, ...] = ()
    """What the same costs without the store is taken off: this command's."""


@dataclass(frozen=True)
class Cost:
    """Core-seconds and peak MiB of a process."""

    seconds: float
    mib: float


def make_store(root: Path, runs: int) -> None:
    """A store of this many runs, each with four evals of 375 images that show three classes: 4,500 rows of counts."""
    many_runs(root, studies=runs // A_STUDY, trials=A_STUDY - 2, seeds=3, images=375, seen=3, steps=10, pruned=0,
              a_file_a_run=True)  # fmt: skip


def commands(store: Path, empty: Path) -> list[Command]:
    """What is measured on a store; `empty` is a folder without one."""
    board = ("reports.leaderboard", f"store={store}", "format=csv", f"out={empty / 'board.csv'}")
    plan = ("harness.sweep", "methods=cam", "dry_run=true", "mlflow=off")
    return [
        Command("leaderboard without intervals", (*board, "intervals=false"), 1.5),
        Command("leaderboard", board, 3.0),
        Command("leaderboard, thresholds=true", (*board, "thresholds=true"), 12.0),
        Command("store verify", ("harness.store", "verify", f"store={store}"), 3.0),
        Command("planning, beyond an empty store", (*plan, f"store={store}"), 2.0, (*plan, f"store={empty}")),
    ]


def cost_of(argv: Sequence[str]) -> Cost:
    """What a command costs in a process of its own. Raises CalledProcessError where it fails."""
    process = subprocess.Popen([sys.executable, "-m", *argv], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, list(argv))
    return Cost(used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def measured(command: Command) -> Cost:
    """The cost of a command, without that of the one that it is measured beyond."""
    found = cost_of(command.argv)
    return Cost(found.seconds - cost_of(command.beyond).seconds, found.mib) if command.beyond else found


def mlflow_seconds(root: Path) -> float:
    """Core-seconds that MLflow takes for a run: a first export minus one that finds all there."""
    make_store(root, EXPORTED)
    argv = ("harness.store", "export-mlflow", f"store={root}")
    return (cost_of(argv).seconds - cost_of(argv).seconds) / EXPORTED


def run(argv: list[str]) -> int:
    """The command. Returns the exit code: 1 where a goal is missed; raises BadInput."""
    if wants_help(argv):
        print(help_text("benchmarks.scale", ScaleWords, ABOUT))
        return EXIT_DONE
    words: ScaleWords = parse(argv, ScaleWords).words
    missed = False
    with tempfile.TemporaryDirectory() as temporary:
        empty, store = Path(temporary) / "empty", Path(words.store or Path(temporary) / "store")
        empty.mkdir()
        if words.dry_run:
            for command in commands(store, empty):
                print(f"{command.name:<34} goal {command.seconds:g} s  {' '.join(command.argv)}")
            return EXIT_DONE
        if not store.is_dir():
            make_store(store, words.runs)
            if words.merged:
                # In a process of its own: the peak memory of this one would count as that of its children.
                cost = cost_of(("harness.store", "compact", f"store={store}"))
                print(_line("store compact", f"{cost.seconds:.2f} s", f"{cost.mib:,.0f} MiB", "none"))
        for file in store.rglob("*.parquet"):
            file.read_bytes()  # from the disk once, whoever is measured first
        for command in commands(store, empty):
            cost = measured(command)
            missed |= cost.seconds > command.seconds
            print(_line(command.name, f"{cost.seconds:.2f} s", f"{cost.mib:,.0f} MiB", f"{command.seconds:g} s"))
        if words.mlflow:
            seconds = mlflow_seconds(Path(temporary) / "exported")
            missed |= seconds > 0.06
            print(_line("MLflow export, a run", f"{seconds:.3f} s", "", "0.06 s"))
    return EXIT_FAILED if missed else EXIT_DONE


def _line(name: str, seconds: str, memory: str, goal: str) -> str:
    return f"{name:<34} {seconds:>9} {memory:>11}  goal {goal}"


if __name__ == "__main__":
    raise SystemExit(main(run))
