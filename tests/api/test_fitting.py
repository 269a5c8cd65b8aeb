"""Fitting rules of design section 4, with the examples it gives."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from harness.api import fitting
from harness.api.spec import MethodConfig, knob


@pytest.mark.parametrize(("grid", "block", "side"), [(28, 4, 7), (12, 2, 6), (10, 1, 10), (14, 2, 7), (37, 5, 8)])
def test_cells_of_the_card_block(grid, block, side):
    assert fitting.tokens(4, grid) == block
    assert fitting.cells(grid, 4) == side


def test_tokens_are_never_zero():
    assert fitting.tokens(1, 3) == 1
    assert fitting.cells(3, 1) == 3


@pytest.mark.parametrize(("depth", "block"), [(12, 10), (3, 2), (24, 20), (1, 1), (6, 5)])
def test_aux_block(depth, block):
    assert fitting.aux_block(depth) == block


@pytest.mark.parametrize(
    ("card", "t_card", "t", "expected"),
    [
        (0.9995, 20000, 20000, 0.9995),
        (0.9995, 80000, 20000, 0.998),
        (0.9995, 20000, 400, 0.975),
        (0.9995, 20000, 100, 0.9),
        (0.9995, 20000, 50, 0.9),
        (0.9, 20000, 100, 0.9),
        (0.9, 20000, 40000, 0.95),
        (1.0, 20000, 100, 1.0),
    ],
)
def test_ema(card, t_card, t, expected):
    assert fitting.ema(card, t_card, t) == pytest.approx(expected, abs=1e-12)


def test_a_low_card_momentum_is_kept_at_its_own_length():
    assert fitting.ema(0.5, 100, 100) == 0.5


@pytest.mark.parametrize("bad", [(-0.1, 10, 10), (1.1, 10, 10), (0.9, 0, 10), (0.9, 10, 0)])
def test_ema_refuses(bad):
    with pytest.raises(ValueError):
        fitting.ema(*bad)


@pytest.mark.parametrize(
    ("card", "dim", "tier", "expected"),
    [
        (512, 768, "paper", 512),
        (512, 192, "paper", 512),
        (512, 192, "lab", 128),
        (512, 96, "smoke", 64),
        (2048, 192, "lab", 512),
        (256, 96, "smoke", 32),
        (4096, 96, "smoke", 512),
        (256, 384, "lab", 128),
        (32, 96, "smoke", 32),
    ],
)
def test_head_width(card, dim, tier, expected):
    assert fitting.head_width(card, dim, tier) == expected


@dataclass(frozen=True, kw_only=True)
class Config(MethodConfig):
    momentum: float = knob(0.9995, "EMA", source="card", fit="ema")
    width: int = knob(512, "width", source="card", fit="width")
    plain: float = knob(0.3, "plain", source="card")


def test_momenta_and_widths_are_fitted_where_they_are_marked():
    momenta = fitting.fit_momenta(Config(plain=0.4), card_iterations=20000, iterations=400)
    fitted = fitting.fit_widths(momenta, dim=192, tier="lab")
    assert fitted.momentum == pytest.approx(0.975)
    assert (fitted.width, fitted.plain) == (128, 0.4)
