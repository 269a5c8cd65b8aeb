"""Optuna's storage made from the store, for `optuna-dashboard`: studies that searched, and what their trials heard."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from harness.errors import BadInput, Problem, StoreError
from harness.files import atomic, plain_words
from harness.plan.rebuilt import rebuilt_studies
from harness.store.reading import load
from harness.tracking.mlflow_client import sqlite_uri

TABLES = ("runs", "trials", "steps")


def export_optuna(store_path: str | Path, out: str | Path) -> tuple[str, ...]:
    """Write the studies of a store as an Optuna storage in the new SQLite file `out`; their names.

    Studies in which nothing was searched are none of Optuna's. Trials have their objective (share of 1), what they
    scored at rungs as intermediate values at per cent of the run, and as attributes run, seed and status. Equal stores
    give equal storages. Raises BadInput where `out` exists or no study searched, StoreError where it cannot be written.
    """
    target = Path(out)
    if target.exists():
        raise BadInput(Problem("out", f"{target} exists", "name a new file, or delete it: it is made from the store"))
    if not target.resolve().parent.is_dir():
        raise BadInput(Problem("out", f"{target.parent} does not exist", "make the folder first"))
    studies = rebuilt_studies(load(store_path, TABLES))
    if not studies:
        raise BadInput(
            Problem("store", f"{store_path} holds no study that searched", "run a sweep with trials=2 or more")
        )
    import optuna

    shared = Counter(study.name for study in studies)
    names = tuple(s.name if shared[s.name] == 1 else f"{s.name} ({s.protocol})" for s in studies)
    try:
        with atomic(target) as tmp:
            storage = optuna.storages.RDBStorage(sqlite_uri(tmp.resolve()))
            try:
                for name, study in zip(names, studies, strict=True):
                    copy = optuna.create_study(study_name=name, storage=storage, direction="maximize")
                    for what, value in (("method", study.method), ("protocol", study.protocol)):
                        copy.set_user_attr(what, value)
                    copy.add_trials(study.trials)
            finally:
                storage.engine.dispose()
    except OSError as error:
        raise StoreError(f"{target} could not be written: {plain_words(error)}") from error
    return names
