"""`python -m harness.train`: one run with its preset's values; `ray=off` runs it in this process, for a debugger."""

from __future__ import annotations

import dataclasses
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

from harness.api.registry import registry
from harness.cli.helping import help_text, wants_help
from harness.cli.parsing import main, parse
from harness.cli.run_words import Words
from harness.cli.tracking_uri import OFF
from harness.errors import EXIT_DONE, EXIT_FAILED, shown

if TYPE_CHECKING:
    from harness.plan.plan import Plan

ABOUT = """Trains and scores one method with one config and one seed, writes the run to the store, and prints its scores
and where its time went."""


def run(argv: list[str]) -> int:
    """The command. Returns the exit code; raises BadInput."""
    if wants_help(argv):
        print(help_text("harness.train", Words, ABOUT, {"--help": "this text"}))
        return EXIT_DONE
    from harness.plan.replay import stored_config

    argv, stored = stored_config(argv)
    parsed = parse(argv, Words, "train", registry().names(), collect=True)
    from harness.plan.plan import make_plan
    from harness.tuning.describe import plan_text, run_text
    from harness.tuning.early import start_early

    with ExitStack() as ray:
        plan = make_plan(parsed, single=True, stored=stored, beside=lambda plan: start_early(_one_run(plan), ray))
        plan = _one_run(plan)
        if parsed.words.dry_run:
            print(plan_text(plan, full=True))
            return EXIT_DONE
        from harness.store import latest_runs, load
        from harness.tuning.run_plan import run_plan

        failed = run_plan(plan, mlflow=OFF).failed
    for line in failed:
        print(f"failed: {shown(line)}", file=sys.stderr)
    results = load(plan.machine.store)
    rows = {row["key"]: row for row in latest_runs(results.runs).iter_rows(named=True)}
    print(run_text(results, plan.resolve(plan.studies[0].study, {}, parsed.words.seed).stands_as(rows)))
    return EXIT_FAILED if failed else EXIT_DONE


def _one_run(plan: Plan) -> Plan:
    return dataclasses.replace(plan, studies=plan.studies[:1], by_id={})


if __name__ == "__main__":
    raise SystemExit(main(run))
