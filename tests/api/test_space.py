"""Spaces draw only legal settings, by Optuna and from the unit cube alike."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import optuna
import pytest

from harness.api.space import Choice, Float, Gap, Int, Space
from harness.api.spec import MethodConfig, knob
from harness.errors import Problem


@dataclass(frozen=True, kw_only=True)
class ToyConfig(MethodConfig):
    rate: float = knob(0.01, "learning rate", source="test")
    low: float = knob(0.25, "low", source="test")
    high: float = knob(0.55, "high", source="test")
    depth: int = knob(2, "depth", source="test")
    kind: str = knob("a", "kind", source="test")

    def problems(self) -> list[Problem]:
        bad = Problem("low", f"{self.low} is not below {self.high}", "raise high")
        return [] if self.low < self.high <= 1 else [bad]


SPACE = Space(
    {
        "rate": Float(1e-3, 1e-1, log=True),
        ("low", "high"): Gap(low=(0.05, 0.45), gap=(0.1, 0.5)),
        "depth": Int(1, 4),
        "kind": Choice("a", "b", "c"),
    }
)
PRESET = {"rate": 0.01, "low": 0.25, "high": 0.55, "depth": 2, "kind": "a"}


def test_names_and_size() -> None:
    assert SPACE.knobs == ("rate", "low", "high", "depth", "kind")
    assert SPACE.dims == 5
    assert list(SPACE.distributions()) == ["rate", "low", "high-low", "depth", "kind"]


def test_unit_cube_hand_computed() -> None:
    drawn = SPACE.from_unit([0.5, 0.25, 0.5, 0.75, 0.34])
    assert drawn == {"rate": 0.01, "low": 0.15, "high": 0.45, "depth": 4, "kind": "b"}
    first = {"rate": 1e-3, "low": 0.05, "high": 0.15, "depth": 1, "kind": "a"}
    last = {"rate": 0.1, "low": 0.45, "high": 0.95, "depth": 4, "kind": "c"}
    assert SPACE.from_unit([0.0] * 5) == first
    assert SPACE.from_unit([1.0] * 5) == last


def test_log_int_covers_its_range_evenly_on_the_log_scale() -> None:
    drawn = [Int(1, 64, log=True).from_unit(u) for u in np.linspace(0, 0.9999, 2000)]
    assert min(drawn) == 1
    assert max(drawn) == 64
    expected = math.log(8.5 / 0.5) / math.log(64.5 / 0.5)
    assert np.mean(np.array(drawn) <= 8) == pytest.approx(expected, abs=0.01)


def test_gap_never_inverts() -> None:
    for row in np.random.default_rng(1).random((500, SPACE.dims)):
        drawn = SPACE.from_unit(row)
        assert drawn["low"] + 0.0999 < drawn["high"] <= 0.95


def test_optuna_draws_are_points_of_the_space() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(50):
        trial = study.ask()
        drawn = SPACE.suggest(trial)
        assert set(drawn) == set(SPACE.knobs)
        assert SPACE.outside(drawn) == []
        near = {k: pytest.approx(v, rel=1e-4) if isinstance(v, float) else v for k, v in trial.params.items()}
        assert SPACE.params_of(drawn) == near


def test_params_of_the_preset() -> None:
    params = SPACE.params_of(PRESET)
    assert params == {"rate": 0.01, "low": 0.25, "high-low": pytest.approx(0.3), "depth": 2, "kind": "a"}
    frozen = optuna.trial.create_trial(params=params, distributions=SPACE.distributions(), value=0.5)
    assert frozen.params == params


def test_values_read_back_from_a_table_of_floats_are_accepted() -> None:
    space = Space({"depth": Int(1, 4), "size": Choice(16, 32)})
    params = space.params_of({"depth": 2.0, "size": 32.0})
    assert params == {"depth": 2, "size": 32}
    assert type(params["depth"]) is int
    assert type(params["size"]) is int


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"rate": 0.5}, "rate"),
        ({"low": 0.01}, "low"),
        ({"high": 0.3}, "high-low"),
        ({"depth": 2.5}, "depth"),
        ({"kind": "z"}, "kind"),
        ({"rate": float("nan")}, "rate"),
        ({"rate": True}, "rate"),
        ({"high": None}, "high-low"),
    ],
)
def test_values_out_of_range_are_named(change: dict[str, object], where: str) -> None:
    assert where in [p.where for p in SPACE.outside({**PRESET, **change})]
    with pytest.raises(ValueError, match=where):
        SPACE.params_of({**PRESET, **change})


def test_check_names_unknown_knobs_with_the_nearest() -> None:
    found = Space({"rat": Float(0, 1), "low": Float(0, 1)}).check(ToyConfig)
    assert [p.where for p in found] == ["rat"]
    assert "rate" in found[0].fix


def test_check_finds_settings_that_the_config_refuses() -> None:
    assert SPACE.check(ToyConfig, PRESET) == []
    found = Space({"low": Float(0.1, 0.5), "high": Float(0.3, 0.7)}).check(ToyConfig)
    assert [p.where for p in found] == ["low"]
    assert "the space allows" in found[0].found


def test_missing_preset_values_are_named() -> None:
    assert [p.where for p in SPACE.outside({"rate": 0.01, "low": 0.1})] == ["high", "depth", "kind"]


def test_without_drops_both_of_a_pair() -> None:
    assert SPACE.without("high", "kind").knobs == ("rate", "depth")
    assert SPACE.without().knobs == SPACE.knobs


@pytest.mark.parametrize(
    "make",
    [
        lambda: Float(1, 1),
        lambda: Float(0, 1, log=True),
        lambda: Float(0, math.inf),
        lambda: Int(3, 2),
        lambda: Choice("a"),
        lambda: Choice("a", "a"),
        lambda: Gap(low=(0, 1), gap=(0, 1)),
        lambda: Space({"a": Gap(low=(0, 1), gap=(0.1, 1))}),
        lambda: Space({("a", "b"): Float(0, 1)}),
        lambda: Space({"a": Float(0, 1), ("a", "b"): Gap(low=(0, 1), gap=(0.1, 1))}),
        lambda: SPACE.from_unit([0.5] * 4),
        lambda: SPACE.from_unit([0.5] * 4 + [1.2]),
    ],
)
def test_senseless_spaces_are_refused(make: object) -> None:
    with pytest.raises(ValueError):
        make()  # type: ignore[operator]
