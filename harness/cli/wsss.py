"""`wsss`: every command of the harness under one name; `wsss sweep ...` is `python -m harness.sweep ...`."""

from __future__ import annotations

import importlib
import pkgutil
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

from harness.cli.helping import wants_help
from harness.cli.packaged import cluster_files, plans
from harness.cli.parsing import main as answer
from harness.cli.parsing import subcommand
from harness.errors import EXIT_DONE

COMMANDS = {
    "sweep": "plan, studies, leaderboard; `wsss sweep status` shows what runs",
    "train": "one run",
    "evaluate": "score a run again, published weights, or another program's masks",
    "predict": "masks of photos",
    "data": "check a dataset, derive weak labels, import CAMs and tags",
    "cluster": "token and file of a Ray cluster, what it keeps on AWS",
    "store": "look after a folder of results, export masks and MLflow",
}
FILES = "files"


def reports() -> dict[str, str]:
    """The reports by name, with the first line of what they say of themselves."""
    folder = importlib.import_module("reports").__path__
    found = {}
    for module in pkgutil.iter_modules(folder):
        path = Path(next(iter(folder))) / (f"{module.name}/__main__.py" if module.ispkg else f"{module.name}.py")
        source = path.read_text(encoding="utf-8") if path.is_file() else ""
        if '__name__ == "__main__"' in source:
            said = source.removeprefix('"""').partition("\n")[0].rstrip('"')
            found[module.name] = said.partition("`: ")[2] or said
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code (2 for one that is unknown)."""
    return answer(_run, argv)


def _run(argv: list[str]) -> int:
    if argv[:1] == ["--version"]:
        import harness

        print(harness.__version__)
        return EXIT_DONE
    if not argv or (wants_help(argv) and argv[0].startswith("-")) or argv == ["help"]:
        print(_help())
        return EXIT_DONE
    known = {**{name: f"harness.{name}" for name in COMMANDS}, **{name: f"reports.{name}" for name in reports()}}
    name, rest = subcommand(argv, "wsss", [*known, FILES])
    if name == FILES:
        print("\n".join(map(str, (*plans().values(), *cluster_files()))))
        return EXIT_DONE
    # What the command prints of itself, and what it starts, is what `python -m` would have.
    sys.argv = [known[name], *rest]
    try:
        runpy.run_module(known[name], run_name="__main__", alter_sys=True)
    except SystemExit as e:
        return int(e.code or 0)
    return EXIT_DONE


def _help() -> str:
    lines = ["usage: wsss COMMAND [words]   each word is key=value; wsss COMMAND --help explains them", ""]
    lines += [f"  {name:<14} {text}" for name, text in {**COMMANDS, **reports()}.items()]
    return "\n".join([*lines, f"  {FILES:<14} where the plans and the examples of clusters lie"])
