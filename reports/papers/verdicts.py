"""Claims against runs of ours: which run stands beside a claim, how the two differ, and the verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any, Literal

from harness.api.registry import Chosen, registry
from harness.api.spec import Preset
from harness.api.vocabulary import TARGETS
from harness.plan.knobs import preset_knobs
from harness.scoring.metrics import mious
from harness.store import Results
from reports.format.table import Score
from reports.papers.claims import Claim
from reports.rows.data import from_json
from reports.rows.row import NO_RULE, USUAL_TAGS, Filters, Row, Scored, Setting
from reports.rows.rows import rows_of
from reports.rows.studies import by_key, chosen_runs

TOLERANCE = 0.5
"""Points of mIoU by which a claim may be missed and still count as reproduced."""
WIDEST = 1.0
"""Points: a half-width of the interval above this says nothing."""
SEGMENTER = "segmenter"
"""The network of a recipe that segmentation is scored from."""
SEEDS = 3
"""Fewer seeds than this have no interval to judge by."""
Verdict = Literal["reproduced", "above", "below", "too uncertain", "not run", "not comparable"]
BACKBONES = {
    "ViT-B": "vit_base_patch16_224.orig_in21k_ft_in1k",
    "DeiT-B": "deit_base_patch16_224.fb_in1k",
    "RN50": "resnet50.tv_in1k",
    "RN101": "resnet101.tv_in1k",
    "RN101s": "resnet101s.gluon_in1k",
}
"""Printed names to the timm weights that the papers start from (fsr.md and toco.md section 1, agmm.md section 3)."""


@dataclass(frozen=True)
class Judged:
    """A claim with the run of ours that stands beside it, if any."""

    claim: Claim
    verdict: Verdict
    why: str = ""
    row: Row | None = None
    score: Score | None = None
    """Mean over seeds and its 95 % t-interval, percent."""
    seeds: int = 0

    @property
    def difference(self) -> float | None:
        """Ours minus the claim, in points; None where the two may not be compared."""
        known = self.score is not None and self.verdict not in ("not run", "not comparable")
        return self.score.value - self.claim.value if known and self.score else None


class Judge:
    """The rows of a store that may stand beside claims: protocol `fixed` only."""

    def __init__(self, results: Results, weights: str = "student") -> None:
        self._results, self._weights = results, weights
        self._rows: dict[str, list[Row]] = {}
        self._runs = by_key(chosen_runs(results, Filters()))
        self._evals = {r["eval"]: r for r in results.evals.to_dicts()}

    def judge(self, claim: Claim) -> Judged:
        """The claim beside the run that differs from it in the fewest points, of equals the one with most seeds."""
        if claim.target not in TARGETS:
            return Judged(claim, "not run", f"the harness does not score {claim.target}")
        chosen = registry().find(claim.method)
        if chosen is None:
            base, plus, plugin = claim.method.rpartition("+")
            lacks = plus and plugin in registry().names() and base not in registry().names()
            return Judged(claim, "not run", "base not implemented" if lacks else "not in the harness")
        found = [(self._reasons(claim, row, chosen), row) for row in self._candidates(claim)]
        if not found:
            return Judged(claim, "not run", "no run with protocol fixed")
        # The newest of equals: a study that was run again by newer code is there twice.
        newest = sorted(found, key=lambda f: self._started(f[1]), reverse=True)
        reasons, row = min(newest, key=lambda f: (len(f[0]), -len(f[1].seeds)))
        values = self._values(claim, row)
        score = t_interval(values)
        if reasons:
            return Judged(claim, "not comparable", ", ".join(reasons), row, score, len(values))
        verdict, why = verdict_of(score, len(values), claim.value)
        return Judged(claim, verdict, why, row, score, len(values))

    def _candidates(self, claim: Claim) -> list[Row]:
        if claim.split not in self._rows:
            self._rows[claim.split] = rows_of(self._results, Filters(weights=self._weights, split=claim.split))
        rows = [r for r in self._rows[claim.split] if (r.method, r.protocol) == (claim.method, "fixed")]
        return [r for r in rows if _setting(claim, r) is not None]

    def _started(self, row: Row) -> str:
        return max(str(self._runs[k]["started"]) for k in row.keys)

    def _values(self, claim: Claim, row: Row) -> list[float]:
        """mIoU of each seed, percent."""
        evals = _scored(claim, row).evals
        found = dict(mious(self._results.counts_by_eval.of(list(evals))).select("eval", "miou").iter_rows())
        return [100 * float(found[e]) for e in evals]

    def _reasons(self, claim: Claim, row: Row, chosen: Chosen) -> list[str]:
        """In what claim and run differ, in words; empty where they may be compared."""
        config = from_json(self._runs[row.keys[0]]["config"])
        scored = self._evals[_scored(claim, row).evals[0]]
        further = dict(config.get("networks") or {})
        backbone = row.backbone
        if claim.target == "segmentation" and SEGMENTER in further:
            backbone = further[SEGMENTER]["backbone"]
        reasons = [
            f"{name} {ours}"
            for name, ours, theirs in (
                ("data", row.dataset, claim.dataset),
                ("supervision", row.supervision, claim.supervision),
                ("backbone", backbone, claim.backbone and BACKBONES.get(claim.backbone, claim.backbone)),
                ("CRF", scored["crf"] or "none", claim.crf),
            )
            if theirs is not None and ours != theirs
        ]
        if claim.scales is not None and sorted(_scales(scored["scales"])) != sorted(claim.scales):
            reasons.append(f"scales {scored['scales']}")
        return reasons + _work_reasons(claim, row, config, chosen)


def verdict_of(score: Score, seeds: int, claim: float) -> tuple[Verdict, str]:
    """Verdict and reason of a comparable run: where its interval lies against the claim with its tolerance."""
    if seeds < SEEDS:
        return "too uncertain", f"{seeds} of {SEEDS} seeds"
    half = (score.high - score.low) / 2
    if half > WIDEST:
        return "too uncertain", f"half-width {half:.1f}"
    if score.low > claim + TOLERANCE:
        return "above", ""
    return ("below", "") if score.high < claim - TOLERANCE else ("reproduced", "")


def t_interval(values: Sequence[float]) -> Score:
    """Mean of one value per seed with its 95 % t-interval; NaN ends below two seeds."""
    if len(values) < 2:
        return Score(mean(values), math.nan, math.nan)
    from scipy.special import stdtrit

    half = float(stdtrit(len(values) - 1, 0.975)) * stdev(values) / math.sqrt(len(values))
    middle = mean(values)
    return Score(middle, middle - half, middle + half)


def family_of(config: Mapping[str, Any], dataset: str) -> str:
    """Whose presets a run took; stores from before it was written down know `shapes` and folders."""
    return str(config.get("family") or ("shapes" if dataset == "shapes" else "voc"))


def preset_of(chosen: Chosen, family: str, tier: str, variant: str) -> Preset | None:
    """A method's preset, or None where it no longer has the variant."""
    if variant not in chosen.spec.variants:
        return None
    return chosen.preset(family, tier, variant)


def changed_knobs(config: Mapping[str, Any], row: Row, chosen: Chosen) -> dict[str, Any]:
    """Knobs of a run that are not at the value of its preset; those of a plug-in's base as `base.knob`."""
    family = family_of(config, row.dataset)
    preset = preset_of(chosen, family, row.tier, row.variant)
    if preset is None:
        return {}
    changed = _changed(config.get("knobs"), preset_knobs(chosen.spec, preset))
    if chosen.base is not None:
        usual = preset_knobs(chosen.base, chosen.base_preset(family, row.tier, row.variant))
        changed |= {f"{chosen.base.name}.{k}": v for k, v in _changed(config.get("base_knobs"), usual).items()}
    return changed


def _changed(knobs: Mapping[str, Any] | None, usual: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in (knobs or {}).items() if k in usual and v != usual[k]}


def _work_reasons(claim: Claim, row: Row, config: Mapping[str, Any], chosen: Chosen) -> list[str]:
    """How the run's size of work and knobs differ from those of the method's card."""
    card = preset_of(chosen, claim.dataset, "paper", row.variant)
    if card is None:
        return [f"variant {row.variant}, which the method no longer has"]
    reasons = []
    # A recipe's steps are those of all its networks; `card_iterations` are those of the first.
    further = (card.networks.get(name, {}).get("iterations", card.iterations) for name in config.get("networks") or {})
    steps = card.card_iterations + sum(further)
    if row.iterations != (steps,):
        reasons.append(f"{'-'.join(map(str, row.iterations))} of {steps} iterations")
    for name in ("crop", "batch"):
        if name in config and config[name] != getattr(card, name):
            reasons.append(f"{name} {config[name]}")
    knobs = changed_knobs(config, row, chosen)
    return reasons + ([f"knobs {' '.join(sorted(knobs))}"] if knobs else [])


def _setting(claim: Claim, row: Row) -> Setting | None:
    return row.setting(claim.target, USUAL_TAGS[claim.target], NO_RULE if claim.target == "segmentation" else "fixed")


def _scored(claim: Claim, row: Row) -> Scored:
    setting = _setting(claim, row)
    assert setting is not None
    return row.scores[setting]


def _scales(text: str | None) -> list[float]:
    return [float(s) for s in (text or "1").split(",")]


def remarks_of(claims: Sequence[Claim]) -> tuple[str, ...]:
    """What the sources say of single numbers, equal remarks together."""
    rows: dict[str, dict[str, None]] = {}
    for claim in claims:
        if claim.remark:
            rows.setdefault(claim.remark, {})[claim.row] = None
    return tuple(f"{', '.join(names)}: {remark}" for remark, names in rows.items())
