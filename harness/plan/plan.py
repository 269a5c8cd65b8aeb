"""Words to a pure list of studies and runs, checked whole before anything starts. Never imports Ray."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from harness.api.dataset import Dataset
from harness.cli.parsing import Parsed
from harness.cli.run_words import Words
from harness.datasets.disk.looking import looked_at_once
from harness.datasets.splits import SplitPlan
from harness.errors import BadInput, Problem
from harness.files import digest_of
from harness.plan.config import Machine, RunConfig, content_key
from harness.plan.inputs import unread_knobs
from harness.plan.knobs import typed_knobs
from harness.plan.payload import Origin, Payload
from harness.plan.planned import SINGLE, PlannedStudy, PlanRow
from harness.plan.recipes import recipe_of
from harness.plan.row import Drafted, OpenDatasets, draft_part
from harness.plan.stage_words import StageWords
from harness.plan.studies import Study

__all__ = ["Plan", "PlanRow", "PlannedStudy", "make_plan"]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A sweep before it runs: its studies, and the parts (sets of words, data, machine) that they come from."""

    sweep: str
    parts: tuple[PlanRow, ...]
    studies: tuple[PlannedStudy, ...]
    by_id: dict[str, PlannedStudy] = field(default_factory=dict)

    @property
    def words(self) -> Words:
        """The words of the first part; those of the sweep as a whole (store, ray, mlflow, ...) are equal in all."""
        return self.parts[0].words

    @property
    def machine(self) -> Machine:
        """The machine of the first part; the store is that of all."""
        return self.parts[0].machine

    @property
    def dataset(self) -> Dataset:
        """The dataset of the first part."""
        return self.parts[0].dataset

    @property
    def splits(self) -> SplitPlan:
        """The splits of the first part."""
        return self.parts[0].splits

    @property
    def gpus(self) -> float:
        """GPUs per worker, equal in all parts."""
        return self.parts[0].gpus

    def planned(self, study_id: str) -> PlannedStudy:
        """The study of this id."""
        if not self.by_id:
            self.by_id.update({p.study.id: p for p in self.studies})
        return self.by_id[study_id]

    def fitted(self, planned: PlannedStudy) -> dict[str, Any]:
        """Values of a study's card that were fitted to its size (design section 4), from the method as built."""
        from harness.plan.build import build_method

        return build_method(planned.run, planned.part.dataset, planned.pretrained.path).describe()

    @staticmethod
    def target(config: str) -> str:
        """What the objective of a stored run (its column `config`) scores: the last target of its recipe."""
        return recipe_of(RunConfig.from_stored(config)).targets[-1]

    def resolve(
        self, study: Study, knobs: Mapping[str, Any], seed: int, *, trial: int = 0, role: str = "trial"
    ) -> Payload:
        """The run of a study with these knobs and seed, as `engine.run.execute` takes it.

        Raises BadInput when a rule between knobs is broken.
        """
        planned = self.planned(study.id)
        part = planned.part
        run = planned.run.with_knobs(knobs, seed)
        typed_knobs(run.chosen.spec, run.knobs)
        data = part.data(run.labels)

        def key(every: str) -> str:
            return content_key(
                run,
                train_fingerprint=data.train,
                weights_digest=planned.pretrained.digest,
                versions=planned.versions,
                data=every,
            )

        machine = dataclasses.replace(
            part.machine,
            weights=planned.pretrained.path,
            weights_digest=planned.pretrained.digest,
            network_weights={name: found.path for name, found in planned.further.items()},
        )
        return Payload(
            key=key(data.every),
            earlier_key=key("") if data.every else "",
            run=run,
            machine=machine,
            data=data,
            versions=planned.versions,
            origin=Origin(sweep=self.sweep, study=study.id, trial=trial, role=role),
            pretraining=planned.pretrained.with_further(planned.further).stored(),
            ablation=planned.ablation,
            workers=study.workers,
            gpus=study.gpus,
        )


def make_plan(
    parsed: Parsed | Sequence[Parsed],
    *,
    single: bool = False,
    stored: RunConfig | None = None,
    beside: Callable[[Plan], object] | None = None,
) -> Plan:
    """The plan of `harness.sweep`, of several sets of words as one sweep, or of one run (for `harness.train`), also of
    a `stored` config.

    `beside` is called with the plan once words, data and knobs are found good, while another thread builds its networks
    without numbers, which takes seconds.
    Raises BadInput with every problem of words, methods, knobs, data, weights and machine at once.
    """
    given = [parsed] if isinstance(parsed, Parsed) else list(parsed)
    opened, stage_words = OpenDatasets(), StageWords()
    problems = unread_knobs(given, single)
    drafts: list[Drafted] = []
    with looked_at_once():
        for one in given:
            try:
                drafts.append(draft_part(one, opened, stage_words, single=single, stored=stored))
            except BadInput as e:
                problems.extend(p for p in e.problems if p not in problems)
    if stage_words.rows == len(given):
        problems += stage_words.problems()
    if problems:
        raise BadInput([*problems, *(p for draft in drafts for p in draft.problems() if p not in problems)])
    if beside is None:
        return _assembled(_checked(drafts), single)
    with ThreadPoolExecutor(1, "networks") as pool:
        checking = pool.submit(_checked, drafts)
        beside(_assembled([(draft.part, draft.studies) for draft in drafts], single))
        return _assembled(checking.result(), single)


def _checked(drafts: Sequence[Drafted]) -> list[tuple[PlanRow, list[PlannedStudy]]]:
    """The parts with the studies whose networks can be built. Raises BadInput with what does not fit in any."""
    problems: list[Problem] = []
    checked = []
    for draft in drafts:
        try:
            checked.append(draft.checked())
        except BadInput as e:
            problems.extend(p for p in e.problems if p not in problems)
    if problems:
        raise BadInput(problems)
    return checked


def _assembled(parts: Sequence[tuple[PlanRow, Sequence[PlannedStudy]]], single: bool) -> Plan:
    studies: dict[str, PlannedStudy] = {}
    for planned in (one for _, planned_of_part in parts for one in planned_of_part):
        _add(studies, planned)
    fingerprints = [dict(f) for f in dict.fromkeys(tuple(sorted(p.fingerprints.items())) for p, _ in parts)]
    data = fingerprints[0] if len(fingerprints) == 1 else sorted(fingerprints, key=digest_of)
    sweep = digest_of([sorted(studies), data])[:12]
    if single:
        sweep = f"{SINGLE}-{sweep}"
    return Plan(sweep=sweep, parts=tuple(part for part, _ in parts), studies=tuple(studies.values()))


def _add(studies: dict[str, PlannedStudy], planned: PlannedStudy) -> None:
    """Add a study unless an equal one is there; one that differs in its data alone gets an id of its own."""
    old = studies.get(planned.study.id)
    if old is not None and (old.part.all_data, old.pretrained) != (planned.part.all_data, planned.pretrained):
        # Pixels tell studies apart only where nothing else does: ids of studies without their digest stay.
        pixels = [planned.part.all_data.every] * (old.part.fingerprints == planned.part.fingerprints)
        end = digest_of([dict(planned.part.fingerprints), planned.pretrained.digest, *pixels])[:4]
        planned = dataclasses.replace(planned, study=dataclasses.replace(planned.study, id=f"{planned.study.id}{end}"))
    studies.setdefault(planned.study.id, planned)
