"""The words of `python -m harness.predict`, and which of them go together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.api.inference import inference_problems
from harness.api.vocabulary import LABELS, TARGETS, VARIANTS
from harness.cli.evaluate_words import AUTO, NETWORKS, misplaced, unknown_names
from harness.cli.parsing import Parsed, word
from harness.cli.run_words import Words
from harness.errors import BadInput, Problem
from harness.scoring.crf import NONE, PRESETS, crf_problems

LAYOUTS = ("voc-test", "cityscapes", "acdc", "coco")
"""Of `harness.prediction.layouts`."""


@dataclass
class PredictWords(Words):
    """Words of `harness.predict`; those that it shares with scoring mean the same."""

    run: str | None = word(None, "key of a finished run (its start is enough) whose network predicts")
    weights: str | None = word(
        None, "with run=: student, teacher or best (of rungs); else a weights file, with method= and data="
    )
    images: str | None = word(None, "folder of photos, subfolders too", example="images=photos")
    out: str | None = word(None, "folder that is written; the same command again goes on there", example="out=masks")
    ids: str | None = word(None, "file with one image id per line: only these are predicted", example="ids=test.txt")
    tags: str | None = word(
        None, "classes that each image may hold: JSON {id: [class names]}, or a folder of VOC XML",
        example="tags=tags.json",
    )  # fmt: skip
    target: str | None = word(
        None, "what is predicted: cam, pseudo or segmentation; default a method's last target", choices=TARGETS
    )
    threshold: float | None = word(
        None, "score above which a CAM is foreground; default the run's held-out one, else the preset's"
    )
    overlays: bool = word(True, "off: no picture of each photo under its mask")
    probabilities: bool = word(False, "write the scores of every label too, as npz of half precision")
    layout: str | None = word(
        None, "write what a server takes too: voc-test, cityscapes, acdc or coco", choices=LAYOUTS
    )
    again: bool = word(False, "predict anew what an earlier call with other words left in out=")
    labels: str | None = word(None, "what was learned from; default the method's", choices=LABELS)
    variant: str = word(
        AUTO,
        "which reading of a method; auto: released where the method has it and knows the published file, else default",
        choices=(AUTO, *VARIANTS),
    )
    crf: str = word(NONE, f"dense CRF: {', '.join(PRESETS)}")
    threads: int | None = word(None, "CPU threads; default all cores", least=1)


SHARED = (
    "images", "out", "ids", "tags", "target", "threshold", "overlays", "probabilities", "layout", "again", "scales",
    "flip", "fusion", "crf", "gpus", "threads", "precision", "dry_run",
)  # fmt: skip
MODES: Mapping[str, tuple[str, ...]] = {
    "run": ("run", "weights", "store", *SHARED),
    "weights": (
        "weights", "method", "data.name", "data.root", "data.classes", "labels", "backbone.name", "decoder", "variant",
        "tier", "crop", "ablation", *SHARED,
    ),
}  # fmt: skip
"""The words of each source of weights; knobs go with the second."""
EVERY = tuple(dict.fromkeys(name for names in MODES.values() for name in names))


def mode_of(parsed: Parsed) -> str:
    """run or weights. Raises BadInput for neither, for words that do not go with it, and for what is wrong with the
    words themselves, all at once."""
    words: PredictWords = parsed.words
    mode = "run" if words.run else "weights"
    problems = list(parsed.problems)
    if not words.run and not words.weights:
        problems.append(Problem("words", "neither run nor weights is given", "run=<key>, or weights=<file> method=..."))
    problems += misplaced(parsed, mode, MODES[mode], options=False, knobs=mode == "weights")
    named = {p.where for p in problems}
    for name, what in (("images", "a folder of photos"), ("out", "a folder for what is predicted")):
        if getattr(words, name) is None and name not in named:
            problems.append(Problem(name, "is not given", f"{name}=<{what}>"))
    if words.images and not Path(words.images).expanduser().is_dir():
        problems.append(Problem("images", f"{words.images} is no folder", "images=<folder of .jpg and .png files>"))
    if mode == "run" and words.weights not in (None, *NETWORKS):
        problems.append(Problem("weights", f"{words.weights!r} is unknown", f"with run= it is {', '.join(NETWORKS)}"))
    if mode == "weights" and words.weights and not words.method:
        problems.append(Problem("method", "is not given", "name the method that the weights are of: method=fsr"))
    if words.threshold is not None and not 0 <= words.threshold <= 1:
        problems.append(Problem("threshold", f"{words.threshold:g} is outside [0,1]", "threshold=0.4"))
    problems += crf_problems(words.crf) + inference_problems(words.scales, words.flip, words.fusion)
    problems += unknown_names(words)
    if problems:
        raise BadInput(list(dict.fromkeys(problems)))
    return mode
