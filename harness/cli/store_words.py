"""The words of `python -m harness.store`."""

from __future__ import annotations

from dataclasses import dataclass

from harness.api.vocabulary import KEEP, SPLITS, TARGETS
from harness.cli.parsing import word


@dataclass
class WhereData:
    """Where the data of a run lies, if not where its sweep had it."""

    root: str | None = word(None, "where the run's dataset lies; default where its sweep had it")
    classes: str | None = word(None, "its file of class names; default that of its sweep")


@dataclass
class StoreWords:
    """Words of `python -m harness.store`."""

    store: str = word("results", "folder of results")
    run: str | None = word(None, "key of a finished run (its start is enough)", "export-masks", example="run=1a2b3c")
    split: str = word("train", "whose images", "export-masks", choices=SPLITS)
    out: str | None = word(
        None, "folder that is written; of export-optuna a new SQLite file", "export-masks", "export-optuna",
        example="out=masks",
    )  # fmt: skip
    target: str | None = word(
        None, "which masks; default pseudo where the method makes them, else cam, else segmentation", "export-masks",
        choices=TARGETS,
    )  # fmt: skip
    threshold: float | None = word(
        None, "score above which a map is foreground; default the run's held-out one, else the preset's", "export-masks"
    )
    images: bool = word(True, "off: no copies of the images beside the masks", "export-masks")
    again: bool = word(False, "make anew what an earlier call with other words left in out=", "export-masks")
    threads: int | None = word(None, "CPU threads; default all cores", "export-masks", least=1)
    data: WhereData = word(WhereData, "the run's data", "export-masks")
    mlflow: str | None = word(None, "tracking URI; default a local SQLite file in the store", "export-mlflow")
    keep: str = word(
        "last,best", "what stays on disk: last, best, maps, none; a list", "gc", choices=KEEP, several=True
    )
