"""`python -m benchmarks.run suite=step`: our operators and steps next to plain restatements of published code.

Suites are the modules of `benchmarks/suites`; adding one edits nothing here.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

# One thread unless the environment says otherwise: the numbers are process CPU time.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from benchmarks import memory
from benchmarks.catalogue import collect, known_suites
from benchmarks.timing import Timed, machine, measure
from harness.cli.helping import help_text, wants_help
from harness.cli.parsing import main, parse, split_list, word
from harness.errors import EXIT_DONE, EXIT_FAILED

ABOUT = """Checks that both sides agree, then times interleaved rounds in process CPU time, one thread.
Exit code 1: the sides disagree or a goal is missed."""
QUICK_GOAL = 0.5
"""Share of a goal that is judged with quick=true."""


@dataclass
class BenchmarkWords:
    """Words of `python -m benchmarks.run`."""

    suite: str = word("all", "suites to run, a list: the modules of benchmarks/suites")
    case: str | None = word(None, "run only cases whose name contains this")
    quick: bool = word(False, "small inputs, half of each goal")
    rounds: int = word(7, "timed rounds of each side", least=1)
    json: str | None = word(None, "also write the result to this file")
    memory: bool = word(False, "peak memory of each side in a fresh process instead of time")
    dry_run: bool = word(False, "list the cases with their goals")


def line(suite: str, timed: Timed) -> str:
    """A row of the printed table."""
    goal = "" if timed.goal is None else f"goal {timed.goal:.3g}x {timed.verdict}"
    rates = "{:,.0f} and {:,.0f} images a second of one core; ".format(*timed.rates) if timed.images else ""
    return (
        f"{suite:<10} {timed.name:<34} {timed.reference_s * 1e3:>10.1f} ms {timed.ours_s * 1e3:>9.1f} ms "
        f"{timed.ratio:>7.1f}x (min {timed.ratio_min:.1f}x) {goal}\n{'':<10} {rates}{timed.equality}"
    )


def run(argv: list[str]) -> int:
    """The command. Returns the exit code; raises BadInput."""
    if wants_help(argv):
        print(help_text("benchmarks.run", BenchmarkWords, ABOUT, {"suites": ", ".join(known_suites())}))
        return EXIT_DONE
    words: BenchmarkWords = parse(argv, BenchmarkWords).words
    names = known_suites() if words.suite == "all" else split_list(words.suite)
    chosen = collect(names, words.quick, words.case)
    if words.dry_run:
        for suite, case in chosen:
            print(f"{suite:<10} {case.name:<34} {case.unit}  goal {case.goal or '-'}")
        return EXIT_DONE
    if words.memory:
        rows = [memory.report(suite, case.name, words.quick) for suite, case in chosen]
        return _finish(rows, words, failed=False)
    rows, failed = [], False
    for suite, case in chosen:
        try:
            timed = measure(case, words.rounds, relaxed=QUICK_GOAL if words.quick else 1.0)
        except AssertionError as e:
            print(f"{suite:<10} {case.name:<34} the sides disagree: {e}", file=sys.stderr)
            failed = True
            continue
        print(line(suite, timed), flush=True)
        failed |= timed.verdict == "missed"
        rows.append({"suite": suite, **timed.row()})
    return _finish(rows, words, failed)


def _finish(rows: list[dict[str, object]], words: BenchmarkWords, failed: bool) -> int:
    if words.json:
        Path(words.json).write_text(json.dumps({"machine": machine(), "cases": rows}, indent=1) + "\n")
    return EXIT_FAILED if failed else EXIT_DONE


if __name__ == "__main__":
    raise SystemExit(main(run))
