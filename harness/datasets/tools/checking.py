"""Everything that is wrong with a dataset at once, what it holds of each class, and digests of its splits."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from harness.api.dataset import Dataset
from harness.api.vocabulary import IGNORE
from harness.datasets import open_dataset, opener_of, split_options
from harness.datasets.disk import facts
from harness.datasets.disk.files import FileDataset
from harness.datasets.disk.layout import IMAGES, WORDS, Survey
from harness.datasets.disk.looking import Seen, look
from harness.datasets.disk.together import judge_together
from harness.datasets.io.images import merged
from harness.datasets.io.listing import given_path
from harness.datasets.same_photos import same_photos
from harness.datasets.splits import plan_splits
from harness.datasets.tag_questions import tag_warnings
from harness.datasets.tools.judging import judge_sparse, judge_tags, told_sources
from harness.errors import EXIT_DONE, EXIT_FAILED, BadInput, Problem


@dataclass(frozen=True)
class SplitReport:
    """One split: its images, how many of them have a mask, digest of ids and labels, and what each label covers."""

    name: str
    images: int
    masks: int
    fingerprint: str | None
    """None where a mask cannot be read."""
    images_by_label: Mapping[int, int] = field(default_factory=dict)
    pixels_by_label: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """What `check` found."""

    name: str
    layout: str
    class_names: tuple[str, ...]
    splits: tuple[SplitReport, ...]
    errors: tuple[Problem, ...]
    warnings: tuple[Problem, ...]
    seconds: float
    files: int
    """Images and masks that were read."""
    sources: Mapping[str, str] = field(default_factory=dict)
    """Where the sparse labels of each kind come from."""

    @property
    def exit_code(self) -> int:
        """1 where there is an error; warnings do not count (design section 3)."""
        return EXIT_FAILED if self.errors else EXIT_DONE

    def text(self) -> str:
        """The report as printed."""
        lines = [f"{self.name}: {self.layout}" if self.layout else self.name]
        for split in self.splits:
            masks = f"{split.masks} masks" if split.masks else "no masks"
            digest = split.fingerprint[:12] if split.fingerprint else "none: masks are missing or wrong"
            lines.append(f"  {split.name:<9} {split.images:>7} images, {masks:>12}, fingerprint {digest}")
        lines += [
            *self._classes(),
            *told_sources(self.sources),
            *_told("error", self.errors),
            *_told("warning", self.warnings),
        ]
        pace = f", {self.files / self.seconds:.0f} a second" if self.files and self.seconds else ""
        lines.append(
            f"{_counted(len(self.errors), 'error')}, {_counted(len(self.warnings), 'warning')}; "
            f"{self.files} files read in {self.seconds:.1f} s{pace}"
        )
        return "\n".join(lines)

    def _classes(self) -> list[str]:
        """Images that show each class by split, and its share of the labelled pixels of all."""
        held = [split for split in self.splits if split.images_by_label]
        if not held:
            return []
        pixels: Counter[int] = Counter()
        for split in held:
            pixels.update(split.pixels_by_label)
        labelled = sum(count for label, count in pixels.items() if label != IGNORE)
        width = max(len(name) for name in self.class_names)
        lines = [f"  {'images with':<{width + 4}}" + "".join(f"{split.name:>9}" for split in held) + "  of pixels"]
        for label, name in enumerate(self.class_names):
            counts = "".join(f"{split.images_by_label.get(label, 0):>9}" for split in held)
            share = 100 * pixels[label] / labelled if labelled else 0.0
            lines.append(f"  {label:>3} {name:<{width}}{counts}  {share:8.2f}%")
        void = 100 * pixels[IGNORE] / max(1, sum(pixels.values()))
        return [*lines, f"  255 (ignore) covers {void:.2f}% of all pixels"]


def survey(
    name: str,
    *,
    root: str | None = None,
    masks: str | None = None,
    classes: str | None = None,
    options: Mapping[str, str] | None = None,
) -> Survey:
    """What is at a place: the dataset as far as it goes, and all that is wrong with its folders and lists.

    Raises BadInput where the words themselves are wrong (no such dataset, folder or option).
    """
    opener = opener_of(name)
    if opener.survey is None:
        return Survey(open_dataset(name, root=root, masks=masks, classes=classes, options=options))
    asked = split_options(opener, options or {})
    early = [problem for option, text in asked.labels.items() for problem in _nowhere(f"data.{option}", text, root)]
    if early:
        raise BadInput(early)
    found: Survey = opener.look({"root": root, "masks": masks, "classes": classes}, asked.own)
    if found.dataset is not None:
        asked.choose(found.dataset)
        asked.draw(found.dataset)
    if asked.labels and found.dataset is not None:
        try:
            found.dataset.use_labels(**asked.labels)
        except BadInput as error:
            found.errors += error.problems
    if any(problem.where in WORDS for problem in found.errors):
        raise BadInput(found.errors)
    return found


def _nowhere(word: str, text: str, root: str | None) -> list[Problem]:
    """What is wrong with a path, told before anything of the dataset is read, where that can be said so early.

    Relative ones may start at the dataset's root, which is `root` itself if the images lie right in it.
    """
    place = Path(root or "").expanduser()
    if text and not Path(text).expanduser().is_absolute() and not (root and (place / IMAGES).is_dir()):
        return []
    try:
        given_path(word, text, place)
    except BadInput as error:
        return error.problems
    return []


def check(found: Survey) -> Report:
    """Read every file of a surveyed dataset anew, on all cores, and report everything."""
    start = time.perf_counter()
    dataset = found.dataset
    errors, warnings = list(found.errors), list(found.warnings)
    splits: list[SplitReport] = []
    sources: Mapping[str, str] = {}
    files = 0
    if isinstance(dataset, FileDataset):
        facts.forget(dataset.layout.root)
        looked = look(dataset, (image_id for split in dataset.splits() for image_id in dataset.ids(split)))
        wrong, odd = judge_together(dataset, looked.seen)
        errors += [*merged(looked.errors), *wrong]
        warnings += [*merged(looked.warnings), *odd]
        layout = dataset.layout
        files = sum((i in layout.images) + (i in layout.masks) for i in looked.seen)
        splits = [_split_of(dataset, split, looked.seen) for split in dataset.splits()]
        warnings += same_photos(
            {
                split: {i: image.digest for i in dataset.ids(split) if (image := looked.seen[i].image) is not None}
                for split in dataset.splits()
            }
        )
        judged = judge_sparse(dataset)
        errors += judged.errors
        warnings += [*judged.warnings, *judge_tags(dataset, looked.seen)]
        sources = judged.sources
        # Scenes without a background share classes as a rule; a plan that learns them from tags says so.
        if dataset.has_background and not errors and "train" in dataset.splits():
            warnings += tag_warnings(dataset, dataset.ids("train"))
    elif dataset is not None:
        splits, problems = _generated(dataset)
        errors += problems
    if dataset is not None:
        wrong, odd = _judge_splits(dataset, sound=not errors)
        errors += wrong
        warnings += odd
    return Report(
        dataset.name if dataset else "",
        found.layout,
        dataset.class_names if dataset else (),
        tuple(splits),
        tuple(dict.fromkeys(errors)),
        tuple(dict.fromkeys(warnings)),
        time.perf_counter() - start,
        files,
        sources,
    )


def _judge_splits(dataset: Dataset, *, sound: bool) -> tuple[list[Problem], list[Problem]]:
    """What a run would refuse of the splits (nothing to learn from, or to be scored on), and what tuning would miss.

    Where files are not `sound` classes cannot be counted, and the default protocol is left out.
    """
    try:
        plan_splits(dataset, protocol="fixed")
    except BadInput as error:
        return error.problems, []
    if not sound:
        return [], []
    try:
        return [], list(plan_splits(dataset).warnings)
    except BadInput as error:
        return [], error.problems


def _split_of(dataset: FileDataset, split: str, seen: Mapping[str, Seen]) -> SplitReport:
    ids = dataset.ids(split)
    masks = [fact for image_id in ids if (fact := seen[image_id].mask) is not None]
    images: Counter[int] = Counter()
    pixels: Counter[int] = Counter()
    for mask in masks:
        images.update(mask.labels)
        pixels.update(dict(zip(mask.labels, mask.pixels, strict=True)))
    whole = len(masks) == (len(ids) if dataset.splits()[split] else 0)
    sound = whole and not any(seen[image_id].errors for image_id in ids if seen[image_id].mask is not None)
    digest = dataset.fingerprint(ids) if sound else None
    return SplitReport(split, len(ids), len(masks), digest, images, pixels)


def _generated(dataset: Dataset) -> tuple[list[SplitReport], list[Problem]]:
    """Splits of a dataset that lies in no files, by its own check."""
    reports, problems = [], []
    for split, has_masks in dataset.splits().items():
        ids = dataset.ids(split)
        try:
            dataset.check(ids)
        except BadInput as error:
            problems += error.problems
            continue
        reports.append(SplitReport(split, len(ids), len(ids) if has_masks else 0, dataset.fingerprint(ids)))
    return reports, problems


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _told(kind: str, problems: tuple[Problem, ...]) -> list[str]:
    return [f"{kind}: {problem}" for problem in problems]
