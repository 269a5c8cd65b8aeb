"""Quasi-random rows: row i is a pure function of (seed, i), and the same for every method."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

COLUMNS = 64
"""Drawn for every space, however small: the scrambling depends on the number of columns."""


def sobol_row(seed: int, index: int) -> NDArray[np.float64]:
    """Row `index` (from 0) of the scrambled Sobol sequence of `seed`: (64,) numbers in [0,1).

    A space of d dimensions uses the first d columns. Raises ValueError for a negative index.
    """
    from scipy.stats import qmc

    if index < 0:
        raise ValueError(f"index {index} is negative")
    sequence = qmc.Sobol(COLUMNS, scramble=True, rng=seed)
    if index:
        sequence.fast_forward(index)
    with warnings.catch_warnings():
        # One row at a time is not a power of two: scipy warns of lost balance, the sequence is the same.
        warnings.simplefilter("ignore", UserWarning)
        return np.asarray(sequence.random(1)[0])
