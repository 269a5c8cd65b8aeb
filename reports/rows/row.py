"""The words of a leaderboard: a row, how its targets were scored, a failure, and what is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.api.vocabulary import TARGETS
from harness.store.pretraining import Pretraining
from reports.rows.data import Data

USUAL_TAGS = {"cam": "truth", "pseudo": "truth", "segmentation": "none"}
RULES = ("fixed", "held-out", "oracle")


NO_RULE = "none"
"""Threshold rule of what has no threshold."""


@dataclass(frozen=True)
class Setting:
    """How a target was scored, besides the network: what a score's column must say."""

    target: str
    tags: str
    rule: str
    """Threshold rule: fixed, held-out, oracle, or none."""

    @property
    def quantity(self) -> str:
        """Name of the column: the target, and the tags where they are not the usual ones."""
        usual = self.tags == USUAL_TAGS.get(self.target, "none")
        return self.target if usual else f"{self.target}_{self.tags}"


@dataclass(frozen=True)
class ScoringOptions:
    """Scoring options that make a row of their own where a run was scored in several ways."""

    scales: str
    flip: bool
    fusion: str
    crf: str

    def __str__(self) -> str:
        parts = [f"scale{'s' if ',' in self.scales else ''} {self.scales}"]
        parts += ["flip"] * self.flip + [f"fused by {self.fusion}"] * (
            self.flip or "," in self.scales or " " in self.fusion
        )
        return ", ".join(parts)


@dataclass(frozen=True)
class Scored:
    """One target of one row: an eval for each seed."""

    evals: tuple[str, ...]
    thresholds: tuple[float, ...]
    images: int
    name: str = ""
    """Whose they are, for messages."""


@dataclass(frozen=True)
class Row:
    """One line of a leaderboard: a study's finals, all seeds together, scored in one way."""

    study: str
    method: str
    variant: str
    dataset: str
    supervision: str
    backbone: str
    decoder: str
    tier: str
    protocol: str
    weights: str
    split: str
    iterations: tuple[int, ...]
    trials: int
    seeds: tuple[int, ...]
    keys: tuple[str, ...]
    inference: ScoringOptions
    gpu_hours: float
    core_hours: float
    """CPU core-hours of the study's runs that had no GPU."""
    scores: Mapping[Setting, Scored]
    retried: bool
    """An out-of-memory retry changed a normaliser: shown, never ranked."""
    pixels_unknown: bool
    """Whether some run of it is from before the pixels of its images were recorded."""
    untimed: int
    """Failed and pruned runs of the study whose time the store does not know."""
    class_names: tuple[str, ...] = ()
    has_background: bool = True
    ablation: str = ""
    """Names of the ablations that it was run with."""
    extra: str = ""
    """What tells it from rows that look the same."""
    family: str = ""
    """Whose presets its dataset takes; empty in stores that do not say."""
    foreign: bool = False
    """Trained by another program: nobody here knows its protocol and its budget."""
    data: Data = field(default_factory=Data)
    pretraining: Pretraining = field(default_factory=Pretraining)
    """What its networks had learned from before, and the extra data in that."""
    spent: tuple[str, ...] = ()
    """Keys of all runs of the study, by the same code on the same data."""

    @property
    def title(self) -> str:
        """The method, with its ablation and what tells it from rows that look the same."""
        more = " ".join(part for part in (self.ablation, self.extra) if part)
        return f"{self.method} ({more})" if more else self.method

    @property
    def labels(self) -> str:
        """The labels that it learned from, and how much they label where the store says so."""
        return f"{self.supervision} ({self.data.density})" if self.data.density else self.supervision

    def setting(self, target: str, tags: str, rule: str) -> Setting | None:
        """Its setting of this threshold rule, or of what needs no threshold: label maps, and maps that have one of the
        background beside them. None where it was not scored so."""
        found = (Setting(target, tags, one) for one in (rule, NO_RULE))
        return next((setting for setting in found if setting in self.scores), None)

    @property
    def targets(self) -> tuple[str, ...]:
        """Scored targets in order cam, pseudo, segmentation."""
        found = {s.target for s in self.scores}
        return tuple(t for t in TARGETS if t in found)


@dataclass(frozen=True)
class Failure:
    """A run that failed, as it is listed below the leaderboard."""

    method: str
    study: str
    trial: int | None
    seed: int | None
    error_class: str
    message: str
    key: str


@dataclass(frozen=True)
class Filters:
    """Which part of the store is shown; None takes all."""

    sweep: str | None = None
    dataset: str | None = None
    tier: str | None = None
    weights: str = "student"
    split: str | None = None
