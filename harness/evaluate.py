"""`python -m harness.evaluate`: score a finished run again, published weights, or another program's masks or CAMs."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from harness.api.registry import registry
from harness.cli.evaluate_words import EvaluateWords, mode_of
from harness.cli.helping import help_text, wants_help
from harness.cli.parsing import Parsed, main, parse
from harness.errors import EXIT_DONE

ABOUT = """Adds exactly one eval to a store, with its counts per image and class; what is there already is never written
again. Four kinds:
  run=<key>                    a finished run with other scales, flip, fusion, CRF, split, target or threshold rule
  weights=<file> method=fsr    a published checkpoint (.pth, .safetensors) under the names of a method
  preds=<folder> name=Mine     label maps of another program, as PNG
  cams=<folder> name=Mine      class activation maps of another program, as npz or npy, with the curve of all thresholds
The last three make a row of the leaderboard. Layouts of files and named inference protocols: docs/evaluate.md."""


def run(argv: list[str]) -> int:
    """The command. Returns the exit code; raises BadInput."""
    if wants_help(argv):
        print(help_text("harness.evaluate", EvaluateWords, ABOUT, {"--help": "this text"}))
        return EXIT_DONE
    parsed = parse(argv, EvaluateWords, "evaluate", registry().names(), collect=True)
    mode = mode_of(parsed)
    from harness.store import Store, load

    store = Store(parsed.words.store)
    if mode == "run":
        # Before all that imports torch, which takes seconds.
        from harness.evaluation.finished import find_run

        find_run(load(store.root, ["runs"]), str(parsed.words.run))
    return _foreign(parsed, store, mode) if mode in ("preds", "cams") else _network(parsed, store, mode)


def _network(parsed: Parsed, store: Any, mode: str) -> int:
    from harness.evaluation.again import plan_again
    from harness.evaluation.published import plan_published
    from harness.evaluation.record import known_eval, write_eval

    planned = plan_again(parsed, store) if mode == "run" else plan_published(parsed, store)
    job = planned.job
    what = f"{job.run.method} (variant {job.run.variant})"
    known = known_eval(store, job.columns)
    if known is not None:
        print(f"nothing to do: eval {known['eval']} is {what}, {_text(known)}")
        _show(store, known)
        return EXIT_DONE
    print(f"{what}: {_text(job.columns)}, {len(job.ids)} images, {job.device}, {job.threads} threads")
    if parsed.words.dry_run:
        return EXIT_DONE
    store.check_writable()
    tables = planned.score(store)
    write_eval(store, tables, getattr(planned, "row", None))
    _show(store, tables.evals[0])
    return EXIT_DONE


def _foreign(parsed: Parsed, store: Any, mode: str) -> int:
    from harness.evaluation.foreign_rows import plan_foreign
    from harness.evaluation.record import write_eval

    planned = plan_foreign(parsed, store, mode)
    rule = planned.columns["threshold_rule"]
    print(f"{planned.row['method']}: {_text(planned.columns)}, {len(planned.ids)} images, {planned.threads} threads")
    if rule == "oracle" and parsed.words.protocol == "auto":
        note = "threshold chosen on the scored split itself: the folder has no CAMs of the tuning split"
        print(note, file=sys.stderr)
    if parsed.words.dry_run:
        return EXIT_DONE
    store.check_writable()
    tables, known, warnings = planned.score(store)
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if known:
        print(f"nothing to do: eval {tables.evals[0]['eval']} has these counts")
    else:
        write_eval(store, tables, planned.row)
    _show(store, tables.evals[0])
    return EXIT_DONE


def _text(columns: Mapping[str, Any]) -> str:
    """How something is scored, in words."""
    parts = [f"{columns['target']} on {columns['split']}"]
    parts += [columns["weights"]] * (columns["weights"] != "student")
    parts += [f"scales {columns['scales']}"] * (columns["scales"] != "1") + ["flip"] * bool(columns["flip"])
    fused = "," in columns["scales"] or columns["flip"] or " " in columns["fusion"]
    parts += [f"fused by {columns['fusion']}"] * fused + [f"CRF {columns['crf']}"] * (columns["crf"] != "none")
    parts += [f"{columns['threshold_rule']} threshold"] * (columns["threshold_rule"] != "none")
    return ", ".join(parts)


def _show(store: Any, row: Mapping[str, Any]) -> None:
    """The eval's score with its interval, per class, and its paired difference to all else on the same images."""
    from harness.store import load
    from reports.format.output import screen_width
    from reports.rows.rows import TABLES
    from reports.sections.beside import beside

    print(beside(load(store.root, TABLES), str(row["eval"]), width=screen_width()).rstrip())


if __name__ == "__main__":
    raise SystemExit(main(run))
