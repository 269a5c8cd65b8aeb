"""`python -m harness.store`: housekeeping of a folder of results."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from harness.cli.helping import subcommand_help, wants_help
from harness.cli.parsing import main, parse, subcommand
from harness.cli.store_words import StoreWords
from harness.cli.tracking_uri import OFF, tracking_problems
from harness.errors import EXIT_DONE, EXIT_FAILED, BadInput, Problem, shown
from harness.files import local_root

ABOUT = "Look after a folder of results."
SUBCOMMANDS = {
    "export-masks": "the pseudo masks of a run's training images as a folder in VOC layout, to train on",
    "export-mlflow": "fill MLflow from the store; what is there already is not sent again",
    "export-optuna": "write the studies as a new SQLite file for optuna-dashboard",
    "compact": "merge the many small files of a store; it reads as before, only faster",
    "gc": "drop checkpoints and maps of done runs that keep= does not name",
    "verify": "read everything, name damaged files; exit code 1 if there are any",
}
NEEDED = {
    "export-masks": {"run": "run=<key>", "out": "out=<folder>"},
    "export-optuna": {"out": "out=studies.db, a new SQLite file"},
}
"""Words that a subcommand cannot do without, and how they are written."""


def run(argv: list[str]) -> int:
    """Run one subcommand; raises BadInput for unknown words and for a folder that is not there."""
    if wants_help(argv):
        print(subcommand_help("harness.store", StoreWords, ABOUT, SUBCOMMANDS, argv))
        return EXIT_DONE
    command, rest = subcommand(argv, "harness.store", SUBCOMMANDS)
    parsed = parse(rest, StoreWords, command, collect=True)
    words: StoreWords = parsed.words
    root = local_root(words.store)
    problems = list(parsed.problems)
    given = {p.where for p in problems}
    for name, example in NEEDED.get(command, {}).items():
        if getattr(words, name) is None and name not in given:
            problems.append(Problem(name, "is not given", example))
    if not root.is_dir():
        problems.append(Problem("store", f"{root} does not exist", "name the folder of a sweep's results"))
    if problems:
        raise BadInput(problems)
    if command == "export-mlflow":
        return _export(words)
    if command == "export-masks":
        return _export_masks(words)
    if command == "export-optuna":
        return _export_optuna(words)
    if command == "verify":
        return _verify(words)
    from harness.store.maintenance import compact, gc

    if command == "compact":
        made = compact(root)
        for path in made:
            print(path)
        print(f"{len(made)} merged files written" if made else "nothing to merge")
        return EXIT_DONE
    dropped = gc(root, words.keep)
    for path in dropped.paths:
        print(path)
    print(f"{len(dropped.paths)} dropped, {dropped.size / 2**20:.1f} MiB freed")
    if dropped.recent:
        print(f"{dropped.recent} cached outputs that no run names were used within a day and stay")
    return EXIT_DONE


def _export(words: StoreWords) -> int:
    off = Problem("mlflow", "off leaves nothing to fill", "give a tracking URI or leave the word out")
    if problems := [off] if words.mlflow == OFF else tracking_problems(words.mlflow):
        raise BadInput(problems)
    from harness.tracking.mlflow_client import local_uri, where_to_look
    from harness.tracking.mlflow_export import export
    from reports.page.tracked import pages

    summary = export(words.store, words.mlflow, pages=pages)
    print("\n".join((str(summary), *where_to_look(words.mlflow or local_uri(words.store), summary.experiment))))
    return EXIT_DONE


def _export_masks(words: StoreWords) -> int:
    # Before all that imports torch, which takes seconds.
    from harness.evaluation.finished import find_run
    from harness.store import Store, load

    store = Store(words.store)
    find_run(load(store.root, ["runs"]), str(words.run))
    from harness.prediction.export_masks import export, plan_export

    out = Path(str(words.out)).expanduser()
    job = plan_export(
        store, run=str(words.run), split=words.split, out=out, target=words.target, threshold=words.threshold,
        root=words.data.root, classes=words.data.classes, images=words.images, again=words.again,
    )  # fmt: skip
    print(job.described(), flush=True)
    made = export(job, words.threads)
    print(f"{made} masks made, {len(job.ids) - made} done before, in {shown(str(out))}")
    return EXIT_DONE


def _export_optuna(words: StoreWords) -> int:
    from harness.tracking.mlflow_client import sqlite_uri
    from harness.tracking.optuna_export import export_optuna

    out = Path(str(words.out)).expanduser()
    names = export_optuna(words.store, out)
    print(f"{len(names)} stud{'y' if len(names) == 1 else 'ies'} written: {', '.join(names)}")
    print(shlex.join(["optuna-dashboard", sqlite_uri(out.resolve())]))
    return EXIT_DONE


def _verify(words: StoreWords) -> int:
    from harness.store.maintenance import verify

    report = verify(words.store)
    for item in report.damaged:
        print(f"damaged: {item.path}: {item.reason}")
    for why in report.left_out:
        print(f"left out: {why}")
    for name in report.incomplete:
        print(f"incomplete: eval {name} has no counts")
    print(f"{report.files} files read, {len(report.damaged)} damaged, {len(report.incomplete)} evals incomplete")
    return EXIT_DONE if report.sound else EXIT_FAILED


if __name__ == "__main__":
    sys.exit(main(run))
