"""`python -m harness.predict`: masks of photos by the network of a run, or of a file of weights."""

from __future__ import annotations

import sys

from harness.api.registry import registry
from harness.cli.helping import help_text, wants_help
from harness.cli.parsing import main, parse
from harness.cli.predict_words import EVERY, PredictWords, mode_of
from harness.errors import EXIT_DONE, EXIT_FAILED, shown

ABOUT = """Predicts every photo of a folder and writes masks as palette PNGs (masks/), the photos under them (overlays/)
and, with probabilities=true, the scores of every label (scores/). The same command again goes on where it stopped.
  run=<key>                   the network that a finished run left in the store
  weights=<file> method=fsr   a file of weights (.pth, .safetensors), with data= or data.classes= for its classes"""


def run(argv: list[str]) -> int:
    """The command. Returns the exit code (1 where a photo could not be read); raises BadInput."""
    if wants_help(argv):
        print(help_text("harness.predict", PredictWords, ABOUT, {"--help": "this text"}, EVERY))
        return EXIT_DONE
    parsed = parse(argv, PredictWords, "predict", registry().names(), collect=True)
    mode = mode_of(parsed)
    if mode == "run":
        # Before all that imports torch, which takes seconds.
        from harness.evaluation.finished import find_run
        from harness.store import load

        find_run(load(parsed.words.store, ["runs"]), str(parsed.words.run))
    from harness.prediction.job import plan
    from harness.prediction.work import predict_all, turned_note, write_layout

    job = plan(parsed, mode)
    print(f"{job.chosen.described()}: {len(job.photos)} photos, {job.chosen.device}, {job.threads} threads")
    job.outputs.manifest.check(parsed.words.again)
    if parsed.words.dry_run:
        job.chosen.predictor()
        return EXIT_DONE
    told = predict_all(job)
    if told.turned:
        print(f"note: {shown(turned_note(told.turned))}", file=sys.stderr)
    for problem in told.unread:
        print(f"error: {problem}", file=sys.stderr)
    print(f"{told.written} predicted, {told.kept} done before; masks are in {shown(str(job.outputs.folder))}")
    if job.layout and told.unread:
        print(f"nothing is written for {job.layout}, which takes all images or none", file=sys.stderr)
    elif job.layout:
        print("\n".join(shown(line) for line in write_layout(job)))
    return EXIT_FAILED if told.unread else EXIT_DONE


if __name__ == "__main__":
    raise SystemExit(main(run))
