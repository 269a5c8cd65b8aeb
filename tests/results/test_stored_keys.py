"""No stored result is lost: today's code makes of every run under `docs/results/` what `keys.csv` says."""

import functools
import os
import re

import pytest
import stored_keys
from stored_keys import RESULTS, STORES

from harness.plan import versions
from harness.store import load
from harness.tuning.describe import plan_text

REAL = os.environ.get("WSSS_REAL_DATA")
PHOTOS = pytest.mark.skipif(not REAL, reason="WSSS_REAL_DATA names no folder of real photos")
EACH = [pytest.param(s, marks=() if s == "shapes_sparse" else PHOTOS) for s in STORES]


@pytest.fixture(scope="module")
def plans_of():
    """The plans of a store, made once: they read and check every image."""
    return functools.cache(lambda store: stored_keys.plans_of(store, REAL))


def test_the_table_holds_every_store_and_every_stored_run():
    assert {path.name for path in RESULTS.iterdir() if (path / "runs").is_dir()} == set(STORES)
    for store in STORES:
        kept = [row["key"] for row in stored_keys.read_table(store) if row["key"]]
        assert sorted(kept) == sorted(load(RESULTS / store, ["runs"]).runs["key"].unique())


@pytest.mark.parametrize("store", EACH)
def test_keys_and_plans_are_those_of_the_table(store, plans_of):
    made = stored_keys.text_of(stored_keys.rows_of(store, plans_of(store)))
    assert made.splitlines() == stored_keys.text_of(stored_keys.read_table(store)).splitlines()


@pytest.mark.parametrize("store", EACH)
def test_a_dry_run_says_of_each_trial_0_what_the_table_says(store, plans_of):
    table = stored_keys.read_table(store)
    said = {row["today"]: row["dry_run"] for row in table if row["dry_run"] != "not planned"}
    runs = stored_keys.runs_of(load(RESULTS / store, ["runs"]))
    for plan in plans_of(store):
        text = plan_text(plan)
        for one in plan.studies:
            (state, pixels) = re.findall(
                rf"^  {re.escape(one.study.id)}: .*\[(trial 0 is done|to be run); (pixels not recorded)?", text, re.M
            )[0]
            payload = plan.resolve(one.study, {}, one.run.seed)
            key = stored_keys.key_in(runs, payload)
            assert said[key] == {"trial 0 is done": "done", "to be run": "missing"}[state], one.study.id
            assert bool(pixels) == (state == "trial 0 is done" and key == payload.earlier_key)


def test_a_version_that_moves_is_seen_in_every_row(plans_of, monkeypatch):
    plans = plans_of("shapes_sparse")
    monkeypatch.setattr(versions, "LOOP", versions.LOOP + 1)
    assert {row["equal"] for row in stored_keys.rows_of("shapes_sparse", plans) if row["key"]} == {"no"}
