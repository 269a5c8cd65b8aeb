"""Paired differences behind docs/results.md:  python docs/results/paired.py docs/results/<store>

Compares all background, CAM at the fixed threshold and segmentation of each study's chosen run on the reported split.
"""

from __future__ import annotations

import sys

import polars as pl

import harness.store
from harness.scoring.intervals import difference, interval
from harness.scoring.metrics import all_background
from reports.rows.row import Filters
from reports.rows.rows import rows_of


def main(store: str) -> None:
    """Print mIoU with its interval for each row, then the differences between neighbours of the expected order."""
    results = harness.store.load(store)
    rows: dict[str, list[pl.DataFrame]] = {}
    chosen = [key for row in rows_of(results, Filters()) for key in row.keys]
    runs = results.runs.filter(pl.col("key").is_in(chosen)).sort("method", "seed")
    for run in runs.iter_rows(named=True):
        evals = results.evals.filter(
            (pl.col("key") == run["key"]) & (pl.col("split") == "test") & (pl.col("weights") == "student")
        )
        for e in evals.sort("target", "threshold_rule").iter_rows(named=True):
            counts = results.counts.filter(pl.col("eval") == e["eval"])
            rows.setdefault("all background", [all_background(counts)])
            name = " ".join(p for p in (run["method"], e["target"], e["threshold_rule"]) if p != "none")
            rows.setdefault(name, []).append(counts)
    for name, counts in rows.items():
        found = interval(counts)
        print(f"{name:<26}{100 * found.value:6.1f} [{100 * found.low:.1f}, {100 * found.high:.1f}]")
    order = [
        "all background",
        "cam cam fixed",
        "fsr cam fixed",
        "cam segmentation",
        "fsr segmentation",
        "full segmentation",
    ]
    print()
    for low in order[:-1]:
        for high in (o for o in order if o != low):
            if low in rows and high in rows and (low == "all background" or high == "full segmentation"):
                d = difference(rows[high], rows[low])
                print(f"{high} - {low}: {100 * d.value:+.1f} [{100 * d.low:+.1f}, {100 * d.high:+.1f}]")


if __name__ == "__main__":
    main(sys.argv[1])
