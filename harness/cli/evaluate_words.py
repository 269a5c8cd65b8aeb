"""The words of `python -m harness.evaluate`, and which of them go together."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from harness.api.inference import inference_problems
from harness.api.registry import registry
from harness.api.vocabulary import LABELS, PROTOCOLS, SPLITS, TARGETS, VARIANTS
from harness.cli.parsing import Parsed, word
from harness.cli.run_words import Words
from harness.datasets import DATASETS
from harness.errors import BadInput, Problem, nearest
from harness.scoring.crf import NONE, PRESETS, crf_problems

BEST = "best"
NETWORKS = ("student", "teacher", BEST)
AUTO = "auto"


@dataclass
class EvaluateWords(Words):
    """Words of `harness.evaluate`; those that it shares with training mean the same."""

    run: str | None = word(None, "key of a finished run (its start is enough) that is scored again")
    weights: str | None = word(
        None, "with run=: student, teacher or best (of rungs); else a published weights file, with method= and data="
    )
    preds: str | None = word(
        None, "folder of another program's label maps: <image id>.png, palette or grey, 255 = no prediction"
    )
    cams: str | None = word(None, "folder of another program's CAMs: <image id>.npz or .npy, maps in [0,1]")
    name: str | None = word(None, "name of the row; needed with preds= and cams=")
    target: str | None = word(
        None,
        "what is scored: cam, pseudo or segmentation; default a method's last target, with cams= cam",
        choices=TARGETS,
    )
    labels: str | None = word(
        None, "what was learned from: tags, points, scribbles, ..., masks; default the method's", choices=LABELS
    )
    variant: str = word(
        AUTO,
        "which reading of a method: default, released or paper; auto: default, with weights= released where the method "
        "has it and knows the published file",
        choices=(AUTO, *VARIANTS),
    )
    protocol: str = word(
        AUTO,
        "how a CAM's threshold is chosen: fixed, held-out or oracle; default the run's, else see docs/evaluate.md",
        choices=(AUTO, *PROTOCOLS),
    )
    crf: str = word(NONE, f"dense CRF: {', '.join(PRESETS)}; with preds= what was applied to the masks already")
    split: str | None = word(
        None, "split that is scored; default the run's, else test where it has masks, else val", choices=SPLITS
    )
    threads: int | None = word(None, "CPU threads and processes; default all cores", least=1)


MODES: Mapping[str, tuple[str, ...]] = {
    "run": (
        "run", "weights", "target", "scales", "flip", "fusion", "crf", "split", "protocol", "data.root",
        "data.classes", "gpus", "threads", "precision", "store", "dry_run",
    ),
    "weights": (
        "weights", "method", "name", "target", "data.name", "data.root", "data.masks", "data.classes", "labels",
        "backbone.name", "decoder", "variant", "tier", "crop", "scales", "flip", "fusion", "crf", "split", "protocol",
        "ablation", "seed", "gpus", "threads", "precision", "store", "dry_run",
    ),
    "preds": (
        "preds", "name", "target", "data.name", "data.root", "data.masks", "data.classes", "labels", "backbone.name",
        "decoder", "variant", "tier", "crf", "split", "seed", "threads", "store", "dry_run",
    ),
    "cams": (
        "cams", "name", "target", "data.name", "data.root", "data.masks", "data.classes", "data.tune", "labels",
        "backbone.name", "variant", "tier", "split", "protocol", "seed", "threads", "store", "dry_run",
    ),
}  # fmt: skip
"""The words of each kind of evaluation; `data.<option>` goes with all but the first, knobs with `weights`."""


def mode_of(parsed: Parsed) -> str:
    """run, weights, preds or cams. Raises BadInput for none or several, for words that do not go with it, and for what
    is wrong with the words themselves, all at once."""
    words: EvaluateWords = parsed.words
    asked = [name for name in MODES if getattr(words, name)]
    if words.run and "weights" in asked:
        asked.remove("weights")
    if len(asked) != 1:
        found = f"{', '.join(asked)} are given together" if asked else "none of run, weights, preds, cams is given"
        fix = "run=<key>, weights=<file> method=..., preds=<folder> name=..., or cams=<folder> name=..."
        raise BadInput([*parsed.problems, Problem("words", found, fix)])
    mode = asked[0]
    problems = [*parsed.problems, *misplaced(parsed, mode, MODES[mode], options=mode != "run", knobs=mode == "weights")]
    problems += _values(words, mode) + unknown_names(words)
    if problems:
        raise BadInput(problems)
    return mode


def misplaced(parsed: Parsed, mode: str, known: Collection[str], *, options: bool, knobs: bool) -> list[Problem]:
    """The words on the line that do not go with `mode=`, whose own are `known`; `options` of datasets and `knobs` of
    methods go with some."""
    sections = ("data", "backbone")
    problems = []
    for given in parsed.given:
        name = f"{given}.name" if given in sections else given
        option = options and name.startswith("data.") and name[5:] in parsed.options
        knob = knobs and name.partition(".")[0] in parsed.knobs
        if name not in known and not option and not knob:
            problems.append(Problem(given, f"does not go with {mode}=", f"it takes: {', '.join(known)}"))
    return problems


def unknown_names(words: Words) -> list[Problem]:
    """A method or a dataset that is not registered."""
    known = {"method": (words.method, registry().names()), "data": (words.data.name, DATASETS)}
    return [
        Problem(name, f"{value!r} is unknown", nearest(value, names))
        for name, (value, names) in known.items()
        if value is not None and value.rpartition("+")[2] not in names
    ]


def _values(words: EvaluateWords, mode: str) -> list[Problem]:
    """Rules on words alone."""
    problems = []
    if mode == "run" and words.weights not in (None, *NETWORKS):
        problems.append(Problem("weights", f"{words.weights!r} is unknown", f"with run= it is {', '.join(NETWORKS)}"))
    if mode == "preds":
        if words.crf not in (NONE, *PRESETS):
            problems.append(Problem("crf", f"{words.crf!r} is unknown", nearest(words.crf, (NONE, *PRESETS))))
    else:
        problems += crf_problems(words.crf)
    problems += inference_problems(words.scales, words.flip, words.fusion)
    if mode in ("preds", "cams") and not (words.name or "").strip():
        problems.append(Problem("name", "is not given", "name the row that the leaderboard shows: name=MyMethod"))
    if mode == "weights" and not words.method:
        problems.append(Problem("method", "is not given", "name the method that the weights are of: method=fsr"))
    wrong, other = {"preds": ("cam", "cams"), "cams": ("segmentation", "preds")}.get(mode, (None, ""))
    if wrong is not None and words.target == wrong:
        fix = f"leave it out, or give the folder as {other}="
        problems.append(Problem("target", f"{words.target} cannot come from {mode}=", fix))
    return problems
