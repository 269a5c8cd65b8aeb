"""`python -m harness.store`: housekeeping of a folder of results."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from harness.cli.parsing import help_text, main, parse, word
from harness.errors import EXIT_DONE, EXIT_FAILED, BadInput, Problem, nearest
from harness.files import local_root

ABOUT = "Look after a folder of results."
SUBCOMMANDS = {
    "export-mlflow": "fill MLflow from the store; what is there already is not sent again",
    "compact": "merge the many small files of a store; it reads as before, only faster",
    "gc": "drop checkpoints and maps of done runs that keep= does not name",
    "verify": "read everything, name damaged files; exit code 1 if there are any",
}


@dataclass
class StoreWords:
    """Words of `python -m harness.store`."""

    store: str = word("results", "folder of results")
    mlflow: str | None = word(None, "tracking URI; default a local SQLite file in the store", "store", "export-mlflow")
    keep: str = word("last,best", "what gc leaves on disk: last, best, maps, none; a list", "store", "gc")


def run(argv: list[str]) -> int:
    """Run one subcommand; raises BadInput for unknown words and for a folder that is not there."""
    if not argv or argv[0] in ("--help", "-h", "help") or "--help" in argv or "-h" in argv:
        print(help_text("harness.store", StoreWords, ABOUT, SUBCOMMANDS))
        return EXIT_DONE
    command = argv[0]
    if command not in SUBCOMMANDS:
        raise BadInput(Problem("subcommand", f"{command!r} is unknown", nearest(command, SUBCOMMANDS)))
    words: StoreWords = parse(argv[1:], StoreWords, command).words
    root = local_root(words.store)
    if not root.is_dir():
        raise BadInput(Problem("store", f"{root} does not exist", "name the folder of a sweep's results"))
    if command == "export-mlflow":
        return _export(words)
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
    if words.mlflow == "off":
        raise BadInput(Problem("mlflow", "off leaves nothing to fill", "give a tracking URI or leave the word out"))
    from harness.tracking.mlflow_export import export
    from reports.sections.leaderboard import build

    print(export(words.store, words.mlflow, leaderboard=lambda r, s: build(r, sweep=s).render("markdown")))
    return EXIT_DONE


def _verify(words: StoreWords) -> int:
    from harness.store.maintenance import verify

    report = verify(words.store)
    for item in report.damaged:
        print(f"damaged: {item.path}: {item.reason}")
    for name in report.incomplete:
        print(f"incomplete: eval {name} has no counts")
    print(f"{report.files} files read, {len(report.damaged)} damaged, {len(report.incomplete)} evals incomplete")
    return EXIT_DONE if report.sound else EXIT_FAILED


if __name__ == "__main__":
    sys.exit(main(run))
