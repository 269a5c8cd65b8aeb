"""The generators that a method may draw from, seeded by place in the run and never by history."""

from __future__ import annotations

import random

import numpy as np
import torch


def seed_all(*place: int) -> None:
    """Seed torch, numpy and Python from a place such as (seed, step, group)."""
    word = int(np.random.SeedSequence([int(p) for p in place]).generate_state(1, np.uint64)[0])
    torch.manual_seed(word & 0x7FFFFFFFFFFFFFFF)
    np.random.seed(word & 0xFFFFFFFF)
    random.seed(word)
