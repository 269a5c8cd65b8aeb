"""The table `docs/results/keys.csv`: what today's code makes of every run stored under `docs/results/`.

`WSSS_REAL_DATA=<folder> python -m tests.results.stored_keys` writes it anew; the folder holds `msrc21/`, `camvid11/`
and `weights/`. A row that turns from `equal` yes to no, or from `done` to anything else, is a result lost.

Keys of runs that did not record the pixels of their images are those without: a plan counts them as done and says so.

Columns: `study`, `trial`, `seed`, `role`, `key` as stored; `today`: the key of the stored config with today's
versions, images, labels and weights; `equal`: whether it is the stored one; `dry_run`: what the plan of the commands of
docs/results.md says of it (`done`; `not planned` where no trial 0 of theirs has this key). Runs that those commands
plan and their store lacks come with an empty `key`, as `missing`.
"""

from __future__ import annotations

import csv
import io
import json
import os
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from harness.api.registry import registry
from harness.cli.parsing import parse_rows
from harness.cli.run_words import Words
from harness.plan.config import RunConfig, content_key
from harness.plan.payload import Payload
from harness.plan.plan import Plan, make_plan
from harness.plan.versions import versions
from harness.store import Results, latest_runs, load
from harness.store.pretraining import pretraining_of
from reports.ablations import AblationWords, plan_of
from reports.papers.claims import declared_papers

RESULTS = Path(__file__).parents[2] / "docs" / "results"
TABLE = RESULTS / "keys.csv"
COLUMNS = ("store", "method", "labels", "ablation", "study", "trial", "seed", "role",
           "key", "today", "equal", "dry_run")  # fmt: skip
Row = dict[str, str]
Runs = Mapping[str, Mapping[str, Any]]
"""Rows of the table `runs` by key."""

CPU = "gpus=0 dry_run=true"
"""The stored runs are of machines without a GPU, where `precision=auto` is fp32."""
VIT = "backbone=vit_tiny_patch16_224 backbone.weights={real}/weights/vit_tiny_patch16_224.in1k.timm.safetensors"
MSRC = "data=folder data.root={real}/msrc21 data.masks=SegmentationClassObj " + VIT
TAGS = "seeds=3 tier=lab protocol=fixed " + MSRC
AGMM_PINNED = (
    "agmm.w_1=1 agmm.w_2=1 agmm.w_sep=1 agmm.w_cls=1 agmm.distance=l1 agmm.detach=none agmm.l1_start=0 agmm.l1_ramp=0 "
    "agmm.pooling=image agmm.sep_pool=mean agmm.lr_factor=1 agmm.lr_mult_head=10 agmm.dropout=0 agmm.scale_min=0.5 "
    "agmm.scale_max=2 agmm.strong_colour=true "
)
"""The presets of all that a search over `w_gmm`, `sharpness` and `variance` alone leaves in place."""
SWEEPS = {
    "camvid11": (
        "methods=pce,full labels=points,scribbles,clicks20,clicks50,clicks100 data=folder data.root={real}/camvid11 "
        "tier=lab protocol=fixed " + VIT,
    ),
    "camvid11_sparse": (
        "methods=pce,ema,gatedcrf,agmm,full labels=clicks20,clicks100 seeds=1 data=folder data.root={real}/camvid11 "
        "tier=lab protocol=fixed " + VIT,
    ),
    "msrc21": ("methods=cam,fsr,full tier=lab " + MSRC,),
    "msrc21_plugins": ("methods=cam,cam+fsae,cam+brnf,sipe,sipe+fsae,sipe+brnf trials=1 " + TAGS,),
    "msrc21_sparse": (
        "methods=pce,ema,gatedcrf,agmm,full labels=points,scribbles " + TAGS,
        "methods=agmm trials=8 labels=scribbles seeds=1 tier=lab protocol=held-out " + AGMM_PINNED + MSRC,
    ),
    "msrc21_stages": ("methods=irn,sipe trials=1 " + TAGS,),
    "msrc21_tags": (
        "methods=cam,toco,fsr,unia,full " + TAGS,
        "methods=cam,full ablation=class_token " + TAGS,
        "methods=toco,unia ablation=base " + TAGS,
        "methods=unia ablation=no_unc " + TAGS,
    ),
    "shapes_sparse": (
        "methods=pce,full labels=points,scribbles data=shapes iterations=400 crop=96 decoder=deeplabv3plus "
        "protocol=fixed",
    ),
}
"""By store, the words of `harness.sweep` that made it (docs/results.md)."""
BRNF_ROWS = "base,only_gmm,only_fscl,only_bsdnf,no_gmm,no_fscl,no_bsdnf,all"
ABLATIONS = {
    "msrc21_brnf_components": (("brnf", "components", BRNF_ROWS, "seeds=1 trials=1 until=masks"),),
    "msrc21_fsae_components": (("fsae", "components", "base,no_ring,no_strong,all", "seeds=1 trials=1"),),
    "msrc21_fsr_table4": (("fsr", "4", "none,both", "seeds=3"), ("fsr", "4", "unc,cer_gap,cer_gmp,cer", "seeds=1")),
    "msrc21_sipe_table4": (("sipe", "4", "base,no_gsc,SIPE", "seeds=1 trials=1 until=masks"),),
}
"""By store, paper, table, rows and further words of `reports.ablations execute=true`."""
STORES = sorted([*SWEEPS, *ABLATIONS])


def plans_of(store: str, real: str | None) -> list[Plan]:
    """The plans of the commands that made a store. Raises BadInput as those do."""
    into = f"store={RESULTS / store}"
    if store in SWEEPS:
        lines = [f"{line} {CPU} {into}" for line in SWEEPS[store]]
        sets = [one for line in lines for one in parse_rows(_argv(line, real), Words, "sweep", registry().names())]
        return [make_plan(sets)]
    papers = {paper.name: paper for paper in declared_papers()}
    words = AblationWords(store=str(RESULTS / store), tier="lab", protocol="fixed")
    return [
        plan_of(
            papers[paper], papers[paper].table(table), rows.split(","), words, _argv(f"{MSRC} {CPU} {further}", real)
        )
        for paper, table, rows, further in ABLATIONS[store]
    ]


def rows_of(store: str, plans: list[Plan]) -> list[Row]:
    """The table's rows of one store: every stored run, then the planned ones that it lacks."""
    results = load(RESULTS / store, ["runs", "trials"])
    runs = runs_of(results)
    planned = {row["today"]: row for plan in plans for row in _planned(store, plan, runs)}
    stored = list(_stored(store, results, plans))
    for row in stored:
        row["dry_run"] = "done" if row["key"] in planned else "not planned"
    kept = {row["key"] for row in stored}
    missing = [row for key, row in planned.items() if key not in kept]
    return [*_sorted(stored), *_sorted(missing)]


def text_of(rows: list[Row]) -> str:
    """The rows as the text of the CSV file."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def read_table(store: str) -> list[Row]:
    """The committed rows of one store."""
    with TABLE.open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["store"] == store]


def _stored(store: str, results: Results, plans: list[Plan]) -> Iterator[Row]:
    """A row for each run of a store. Raises ValueError for one that failed or had other weights."""
    beside = {study.run.labels: study for plan in plans for study in plan.studies}
    for stored in runs_of(results).values():
        like = beside[stored["supervision"]]
        weights = pretraining_of(stored["pretraining"]).weights
        if stored["status"] not in ("done", "pruned") or weights != like.pretrained.label:
            raise ValueError(f"{store}, run {stored['key']}: {stored['status']}, weights {stored['pretraining']}; "
                             f"expected done or pruned, {like.pretrained.label}")  # fmt: skip
        config = json.loads(stored["config"])
        run = RunConfig.from_stored(stored["config"])
        data = like.part.data(run.labels)
        today = content_key(
            run,
            train_fingerprint=data.train,
            weights_digest=like.pretrained.digest,
            versions=versions(run.chosen.spec, run.chosen.base),
            data=data.every if with_pixels(stored) else "",
        )
        roles = results.trials.filter(pl.col("key") == stored["key"])["role"].unique().sort()
        yield {
            "store": store,
            "method": run.method,
            "labels": run.labels,
            "ablation": config["ablation"],
            "study": stored["study"],
            "trial": str(stored["trial"]),
            "seed": str(run.seed),
            "role": "+".join(roles),
            "key": stored["key"],
            "today": today,
            "equal": "yes" if today == stored["key"] else "no",
        }


def _planned(store: str, plan: Plan, runs: Runs) -> Iterator[Row]:
    """A row for trial 0 of each study of a plan with each seed, under the key that it has or would get in the store."""
    for one in plan.studies:
        for seed in one.study.seeds:
            yield {
                "store": store,
                "method": one.run.method,
                "labels": one.run.labels,
                "ablation": one.ablation,
                "study": one.study.id,
                "trial": "0",
                "seed": str(seed),
                "role": "",
                "key": "",
                "today": key_in(runs, plan.resolve(one.study, {}, seed)),
                "equal": "",
                "dry_run": "missing",
            }


def runs_of(results: Results) -> Runs:
    """The latest row of each run by its key."""
    return {row["key"]: row for row in latest_runs(results.runs).iter_rows(named=True)}


def key_in(runs: Runs, payload: Payload) -> str:
    """The key that a planned run has in a store: without pixels where no run of the store recorded them."""
    return payload.stands_as(runs) if any(map(with_pixels, runs.values())) else payload.earlier_key or payload.key


def with_pixels(run: Mapping[str, Any]) -> bool:
    """Whether a run recorded the pixels of its images, so that they are in its key."""
    return "images" in json.loads(run["split_fingerprints"])


def _sorted(rows: list[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: [row[name] for name in COLUMNS])


def _argv(line: str, real: str | None) -> list[str]:
    return [word.format(real=real) for word in shlex.split(line)]


def main() -> None:
    """Write the table anew."""
    real = os.environ.get("WSSS_REAL_DATA")
    if not real:
        raise SystemExit("WSSS_REAL_DATA is not set: name the folder that holds msrc21/, camvid11/ and weights/")
    TABLE.write_text(text_of([row for store in STORES for row in rows_of(store, plans_of(store, real))]))


if __name__ == "__main__":
    main()
