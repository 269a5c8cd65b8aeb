"""Drives a plan: hooks it to the tuner, exports to MLflow on the side, returns what failed."""

from __future__ import annotations

import shutil
import sys
from contextlib import ExitStack
from dataclasses import dataclass

from harness.cli.tracking_uri import OFF
from harness.engine.session import LocalSession
from harness.errors import BadInput, Problem, StoreError
from harness.plan.plan import Plan
from harness.store import Store
from harness.store.maintenance import compact_many
from harness.tracking.mlflow_export import Exporter
from harness.tracking.mlflow_session import Pages
from harness.tuning.describe import disk_needed
from harness.tuning.drivers import run_local, run_studies
from harness.tuning.ledger import Ledger


@dataclass(frozen=True)
class Ended:
    """How a plan ended."""

    failed: list[str]
    """One line per failed run."""
    experiment: str = ""
    """MLflow's number of the experiment that it was exported to; empty where it was not."""


def run_plan(plan: Plan, *, mlflow: str | None = None, pages: Pages | None = None) -> Ended:
    """Run every study of a plan that is not done yet.

    `pages` renders the sweep's leaderboard and page for MLflow. Raises BadInput for a store that cannot be written
    or a disk without room.
    """
    store = Store(plan.machine.store)
    store.check_writable()
    free, need = shutil.disk_usage(store.root).free, disk_needed(plan)
    if free < need:
        raise BadInput(
            Problem(
                "store",
                f"{store.root} has {free / 2**30:.1f} GiB free, this sweep needs about {need / 2**30:.1f}",
                "free space, name another store=, or keep less with keep=none",
            )
        )
    words = plan.words
    ledger = Ledger(plan, store, retry_failed=words.retry == "failed")
    ledger.write_plan()
    studies = [p.study for p in plan.studies]
    uri = mlflow or words.mlflow
    exporter = None
    with ExitStack() as stack:
        if uri != OFF:
            exporter = Exporter(plan.machine.store, uri, sweep=plan.sweep, pages=pages, say=print)
            ledger.on_closed = exporter.submit
            exporter.start()
            stack.callback(exporter.close)
        if words.ray:
            cluster = plan.parts[0].cluster
            room = None if cluster is None else cluster.holds
            run_studies(
                studies,
                ledger,
                store_root=store.root,
                address=words.address,
                retry=words.retry,
                room=room,
            )
        else:
            device = "cuda:0" if plan.gpus else "cpu"
            session = LocalSession(device=device)
            run_local(studies, ledger, session=session, store_root=store.root, retry=words.retry, show=True)
    _merge_small_files(store)
    return Ended(ledger.failed, exporter.summary.experiment if exporter else "")


def _merge_small_files(store: Store) -> None:
    """Where there are thousands; a store in which this fails has all its rows, and its sweep has ended well."""
    try:
        merged = compact_many(store.root)
    except StoreError as error:
        print(f"small files of the store were not merged: {error}", file=sys.stderr)
        return
    if merged:
        print(f"small files of the store merged into {len(merged)} (harness.store compact)")
