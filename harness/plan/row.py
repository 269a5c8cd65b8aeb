"""One set of words to its studies: methods, data and machine looked up, presets resolved, everything checked."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass

from harness.api.dataset import Dataset
from harness.api.precision import lacking
from harness.api.registry import Chosen, registry
from harness.api.spec import Preset, resolve
from harness.cli.parsing import Parsed, split_list
from harness.cli.run_words import Words
from harness.datasets.splits import SplitPlan
from harness.datasets.weak.density import density_text
from harness.errors import BadInput, BrokenPlugin, Problem
from harness.files import digest_of, local_root
from harness.plan.ablations import unknown_names
from harness.plan.config import Machine, RunConfig
from harness.plan.folders import with_digests
from harness.plan.inputs import (
    chosen_methods,
    data_warnings,
    gpus_per_worker,
    labels_of,
    open_data,
    takes_all,
    threads_per_worker,
)
from harness.plan.knobs import knob_problems
from harness.plan.on_cluster import gpus_of_cluster, planned_cluster, too_large
from harness.plan.one_study import check_networks, study_of
from harness.plan.payload import PlannedData
from harness.plan.planned import PlannedStudy, PlanRow
from harness.plan.resolve import check_words, resolve_run, size_problems
from harness.plan.stage_words import StageWords


class OpenDatasets:
    """Datasets that are open already: several sets of words mostly name the same one."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[Dataset, SplitPlan, PlannedData] | None] = {}

    def get(self, parsed: Parsed, problems: list[Problem]) -> tuple[Dataset, SplitPlan, PlannedData] | None:
        """Dataset, splits and their digests; None where they cannot be had, with problems the first time."""
        words: Words = parsed.words
        data = words.data
        name = digest_of([data.name, data.root, data.masks, data.classes, data.tune, sorted(parsed.options.items()),
                          words.protocol, words.split])  # fmt: skip
        if name not in self._found:
            opened = open_data(words, parsed.options, problems)
            self._found[name] = None if opened is None else (*opened, PlannedData.of(*opened))
        return self._found[name]


@dataclass(frozen=True)
class Drafted:
    """The studies of one set of words before their networks are built."""

    part: PlanRow
    studies: list[PlannedStudy]
    broken: list[Problem]
    """What is left out for being broken, where the words take all that is there."""

    def problems(self) -> list[Problem]:
        """What of its networks and weights does not fit, beside what is wrong already."""
        try:
            self.checked()
        except BadInput as e:
            return e.problems
        return []

    def checked(self) -> tuple[PlanRow, list[PlannedStudy]]:
        """The studies whose networks can be built. Raises BadInput for networks and weights that do not fit."""
        problems: list[Problem] = []
        broken, fitting = list(self.broken), []
        said_of_plugins = broken if takes_all(self.part.words) else problems
        for planned in self.studies:
            try:
                with registry().blamed(planned.run.chosen.spec):
                    check_networks(planned)
                fitting.append(planned)
            except BrokenPlugin as e:
                said_of_plugins.extend(p for p in e.problems if p not in said_of_plugins)
            except BadInput as e:
                problems.extend(p for p in e.problems if p not in problems)
        if problems:
            raise BadInput(problems)
        said = (*self.part.notes, *(f"left out: {p.where}: {p.found}; fix: {p.fix}" for p in broken))
        return dataclasses.replace(self.part, notes=said), fitting


def draft_part(
    parsed: Parsed,
    opened: OpenDatasets,
    stage_words: StageWords,
    *,
    single: bool = False,
    stored: RunConfig | None = None,
) -> Drafted:
    """The studies of one set of words, with `stored` the one run of that config; `Drafted.checked` builds them.

    `stage_words` is told what the set's methods read of words that only some recipes have.

    Raises BadInput with every problem of words, methods, knobs, data, weights and machine at once.
    """
    words: Words = parsed.words
    problems = [*parsed.problems, *check_words(words)]
    chosen = chosen_methods(words, single, problems)
    problems.extend(unknown_names(words.ablation, [c.spec for c in chosen]))
    labels, notes = labels_of(words, chosen, "pseudo" in parsed.options, problems)
    problems.extend(knob_problems(parsed.knobs, chosen))
    found = opened.get(parsed, problems)
    runs: list[RunConfig] = []
    broken: list[Problem] = registry().left_out() if takes_all(words) else problems
    if found is not None and not problems:
        runs = _runs(parsed, chosen, labels, found[0], problems, broken)
        if not problems:
            notes += stage_words.add(words, parsed.knobs, runs)
        problems.extend(dict.fromkeys(p for run in runs for p in size_problems(run, words)))
    cluster = planned_cluster(words, problems)
    gpus = gpus_of_cluster(words, cluster, problems) if words.elsewhere else gpus_per_worker(words, problems)
    if cluster is not None and not cluster.types:
        cluster = None  # it leaves to the machines what they have
    threads = threads_per_worker(words, gpus, problems)
    problems.extend(too_large(words, cluster, threads, gpus) if cluster is not None else ())
    problems.extend([] if words.elsewhere else lacking(words.precision, "cuda" if gpus else "cpu"))
    if found is None or problems:
        raise BadInput(problems)
    dataset, splits, all_data = found
    precision = words.precision if words.precision != "auto" else ("bf16" if gpus else "fp32")
    runs = [dataclasses.replace(run, precision=precision) for run in runs]
    if stored is not None:
        runs = [stored.with_knobs({}, words.seed)]
        problems.extend(size_problems(runs[0], words))
    weak: dict[str, str] = {}
    dense: dict[str, str] = {}
    for kind in dict.fromkeys(run.labels for run in runs if run.labels not in ("tags", "masks")):
        try:
            weak[kind] = dataset.weak_fingerprint(splits.train, kind)
            dense[kind] = density_text(dataset, splits.train, kind)
        except BadInput as e:
            problems.extend(e.problems)
    folders: dict[str, str] = {}
    odd: list[Problem] = []
    fitting = []
    for run in runs:
        try:
            fitting.append(with_digests(run, dataset, splits, folders, odd))
        except BadInput as e:
            problems.extend(p for p in e.problems if p not in problems)
    part = PlanRow(
        words=words,
        given=dict(parsed.given),
        machine=dataclasses.replace(_machine(words, gpus, threads), folders=folders),
        dataset=dataset,
        splits=splits,
        all_data=all_data,
        weak_fingerprints=weak,
        densities=dense,
        notes=tuple(notes),
        warnings=(*data_warnings(dataset, splits, {run.labels for run in runs}), *odd),
        gpus=gpus,
        cluster=cluster,
    )
    studies = []
    for run in fitting:
        try:
            with registry().blamed(run.chosen.spec):
                studies.append(study_of(run, parsed, part, single))
        except BrokenPlugin as e:
            broken.extend(p for p in e.problems if p not in broken)
        except BadInput as e:
            problems.extend(p for p in e.problems if p not in problems)
    draft = Drafted(part, studies, broken if takes_all(words) else [])
    if problems:
        raise BadInput([*problems, *(p for p in draft.problems() if p not in problems)])
    return draft


def _machine(words: Words, gpus: float, threads: int) -> Machine:
    return Machine(
        store=os.path.abspath(local_root(words.store)),
        data_root=_abs(words.data.root),
        classes_file=_abs(words.data.classes),
        threads=threads,
        loaders=words.loaders if words.loaders is not None else (None if gpus else 0),
        checkpoint_every=words.checkpoint_every,
        keep=tuple(split_list(words.keep)),
        protocol=words.protocol,
    )


def _runs(
    parsed: Parsed,
    chosen: list[Chosen],
    labels: Mapping[str, list[str]],
    dataset: Dataset,
    problems: list[Problem],
    broken: list[Problem],
) -> list[RunConfig]:
    """One run per method and kind of labels, its precision still open; baselines once per distinct network of the
    others."""
    words: Words = parsed.words
    runs: list[RunConfig] = []

    def add(c: Chosen, label: str, network: tuple[str, str] | None = None) -> None:
        try:
            with registry().blamed(c.spec):
                runs.append(
                    resolve_run(
                        c,
                        words,
                        family=dataset.family,
                        dataset=words.data.name,
                        labels=label,
                        precision=words.precision,
                        options=parsed.options,
                        knobs=parsed.knobs,
                        seed=words.seed,
                        network=network,
                    )
                )
        except BrokenPlugin as e:
            broken.extend(p for p in e.problems if p not in broken)
        except BadInput as e:
            problems.extend(p for p in e.problems if p not in problems)

    for c in (c for c in chosen if c.spec.network_of is None):
        for label in labels[c.name]:
            add(c, label)
    networks = list(dict.fromkeys((r.backbone, r.decoder) for r in runs))
    for c in (c for c in chosen if c.spec.network_of is not None):
        for label in labels[c.name]:
            for network in networks or [_network_of(str(c.spec.network_of), dataset.family, words)]:
                add(c, label, network)
    return runs


def _network_of(method: str, family: str, words: Words) -> tuple[str, str]:
    """Backbone and decoder of a method's preset."""
    spec = registry().spec(method)
    tier = words.tier or ("smoke" if words.data.name == "shapes" else "paper")
    preset: Preset = resolve(spec.preset)(family, tier, "default")
    return preset.backbone, preset.decoder


def _abs(path: str | None) -> str | None:
    return os.path.abspath(os.path.expanduser(path)) if path else None
