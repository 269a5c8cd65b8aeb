"""`python -m harness.sweep`: plan, studies, leaderboard. The same command again continues where it stopped."""

from __future__ import annotations

import shlex
import sys
from contextlib import ExitStack

from harness.api.registry import registry
from harness.cli.helping import help_text, wants_help
from harness.cli.parsing import main, parse, parse_rows
from harness.cli.run_words import StatusWords, Words
from harness.cli.tracking_uri import OFF
from harness.errors import EXIT_DONE, EXIT_FAILED, HarnessError, command, shown
from harness.files import plain_words

ABOUT = """Runs every study of the plan (methods x labels), each with its trials, then the chosen config with all seeds,
and prints the leaderboard. Running the same command again is how you resume. <method>.<knob>=value pins a knob."""
SUBCOMMANDS = {"status [store=...]": "show running, finished and dead runs of a store", "--help": "this text"}


def run(argv: list[str]) -> int:
    """The command. Returns the exit code; raises BadInput."""
    if wants_help(argv):
        print(help_text("harness.sweep", Words, ABOUT, SUBCOMMANDS))
        return EXIT_DONE
    if argv and argv[0] == "status":
        words = parse(argv[1:], StatusWords).words
        from harness.tuning.status import show_status

        return show_status(words)
    sets = parse_rows(argv, Words, "sweep", registry().names(), collect=True)
    from harness.plan.plan import make_plan
    from harness.tuning.early import start_early

    with ExitStack() as ray:
        plan = make_plan(sets, beside=lambda plan: start_early(plan, ray))
        from harness.tuning.describe import plan_text

        if plan.words.dry_run:
            print(plan_text(plan, full=True))
            return EXIT_DONE
        print(plan_text(plan), flush=True)
        from harness.store import load
        from harness.tuning.run_plan import run_plan
        from reports.format.output import screen_width
        from reports.page.tracked import pages
        from reports.rows.rows import TABLES
        from reports.sections.leaderboard import build

        ended = run_plan(plan, pages=pages)
    board = build(load(plan.machine.store, TABLES), sweep=plan.sweep)
    print(board.render("terminal", width=screen_width()))
    print(_where_next(plan.machine.store, plan.sweep, plan.words.mlflow, ended.experiment))
    print(f"  {_page(plan.machine.store)}")
    for line in ended.failed:
        print(f"failed: {shown(line)}", file=sys.stderr)
    return EXIT_FAILED if ended.failed else EXIT_DONE


def _page(store: str) -> str:
    """Where the page of the store has been written. Raises HarnessError where it could not be."""
    from reports.page.build import write_page

    try:
        return shown(str(write_page(store)))
    except OSError as error:
        raise HarnessError(f"the page could not be written to {store}: {plain_words(error)}") from error


def _where_next(store: str, sweep: str, mlflow: str | None, experiment: str) -> str:
    from harness.tracking.mlflow_client import local_uri, where_to_look

    tracking = () if mlflow == OFF else where_to_look(mlflow or local_uri(store), experiment)
    return "\n".join(
        (
            "Where to look next:",
            f"  {command('reports.leaderboard', store=store, sweep=sweep, per_class='true')}",
            f"  {command('reports.leaderboard', store=store, sweep=sweep, thresholds='true')}",
            *(f"  {line}" for line in tracking),
            f"  {shlex.join(['python', '-c', f'import harness.store as s; print(s.load({store!r}).runs)'])}",
        )
    )


if __name__ == "__main__":
    raise SystemExit(main(run))
