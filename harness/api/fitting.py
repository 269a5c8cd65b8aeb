"""How a card's numbers are fitted to another size: design rules (b) momenta, (c) widths, (d) token lengths,
(e) auxiliary block. Pure functions of numbers; rule (a) is that every step number is a fraction of T."""

from __future__ import annotations

import dataclasses
import math
from typing import TypeVar

from harness.api.spec import MethodConfig

CARD_GRID = 28
"""Tokens per side of the cards' 448-pixel crop at stride 16."""
CARD_DIM = 768
"""Token dimension of the cards' ViT-B."""
FITTED_TIERS = ("smoke", "lab")
"""Tiers whose head widths follow the backbone's dimension."""

ConfigT = TypeVar("ConfigT", bound=MethodConfig)


def ema(momentum_card: float, card_iterations: int, iterations: int) -> float:
    """Momentum m in [0,1] for T steps that forgets as much over a run as the card's.

    1-m = min(.1, (1-m_card) T_card/T). A momentum of 1 stays 1. Raises ValueError outside [0,1] or for a T below 1.
    """
    if not 0.0 <= momentum_card <= 1.0:
        raise ValueError(f"momentum {momentum_card} is not in [0,1]")
    if card_iterations < 1 or iterations < 1:
        raise ValueError(f"iterations must be positive, got {card_iterations} and {iterations}")
    if card_iterations == iterations:
        return momentum_card
    return 1.0 - min(0.1, (1.0 - momentum_card) * card_iterations / iterations)


def head_width(card_width: int, dim: int, tier: str) -> int:
    """Width of a head on tokens of dimension `dim`: the card's, in tiers smoke and lab x dim/768.

    Rounded to the nearest multiple of 32 (halves up), at least 32.
    """
    if tier not in FITTED_TIERS:
        return card_width
    return max(32, 32 * math.floor(card_width * dim / CARD_DIM / 32 + 0.5))


def tokens(card_tokens: float, grid: int) -> int:
    """A length of `card_tokens` on the cards' 28x28 grid, in tokens of a `grid` x `grid` one; at least 1."""
    return max(1, math.floor(card_tokens * grid / CARD_GRID + 0.5))


def cells(grid: int, card_tokens: float) -> int:
    """Cells per side of a grid cut into blocks of `tokens(card_tokens, grid)`; the last cell may be cut."""
    return math.ceil(grid / tokens(card_tokens, grid))


def aux_block(depth: int, card_block: int = 10, card_depth: int = 12) -> int:
    """1-based block that feeds the auxiliary head: floor(depth x 10/12), at least 1."""
    return max(1, depth * card_block // card_depth)


def fit_momenta(config: ConfigT, *, card_iterations: int, iterations: int) -> ConfigT:
    """The config with every knob marked `fit="ema"` fitted from the card's T to this run's."""
    fitted = {name: ema(getattr(config, name), card_iterations, iterations) for name in _marked(config, "ema")}
    return dataclasses.replace(config, **fitted)


def fit_widths(config: ConfigT, *, dim: int, tier: str) -> ConfigT:
    """The config with every knob marked `fit="width"`, a width or several, fitted to tokens of dimension `dim`."""
    fitted: dict[str, int | tuple[int, ...]] = {}
    for name in _marked(config, "width"):
        card = getattr(config, name)
        many = isinstance(card, tuple)
        fitted[name] = tuple(head_width(w, dim, tier) for w in card) if many else head_width(card, dim, tier)
    return dataclasses.replace(config, **fitted)


def _marked(config: MethodConfig, fit: str) -> list[str]:
    return [name for name, knob in config.knobs().items() if knob.metadata.get("fit") == fit]
