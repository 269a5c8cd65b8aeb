"""One network scored in one way: from a run, a split and a target to the tables of one eval."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from harness.api.dataset import Dataset
from harness.api.inference import Inference
from harness.api.method import Method
from harness.api.precision import NO_GRADIENT
from harness.cli.run_words import Words
from harness.datasets.io.reading import cores
from harness.engine.inference.counting import Target, score_images
from harness.engine.inference.evals import Tables, add_eval, counts_at, thresholds_of
from harness.engine.inference.sources import Source
from harness.engine.scorer import Scorer
from harness.engine.session import LocalSession
from harness.errors import BadInput, Problem
from harness.plan.config import RunConfig


@dataclass(frozen=True, kw_only=True)
class ScoringJob:
    """What is scored, checked whole before anything starts."""

    run: RunConfig
    key: str
    columns: Mapping[str, Any]
    """Of the eval (`harness.engine.inference.evals.eval_columns`)."""
    target: Target
    how: Inference
    dataset: Dataset
    split: str
    ids: tuple[str, ...]
    threshold: float | None
    """None where there is none, or where the best of the scored split is taken (oracle)."""
    protocol: str
    threads: int
    device: str

    def scorer(self, report_progress: Callable[[str, int, int], None] = lambda *_: None) -> Scorer:
        """What scoring asks."""
        return Scorer(
            dataset=self.dataset,
            inference=self.how,
            crop=self.run.crop,
            cam_threshold=self.run.cam_threshold,
            bf16=self.run.precision == "bf16",
            session=LocalSession(device=self.device),
            threads=self.threads,
            report_progress=report_progress,
        )


@contextmanager
def bar(what: str) -> Iterator[Callable[[str, int, int], None]]:
    """A bar on stderr, shown on a terminal only; called with what is done, how many, of how many."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task(what, total=None)
        yield lambda _, done, total: progress.update(task, completed=done, total=total)


def device_of(words: Words, problems: list[Problem]) -> str:
    """The device that the words name, or the first GPU where there is one."""
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if words.gpus and words.gpus > found:
        problems.append(Problem("gpus", f"{words.gpus:g}, but this machine has {found}", "gpus=0 scores on the CPU"))
    return "cuda:0" if found and words.gpus != 0 else "cpu"


def precision_of(words: Words, usual: str, device: str) -> str:
    """The precision asked for, else the usual one, which on the CPU is always fp32. Raises BadInput for bf16-nograd,
    which says something of training only."""
    if words.precision == NO_GRADIENT:
        found = f"{NO_GRADIENT} is a precision of training, whose runs are scored in fp32"
        raise BadInput(Problem("precision", found, "precision=fp32 or bf16"))
    if words.precision != "auto":
        return words.precision
    return usual if device.startswith("cuda") else "fp32"


def threads_of(words: Words) -> int:
    """Threads and processes: as asked for, or all cores."""
    return words.threads or cores()


def score(job: ScoringJob, method: Method) -> Tables:
    """Score a network that has its weights already; one eval. Raises BadInput for a teacher that it has not."""
    if job.target.weights == "teacher" and method.teacher is None:
        raise BadInput(Problem("weights", f"{job.run.method} has no teacher", "weights=student"))
    torch.set_num_threads(job.threads)
    method.to(job.device).eval()
    began = time.perf_counter()
    with bar(f"scoring {job.split}") as shown:
        sources = {job.target.name: Source(job.scorer(shown), method)}
        found = score_images(sources, job.ids, [job.target], job.split, job.how)[job.target]
    results = [found[i] for i in job.ids]
    rule = str(job.columns["threshold_rule"])
    curve, thresholds = thresholds_of(results, {rule: job.threshold})
    threshold = thresholds.get(rule)
    tables = Tables()
    add_eval(
        tables,
        job.columns,
        threshold,
        counts_at(results, threshold),
        job.ids,
        protocol=job.protocol,
        seconds=time.perf_counter() - began,
        curve=curve,
    )
    return tables


def scored_ids(dataset: Dataset, split: str | None, problems: list[Problem]) -> tuple[str, tuple[str, ...]]:
    """The split that is scored and its images: as asked for, else test where it has masks, else val."""
    masked = [name for name, has in dataset.splits().items() if has]
    chosen = split or ("test" if "test" in masked else "val")
    if chosen not in masked:
        fix = f"splits with masks: {', '.join(masked) or 'none'}"
        problems.append(Problem("split", f"{dataset.name} has no masks for {chosen!r}", fix))
        return chosen, ()
    return chosen, dataset.ids(chosen)
