"""Every knob of every registered method against values that nobody could mean: a config, or our error."""

from __future__ import annotations

import math
from typing import Any

import pytest

from harness.api.registry import registry
from harness.api.spec import MethodConfig, MethodSpec
from harness.errors import BadInput
from harness.plan.knobs import knob_from_text, plain, typed_knobs

EVERY = pytest.mark.parametrize("spec", registry().specs(), ids=lambda spec: spec.name)
NO_NUMBERS = (math.nan, math.inf, -math.inf, 10**400, True, "x", "", None, [], [1.0], {})
NO_WHOLE_NUMBERS = (*NO_NUMBERS, 1.5, 2**63, -(10**30))
NO_LISTS = ("x", 3, None, {}, [[1]], ["x"], [None], [math.nan], [math.inf], [True], [10**400])
HOSTILE_TEXTS = (
    "",
    " ",
    "x",
    "nan",
    "inf",
    "-inf",
    "1e999",
    "-1",
    "[]",
    "{}",
    "null",
    "1,,x",
    "0x10",
    "9" * 5000,
    "\0",
)
FREE_WORDS = {("brnf", "seeds")}
"""Knobs that are words of a user's own."""


def of_knob(spec: MethodSpec, name: str, value: Any) -> MethodConfig | None:
    """The config at the knob's value, else None; what is refused is named."""
    try:
        return typed_knobs(spec, {name: value})
    except BadInput as e:
        if not all(p.where.startswith(f"{spec.name}.") and p.found and p.fix for p in e.problems):
            raise
        return None


def of_another_kind(default: Any) -> tuple[Any, ...]:
    """Values that are of no knob with such a default."""
    if isinstance(default, bool):
        return 0, 1, 0.5, "true", None, [True], math.nan
    if isinstance(default, int):
        return NO_WHOLE_NUMBERS
    if isinstance(default, float):
        return NO_NUMBERS
    if isinstance(default, tuple):
        return (*NO_LISTS, [1.5]) if isinstance(default[0], int) else NO_LISTS
    return None, 3, 0.5, True, ["x"], {}


@EVERY
def test_what_is_of_another_kind_is_refused_by_one_rule(spec: MethodSpec) -> None:
    for name, field in spec.config.knobs().items():
        for value in of_another_kind(field.default):
            with pytest.raises(BadInput) as caught:
                typed_knobs(spec, {name: value})
            (problem,) = caught.value.problems
            assert problem.where == f"{spec.name}.{name}"
            assert problem.found.startswith(f"{value!r} is no ")


@EVERY
def test_every_number_is_bounded_and_every_word_known(spec: MethodSpec) -> None:
    for name, field in spec.config.knobs().items():
        default, unit = field.default, field.metadata["unit"]
        if isinstance(default, bool):
            continue
        if isinstance(default, str):
            refused: list[Any] = ["nonsense"] if (spec.name, name) not in FREE_WORDS else []
        elif isinstance(default, tuple):
            refused = [[], [-1], [0], [10**12], [*default, -1], [*default, 10**12]]
        else:
            refused = [-1] if isinstance(default, int) else [-1e-3]
            refused += [10**12] if isinstance(default, int) else []
            if unit == "probability" or unit.startswith("share of T"):
                refused.append(math.nextafter(1.0, 2))
        for value in refused:
            assert of_knob(spec, name, value) is None, f"{spec.name}.{name}={value}"


@EVERY
def test_hostile_texts_are_answered(spec: MethodSpec) -> None:
    for name, field in spec.config.knobs().items():
        for text in HOSTILE_TEXTS:
            try:
                value = knob_from_text(spec, name, text)
            except BadInput as e:
                (problem,) = e.problems
                assert problem.where == f"{spec.name}.{name}"
                assert problem.found.startswith(f"{text!r} is no ")
                continue
            assert isinstance(value, type(plain(field.default)))
            of_knob(spec, name, value)


def test_what_is_right_stays_what_it_is() -> None:
    fsr = registry().spec("fsr")
    config = typed_knobs(fsr, {"mask_ratio": 0.5, "par_iterations": 0, "cam_scales": [1, 0.5], "mask_floor": True})
    assert (config.mask_ratio, config.par_iterations, config.mask_floor) == (0.5, 0, True)
    assert config.cam_scales == (1.0, 0.5)
    assert isinstance(config.cam_scales[0], float)
    assert isinstance(typed_knobs(fsr, {"w_cls": 2}).w_cls, float)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("mask_ratio=nan", "fsr.mask_ratio: 'nan' is no finite number\n    fix: share of the cells of view 2 that is"),
        ("mask_ratio=1.5", "fsr.mask_ratio: 1.5 is outside (0,1)"),
        ("par_iterations=-1", "fsr.par_iterations: -1 is outside [0,1000]"),
        ("par_iterations=ten", "fsr.par_iterations: 'ten' is no whole number\n    fix: iterations of the pixel-"),
        ("cam_scales=", "fsr.cam_scales: ()\n    fix: at least one number, each in [0.05,8]"),
        ("cam_scales=1,big", "fsr.cam_scales: '1,big' is no list of finite numbers\n    fix: image scales that"),
        ("mask_floor=2", "fsr.mask_floor: '2' is no switch (true or false)\n    fix: round the number"),
    ],
)
def test_what_is_said(text: str, said: str) -> None:
    name, _, raw = text.partition("=")
    fsr = registry().spec("fsr")
    with pytest.raises(BadInput) as caught:
        typed_knobs(fsr, {name: knob_from_text(fsr, name, raw)})
    assert str(caught.value).startswith(said)
