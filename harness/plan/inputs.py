"""What the words name, looked up and checked: methods, data, labels, GPUs."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Collection, Mapping, Sequence

from harness.api.dataset import Dataset
from harness.api.registry import Chosen, registry
from harness.api.spec import MethodSpec
from harness.api.vocabulary import LABELS
from harness.cli.parsing import Parsed, split_list
from harness.cli.run_words import Words
from harness.datasets import DATASETS, open_dataset
from harness.datasets.disk.files import FileDataset
from harness.datasets.same_photos import same_photos
from harness.datasets.splits import SplitPlan, plan_splits
from harness.datasets.tag_questions import tag_warnings
from harness.errors import BadInput, Problem, nearest

ALL = "all"


def takes_all(words: Words) -> bool:
    """Whether the words ask for every method: one that is broken is left out then, and said."""
    return split_list(words.methods) == [ALL]


def chosen_methods(words: Words, single: bool, problems: list[Problem]) -> list[Chosen]:
    """The methods that the words name, of a sweep's plug-ins their bases too; unknown ones become problems."""
    known = registry()
    name = "method" if single else "methods"
    texts = split_list(words.method if single else words.methods)
    if not texts:
        problems.append(
            Problem(name, "is not given", f"for instance {name}={known.names()[0]}; known: {', '.join(known.names())}")
        )
    if single and len(texts) > 1:
        problems.append(Problem("method", f"{len(texts)} methods", "harness.train runs one; use harness.sweep"))
    if takes_all(words) and not single:
        return known.all()
    found = []
    for text in dict.fromkeys(texts):
        try:
            found.append(known.choose(text))
        except BadInput as e:
            problems.extend(e.problems)
    if not single:
        # A plug-in is judged by its difference to the base alone.
        bases = {c.base.name: Chosen(c.base) for c in found if c.base is not None}
        found.extend(c for name, c in bases.items() if name not in texts)
    return found


def unread_knobs(sets: Sequence[Parsed], single: bool) -> list[Problem]:
    """Knobs of methods that no set of words chooses which has them; words beside the rows of a plan are in all of them.

    Under `methods=all` every method is chosen. Sets whose methods are unknown are left out: that is said elsewhere.
    """
    word = "method" if single else "methods"
    given: dict[str, dict[str, str]] = {}
    chosen: dict[str, MethodSpec] = {}
    read: set[str] = set()
    for one in sets:
        unknown: list[Problem] = []
        found = chosen_methods(one.words, single, unknown)
        if unknown or takes_all(one.words):
            read |= set(one.knobs)
            continue
        specs = {spec.name: spec for c in found for spec in (c.spec, c.base) if spec is not None}
        chosen |= specs
        read |= set(one.knobs) & set(specs)
        for method, knobs in one.knobs.items():
            given.setdefault(method, {}).update(knobs)
    problems = []
    for method, knobs in given.items():
        for knob in knobs if method not in read else ():
            same = next((f"{spec.name}.{knob}" for spec in chosen.values() if knob in spec.config.knobs()), None)
            fix = f"add {method} to {word}=" if not single else f"{word}={method}"
            fix += f", or write {same}, or leave it out" if same else ", or leave it out"
            problems.append(Problem(f"{method}.{knob}", f"is for {method}, which {word}= does not name", fix))
    return problems


def open_data(words: Words, options: Mapping[str, str], problems: list[Problem]) -> tuple[Dataset, SplitPlan] | None:
    """The dataset and its splits, every image and mask of them checked; None where there are problems.

    Files are read only where words, folders and lists are right: reading may take a minute the first time.
    """
    if words.data.name not in DATASETS:
        problems.append(Problem("data", f"{words.data.name!r} is unknown", nearest(words.data.name, DATASETS)))
        return None
    try:
        dataset = open_dataset(
            words.data.name, root=words.data.root, masks=words.data.masks, classes=words.data.classes, options=options
        )
        if problems:
            return None
        dataset.check(_used(dataset))
        splits = plan_splits(dataset, words.data.tune, words.protocol, report=words.split)
    except BadInput as e:
        problems.extend(e.problems)
        return None
    return dataset, splits


def data_warnings(dataset: Dataset, splits: SplitPlan, labels: Collection[str]) -> list[Problem]:
    """What the plan says of data that can be trained on: odd masks, classes that tuning or tags cannot see, photos in
    two splits.

    Tags of generated pictures are not asked for: each would have to be drawn.
    """
    found = [*dataset.warnings(_used(dataset)), *splits.warnings]
    if isinstance(dataset, FileDataset):
        parts = {"train": splits.train, splits.tune_name: splits.tune, splits.report_name: splits.report}
        found += same_photos({name: dataset.image_digests(ids) for name, ids in parts.items()})
        if "tags" in labels:
            found += tag_warnings(dataset, splits.train)
    return found


def _used(dataset: Dataset) -> tuple[str, ...]:
    """The images that are trained on or can be scored."""
    used = [split for split, has_masks in dataset.splits().items() if has_masks or split == "train"]
    return tuple(image_id for split in used for image_id in dataset.ids(split))


def gpus_per_worker(words: Words, problems: list[Problem]) -> float:
    """GPUs per worker on this machine: as asked for, or 1 where it has one. More than there are is a problem.

    Where problems are known already, nothing will run, and torch, which takes seconds to import, is not asked: the
    system's devices say then whether there are too few. Nor is it where none is asked for and the system shows none.
    """
    if not words.gpus and (problems or words.gpus == 0 or not _gpu_devices()[0]):
        return 0.0
    found, seen = _gpu_devices() if problems else _gpus_of_torch()
    each = (1.0 if found else 0.0) if words.gpus is None else words.gpus
    if each * words.workers > found:
        problems.append(
            Problem(
                "gpus",
                f"{words.workers} worker(s) with {each:g} GPU(s) each, but this machine has {found:g} ({seen})",
                "fewer workers, a part of a GPU for each (gpus=0.5), gpus=0 for the CPU, or address=<ray cluster>",
            )
        )
    return each


def _gpus_of_torch() -> tuple[float, str]:
    """How many torch finds, and which torch that is."""
    import torch

    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return found, f"torch {torch.__version__}, CUDA {torch.version.cuda or 'none'}"


def _gpu_devices() -> tuple[float, str]:
    """How many the system shows, no fewer than torch finds; infinite where it shows that there are, but not how many:
    a subsystem of Windows, AMD's driver, boards of NVIDIA."""
    names = os.listdir("/dev")
    uncounted = {"dxg", "kfd", "nvhost-gpu"} & set(names)
    return (math.inf if uncounted else sum(bool(re.fullmatch(r"nvidia\d+", n)) for n in names)), "devices of the system"


def threads_per_worker(words: Words, gpus: float, problems: list[Problem]) -> int:
    """CPU threads per worker. On this machine all workers of a run must fit its cores: a problem where they do not."""
    local = words.ray and words.address is None
    cores = os.cpu_count() or 1
    auto = (min(4, max(1, cores // max(1, words.workers))) if local else 4) if gpus else 1
    threads = words.threads or auto
    if local and words.workers * threads > cores:
        problems.append(
            Problem(
                "workers",
                f"{words.workers} with {threads} thread(s) each, but this machine has {cores} core(s)",
                "lower workers or threads, or name a cluster by address=",
            )
        )
    return threads


def labels_of(
    words: Words, chosen: list[Chosen], pseudo: bool, problems: list[Problem]
) -> tuple[dict[str, list[str]], list[str]]:
    """Labels per method: those asked for that it reads, or its own.

    Full supervision stands beside whatever is asked for; on pseudo masks instead where a folder of them is given
    (`pseudo`), unless masks are asked for too.
    """
    asked = split_list(words.labels)
    notes: list[str] = []
    for label in asked:
        if label not in LABELS:
            problems.append(Problem("labels", f"{label!r} is unknown", nearest(label, LABELS)))
    out = {}
    for c in chosen:
        reads = c.spec.labels
        if "masks" in reads:
            own = "pseudo" if pseudo and "pseudo" in reads else "masks"
            out[c.name] = [a for a in asked if a in reads] or [own]
        elif not asked:
            out[c.name] = [reads[0]]
        else:
            out[c.name] = [a for a in asked if a in reads]
            if not out[c.name]:
                notes.append(f"{c.name} reads {', '.join(reads)} and is left out of labels={words.labels}")
    if asked and chosen and not any(out.values()):
        problems.append(
            Problem(
                "labels",
                f"no chosen method reads {words.labels}",
                "; ".join(f"{c.name} reads {', '.join(c.spec.labels)}" for c in chosen),
            )
        )
    if pseudo and chosen and not any("pseudo" in labels for labels in out.values()):
        found, fix = "no chosen method trains on pseudo masks here", "add methods=full, or leave data.pseudo out"
        problems.append(Problem("data.pseudo", found, fix))
    return out, notes
