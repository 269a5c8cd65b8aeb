"""What paired comparisons share: counts of a row, and how its score reads."""

from __future__ import annotations

import math
from collections.abc import Sequence

from harness.scoring.intervals import Difference, Interval
from harness.store import Results
from reports.format.table import Score
from reports.rows.ranking import Counts
from reports.rows.row import Row, Scored


def counts_of(results: Results, scored: Sequence[Scored]) -> Counts:
    """The counts of these rows, by eval."""
    by_eval = results.counts_by_eval
    return {e: by_eval[e] for s in scored for e in s.evals if e in by_eval}


def inference_text(row: Row) -> str:
    """How a row's segmenter was scored, CRF included."""
    return str(row.inference) + (f", CRF {row.inference.crf}" if row.inference.crf != "none" else "")


def score_cell(value: Interval | Difference) -> Score | None:
    """A cell in percent; None for a class that is absent."""
    if math.isnan(value.value):
        return None
    return Score(100 * value.value, 100 * value.low, 100 * value.high)
