"""What `harness.predict` is asked for, checked whole: whose network, which photos, what is known of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.api.inference import Inference, inference_of
from harness.api.method import Method
from harness.api.recipe import Recipe
from harness.api.weight_files import read_weights
from harness.cli.evaluate_words import BEST
from harness.cli.parsing import Parsed
from harness.cli.predict_words import PredictWords
from harness.datasets.disk.tag_files import read_tags
from harness.datasets.io.images import some_of
from harness.engine.inference.counting import Target
from harness.engine.inference.predictions import MAPS
from harness.errors import BadInput, Problem
from harness.evaluation.finished import find_run
from harness.evaluation.job import device_of, precision_of, threads_of
from harness.evaluation.published import fitted_to, published_run
from harness.evaluation.trained import best_of, held_out, load_network, weights_of
from harness.files import digest_of, file_digest
from harness.plan.build import build_method
from harness.plan.config import RunConfig
from harness.plan.pretrained import RANDOM
from harness.plan.recipes import recipe_of, run_of
from harness.prediction import layouts
from harness.prediction.outputs import Outputs
from harness.prediction.photos import Labels, Photo, Photos, labels_of, listed
from harness.prediction.predictor import Predictor
from harness.scoring.crf import NONE
from harness.store import Results, Store, load
from harness.store.rows import json_of

CHECK = "check out the commit that the table runs names, or train again"


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """A network that predicts, before it is built: of a run, or of a file of weights."""

    run: RunConfig
    network: str
    files: Mapping[str, Path]
    """By network. Of a file of weights it is the only one."""
    labels: Labels
    target: Target
    how: Inference
    threshold: float
    device: str
    key: str = ""
    """Of the run; empty for a file."""
    published: bool = False
    trained: Mapping[str, Any] = field(default_factory=dict)
    """What it was trained on (`layouts.Trained`); empty for a file."""

    def predictor(self) -> Predictor:
        """The network, on its device. Raises BadInput where the weights do not fit."""
        empty = Photos(self.labels, {})
        if self.published:
            state = read_weights(self.files[self.network]).state
            built = build_method(self.run, empty, RANDOM)
            method = fitted_to(empty, built, self.run.chosen.spec, state)
        else:
            method = load_network(self.run, self.network, self.files, empty)
        return self._of(method.to(self.device).eval())

    def _of(self, method: Method) -> Predictor:
        if self.target.weights == "teacher" and method.teacher is None:
            raise BadInput(Problem("weights", f"{self.run.method} has no teacher", "weights=student"))
        return Predictor(
            method=method,
            labels=self.labels,
            target=self.target,
            how=self.how,
            crop=run_of(self.run, recipe_of(self.run).maker(self.network)).crop,
            threshold=self.threshold,
            bf16=self.run.precision == "bf16",
            device=self.device,
        )

    def described(self) -> str:
        """What predicts what, in one line."""
        how = f"threshold {self.threshold:g}" if self.target.name in MAPS else f"scales {self.how.scales_text}"
        parts = [f"{self.run.method} (variant {self.run.variant}): {self.target.name}", how]
        parts += [f"flip {self.how.flip}"] * (self.how.flip != "none") + [f"CRF {self.target.crf}"] * (
            self.target.crf != NONE
        )
        return ", ".join(parts)

    def identity(self) -> dict[str, Any]:
        """All that decides a mask but the photo, in words."""
        maps = self.target.name in MAPS
        seen = {} if maps else {"scales": self.how.scales_text, "flip": self.how.flip, "fusion": self.how.fusion_text,
                                "crf": self.target.crf}  # fmt: skip
        return {
            "method": self.run.method,
            "variant": self.run.variant,
            "config": digest_of(self.run.identity()),
            "weights": ", ".join(f"{name} {file_digest(path)}" for name, path in sorted(self.files.items())),
            "network": self.target.weights,
            "target": self.target.name,
            **seen,
            **({"threshold": self.threshold} if maps else {}),
            "crop": self.run.crop,
            "precision": self.run.precision,
            "classes": digest_of(list(self.labels.class_names)),
        }


@dataclass(frozen=True, kw_only=True)
class Job:
    """Everything that a call predicts and writes."""

    chosen: Chosen
    photos: Mapping[str, Photo]
    tags: Mapping[str, NDArray[np.float32]] | None
    outputs: Outputs
    threads: int
    layout: str | None = None


def plan(parsed: Parsed, mode: str) -> Job:
    """What the words ask for. Raises BadInput with every problem of words, weights, photos and tags at once."""
    words: PredictWords = parsed.words
    problems: list[Problem] = []
    out = Path(str(words.out)).expanduser()
    chosen, photos, tags = None, dict[str, Photo](), None
    try:
        chosen = of_run(words, problems) if mode == "run" else of_weights(parsed, problems)
    except BadInput as e:
        problems.extend(e.problems)
    try:
        ids = Path(words.ids).expanduser() if words.ids else None
        photos = listed(Path(str(words.images)).expanduser(), out, ids)
        if words.tags and chosen is not None:
            tags = _tags(Path(words.tags).expanduser(), chosen.labels, photos)
        if words.layout and chosen is not None:
            problems.extend(layouts.problems_of(words.layout, chosen.labels, photos))
    except BadInput as e:
        problems.extend(e.problems)
    if chosen is not None and chosen.target.name in MAPS:
        for name in ("scales", "flip", "fusion", "crf"):
            if name in parsed.given:
                problems.append(Problem(name, "is for segmenters; CAM scales are a knob of the method", "leave it out"))
        if not words.tags:
            found = f"a {chosen.target.name} is made of the classes that an image is known to hold"
            problems.append(Problem("tags", f"is not given, but {found}", "tags=<json>, or target=segmentation"))
    elif "threshold" in parsed.given:
        problems.append(Problem("threshold", "is for CAMs: a segmenter's best label counts", "leave it out"))
    if problems or chosen is None:
        raise BadInput(list(dict.fromkeys(problems)))
    outputs = Outputs(
        folder=out,
        identity=chosen.identity() | {"tags": "given" if tags is not None else "none"},
        labels=chosen.labels,
        overlays=words.overlays,
        scores=words.probabilities,
    )
    return Job(chosen=chosen, photos=photos, tags=tags, outputs=outputs, threads=threads_of(words), layout=words.layout)


def of_run(words: PredictWords, problems: list[Problem]) -> Chosen | None:
    """The network of a finished run that predicts a target. Raises BadInput for a run that is none; what else is wrong
    is added to the problems."""
    store = Store(words.store)
    results = load(store.root, ["runs", "evals", "artifacts"])
    row = find_run(results, str(words.run))
    config = json_of(row, "config")
    if {"foreign", "published"} & set(config):
        fix = "weights=<file> method=... predicts with a published file"
        raise BadInput(Problem("run", f"{row['key']} is {row['method']}, which was not trained here", fix))
    if not config.get("class_names"):
        raise BadInput(Problem("run", f"{row['key']} does not say which classes it has", CHECK))
    names = tuple(config["class_names"])
    labels = Labels(names, bool(config["has_background"]), str(config.get("family", "voc")))
    run = RunConfig.from_stored(row["config"])
    recipe = recipe_of(run)
    target = _target(words, run, recipe, problems)
    network = recipe.network_of(target.name) if target.name in recipe.targets else None
    if network is None:
        return None
    files = weights_of(results, row["key"], store, recipe, network, problems)
    if words.weights == BEST and network in files:
        best, _ = best_of(files[network], problems)
        files |= {} if best is None else {network: best}
    trained = {
        "pretraining": row["pretraining"],
        "dataset": row["dataset"],
        "masks": run.masks,
        "labels": row["supervision"],
        "tags": run.options.get("tags"),
    }
    return Chosen(
        **_seen(words, run, problems),
        network=network,
        files=files,
        labels=labels,
        target=target,
        threshold=_threshold(words, run, results, row, target),
        trained=trained,
        key=row["key"],
    )


def of_weights(parsed: Parsed, problems: list[Problem]) -> Chosen | None:
    """The network of a file of weights. What is wrong is added to the problems."""
    words: PredictWords = parsed.words
    path = Path(str(words.weights)).expanduser()
    try:
        read_weights(path)
    except BadInput as e:
        problems.extend(e.problems)
    labels = None
    try:
        labels = labels_of(words.data)
    except BadInput as e:
        problems.extend(e.problems)
    run = published_run(parsed, labels.family if labels else "voc", device_of(words, problems), problems)
    if run is None or labels is None or problems:
        return None
    recipe = recipe_of(run)
    target = _target(words, run, recipe, problems)
    network = recipe.training[0].network
    if target.name in recipe.targets and recipe.network_of(target.name) != network:
        fix = "run=<key> predicts with the networks of a run that was trained here"
        problems.append(Problem("target", f"{target.name} of {run.method} is not of the network of one file", fix))
        return None
    return Chosen(
        **_seen(words, run, problems),
        network=network,
        files={network: path},
        labels=labels,
        target=target,
        threshold=run.cam_threshold if words.threshold is None else words.threshold,
        published=True,
    )


def _seen(words: PredictWords, run: RunConfig, problems: list[Problem]) -> dict[str, Any]:
    """How a network sees images here: of a `Chosen` run, how and device."""
    device = device_of(words, problems)
    return {
        "run": dataclasses.replace(run, precision=precision_of(words, run.precision, device)),
        "how": inference_of(words.scales, words.flip, words.fusion, run.inference),
        "device": device,
    }


def _target(words: PredictWords, run: RunConfig, recipe: Recipe, problems: list[Problem]) -> Target:
    name = words.target or recipe.targets[-1]
    if name not in recipe.targets:
        problems.append(Problem("target", f"{run.method} makes no {name}", f"it makes: {', '.join(recipe.targets)}"))
    elif recipe.network_of(name) is None:
        able = [t for t in recipe.targets if recipe.network_of(t) is not None]
        found = f"no network predicts {name} of {run.method}: a stage writes it of the images of its dataset"
        fix = f"target={able[-1]}" if able else "none of its targets can be predicted of other images"
        problems.append(Problem("target", found, f"{fix}; harness.store export-masks has those of training images"))
    return Target(name, "teacher" if words.run and words.weights == "teacher" else "student", words.crf)


def _threshold(words: PredictWords, run: RunConfig, results: Results, row: Mapping[str, Any], target: Target) -> float:
    """As asked for; else what the run chose on its tuning split; else the preset's."""
    if words.threshold is not None:
        return words.threshold
    chosen = held_out(results, str(row["key"]), target.name, target.weights)
    return run.cam_threshold if chosen is None else chosen


def _tags(source: Path, labels: Labels, photos: Mapping[str, Photo]) -> dict[str, NDArray[np.float32]]:
    """What is known of each photo. Raises BadInput also for photos of which nothing is said."""
    tags = read_tags(source, labels.foreground, photos)
    missing = [image_id for image_id in photos if image_id not in tags]
    if missing:
        found = f"{source} says nothing of {len(missing)} of {len(photos)} photos: {some_of(missing)}"
        raise BadInput(Problem("tags", found, "add them ([] for none of the classes), or choose photos with ids="))
    return tags
