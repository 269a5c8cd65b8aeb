"""`python -m benchmarks.growth`: whether an actor that runs trial after trial grows."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass

from harness.cli.helping import help_text, wants_help
from harness.cli.parsing import main, parse, word
from harness.errors import EXIT_DONE, EXIT_FAILED, BadInput, Problem
from harness.store import load

ABOUT = """Sweeps trials of almost no steps through one actor, which takes all of this machine's cores, and prints its
peak memory after some of them: what it holds at the last trial may be a tenth more than at the fifth."""
FIRST = 5
"""The trial that later ones are held against: by then every shape has been seen."""
MOST = 1.10
MIB = 1 << 20


@dataclass
class GrowthWords:
    """Words of `python -m benchmarks.growth`."""

    trials: int = word(50, "trials, one after another", least=FIRST + 1)
    method: str = word("fsr", "what is trained")
    tier: str = word("lab", "whose sizes: smoke, lab or paper")
    fidelity: float = word(0.02, "share of the preset's steps")
    images: int = word(32, "training images, and as many that are scored", least=4)
    dry_run: bool = word(False, "print the sweep that is run")


def sweep_of(words: GrowthWords, store: str) -> list[str]:
    """The words of the sweep: settings that differ, all run to their end, with one seed."""
    sizes = [f"data.n_{split}={words.images}" for split in ("train", "val", "test")]
    budget = [f"trials={words.trials}", "search=rules", "protocol=oracle", "seeds=1", f"fidelity={words.fidelity:g}"]
    machine = [f"threads={os.cpu_count() or 1}", "gpus=0", "keep=none", "mlflow=off", f"store={store}"]
    return [f"methods={words.method}", "data=shapes", f"tier={words.tier}", *sizes, *budget, *machine]


def peaks(store: str) -> list[float]:
    """Peak MiB of the actor at the end of each trial, in the order in which they began."""
    runs = load(store, ["runs"]).runs.filter(status="done").sort("started")
    return [float(peak) / MIB for peak in runs["peak_memory"]]


def growth(peaks_mib: Sequence[float]) -> float:
    """The last trial's peak as a multiple of the fifth's. Raises BadInput where fewer were done."""
    if len(peaks_mib) <= FIRST:
        raise BadInput(Problem("trials", f"{len(peaks_mib)} trials were done", f"at least {FIRST + 1}"))
    return peaks_mib[-1] / peaks_mib[FIRST - 1]


def run(argv: list[str]) -> int:
    """The command. Returns the exit code: 1 where the goal is missed; raises BadInput."""
    if wants_help(argv):
        print(help_text("benchmarks.growth", GrowthWords, ABOUT))
        return EXIT_DONE
    words: GrowthWords = parse(argv, GrowthWords).words
    with tempfile.TemporaryDirectory() as store:
        sweep = sweep_of(words, store)
        if words.dry_run:
            print("python -m harness.sweep", *sweep)
            return EXIT_DONE
        code = subprocess.run([sys.executable, "-m", "harness.sweep", *sweep], check=False).returncode
        if code:
            return code
        found = peaks(store)
    ratio = growth(found)
    shown = sorted({0, FIRST - 1, *range(9, len(found), 10), len(found) - 1})
    print("trial  " + "".join(f"{i + 1:>8}" for i in shown))
    print("MiB    " + "".join(f"{found[i]:>8.0f}" for i in shown))
    print(f"trial {len(found)} holds {ratio:.3f} of trial {FIRST}, goal {MOST:g}")
    return EXIT_FAILED if ratio > MOST else EXIT_DONE


if __name__ == "__main__":
    raise SystemExit(main(run))
