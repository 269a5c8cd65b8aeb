"""Training batches that depend on seed and step alone: not on loader processes, workers, or where a run resumed."""

from __future__ import annotations

import functools
import hashlib
import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from harness.api.batching import collate
from harness.api.dataset import Dataset, Sample
from harness.api.method import Batch, Transform
from harness.errors import BadInput, Problem

Reader = Callable[[str], NDArray[Any]]
"""Reads one array of an image by its id; picklable, runs in loader processes. Raises BadInput naming file and fix."""
_ORDER, _IMAGE = 0, 1
"""First word of every seed here, so that the order of an epoch and the views of an image never share one."""


def epoch_order(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The permutation of 0..count-1 in which an epoch visits the images."""
    return np.random.Generator(np.random.PCG64([_ORDER, seed, epoch])).permutation(count)


def batch_indices(count: int, seed: int, step: int, batch: int) -> list[int]:
    """Places in the list of ids that the global batch of `step` holds: a window of the endless row of epochs."""
    return [
        int(_cached_order(count, seed, place // count)[place % count])
        for place in range(step * batch, (step + 1) * batch)
    ]


_cached_order = functools.lru_cache(maxsize=4)(epoch_order)


def image_rng(seed: int, step: int, image_id: str) -> np.random.Generator:
    """The generator of one image's views at one step."""
    words = np.frombuffer(hashlib.blake2b(image_id.encode(), digest_size=16).digest(), np.uint32)
    return np.random.Generator(np.random.PCG64([_IMAGE, seed, step, *words.tolist()]))


@dataclass(frozen=True)
class Source:
    """What a training stage reads of an image besides image and tags."""

    labels: str
    """Kind of the labels that `dataset.weak` gives; tags: no label map."""
    label: Reader | None = None
    """Reads the label map (H,W) instead, where an earlier stage or a folder has it."""
    extra: Mapping[str, Reader] = field(default_factory=dict)
    """Readers of `Sample.extra` by name."""
    background_tags: bool = False
    """Whether batches carry `tags_BK`."""


class Loader:
    """The training batches of one worker, step by step.

    Each item is a list: the groups of the step's global batch that this rank holds, as CPU tensors. The ranks' lists
    one after another are the lists of a single rank. `source` says what is read of each image: a kind of labels, or
    more. Draws from no global generator. A damaged file raises BadInput that
    names it, at the step that needs it. `loaders` = 0 makes batches in this process; otherwise that many processes
    make whole steps ahead, one torch thread each. `start_method` is that of multiprocessing (fork where there is
    one: spawned loaders import torch anew).
    """

    def __init__(
        self,
        dataset: Dataset,
        ids: Sequence[str],
        transform: Transform,
        source: Source | str,
        *,
        seed: int,
        batch: int,
        group: int,
        loaders: int = 0,
        rank: int = 0,
        world_size: int = 1,
        start_step: int = 0,
        total_steps: int,
        pin_memory: bool = False,
        start_method: str | None = None,
    ):
        problems = _problems(ids, seed, batch, group, loaders, rank, world_size)
        if problems:
            raise BadInput(problems)
        self.steps = range(start_step, total_steps)
        self.loaders = min(loaders, len(self.steps))
        source = Source(source) if isinstance(source, str) else source
        self._making = _Steps(dataset, tuple(ids), transform, source, seed, batch, group, rank, world_size)
        self._pin_memory = pin_memory
        self._start_method = start_method
        self._running: Any = None

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[list[Batch]]:
        self.close()
        if self.loaders == 0 and not self._pin_memory:
            return (self._making.batches(step) for step in self.steps)
        return self._from_processes()

    def close(self) -> None:
        """End the loader processes; iterating again starts new ones."""
        running, self._running = self._running, None
        if running is not None and hasattr(running, "_shutdown_workers"):
            running._shutdown_workers()

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_running", None) is not None:
            self.close()

    def _from_processes(self) -> Iterator[list[Batch]]:
        context = None
        if self.loaders:
            known = multiprocessing.get_all_start_methods()
            context = self._start_method or ("fork" if "fork" in known else "spawn")
        # A generator of its own: otherwise DataLoader draws a seed from the global one.
        running = iter(
            DataLoader(
                self._making,
                batch_size=None,
                sampler=self.steps,
                num_workers=self.loaders,
                generator=torch.Generator(),
                multiprocessing_context=context,
                pin_memory=self._pin_memory,
            )
        )
        self._running = running
        try:
            for made in running:
                yield _opened(made)
        finally:
            if self._running is running:
                self.close()


class _Steps(TorchDataset[Any]):
    """Makes the batches of a step; indexed by step in loader processes."""

    def __init__(
        self,
        dataset: Dataset,
        ids: tuple[str, ...],
        transform: Transform,
        source: Source,
        seed: int,
        batch: int,
        group: int,
        rank: int,
        world_size: int,
    ):
        self.dataset, self.ids, self.transform, self.source = dataset, ids, transform, source
        self.seed, self.batch, self.group = seed, batch, group
        held = batch // group // world_size
        self.groups = range(rank * held, (rank + 1) * held)

    def batches(self, step: int) -> list[Batch]:
        chosen = [self.ids[i] for i in batch_indices(len(self.ids), self.seed, step, self.batch)]
        return [self._group(chosen[g * self.group : (g + 1) * self.group], step) for g in self.groups]

    def __getitem__(self, step: int) -> Any:
        # DataLoader rebuilds an exception from its text, which BadInput does not survive: problems travel as data.
        try:
            return self.batches(step)
        except BadInput as error:
            return {"problems": [(p.where, p.found, p.fix) for p in error.problems]}

    def _group(self, ids: list[str], step: int) -> Batch:
        samples = [self._sample(image_id) for image_id in ids]
        views = [self.transform(sample, image_rng(self.seed, step, sample.image_id)) for sample in samples]
        tags = [sample.tags_C for sample in samples]
        return collate(ids, views, tags, self._tags_with_background(samples) if self.source.background_tags else None)

    def _sample(self, image_id: str) -> Sample:
        source, image_HW3 = self.source, self.dataset.image(image_id)
        label_HW = None
        if source.label is not None:
            label_HW = source.label(image_id)
        elif source.labels != "tags":
            label_HW = self.dataset.weak(image_id, source.labels)
        if label_HW is not None and label_HW.shape != image_HW3.shape[:2]:
            what = source.labels if source.label is None else "labels"
            raise BadInput(
                Problem(
                    image_id,
                    f"{what} of {label_HW.shape[1]}x{label_HW.shape[0]} pixels, image "
                    f"of {image_HW3.shape[1]}x{image_HW3.shape[0]}",
                    "make both the same size",
                )
            )
        extra = {name: read(image_id) for name, read in source.extra.items()}
        return Sample(image_id, image_HW3, self.dataset.tags(image_id), label_HW, extra)

    def _tags_with_background(self, samples: Sequence[Sample]) -> list[NDArray[np.float32]]:
        first = int(self.dataset.has_background)
        out = []
        for sample in samples:
            tags_K = np.zeros(self.dataset.num_labels, np.float32)
            tags_K[first:] = sample.tags_C
            if sample.label_HW is None:
                tags_K[:first] = 1.0
            else:
                held = np.unique(sample.label_HW)
                tags_K[held[held < len(tags_K)]] = 1.0
            out.append(tags_K)
        return out


def _opened(made: Any) -> list[Batch]:
    if isinstance(made, dict):
        raise BadInput([Problem(*words) for words in made["problems"]])
    return list(made)


def _problems(
    ids: Sequence[str], seed: int, batch: int, group: int, loaders: int, rank: int, world_size: int
) -> list[Problem]:
    problems = []
    if not ids:
        problems.append(Problem("data", "no training images", "choose a split that has images"))
    if seed < 0:
        problems.append(Problem("seed", f"{seed} is negative", "seed=0 or more"))
    if loaders < 0:
        problems.append(Problem("loaders", f"{loaders} is negative", "loaders=0 or more"))
    if not 0 <= rank < world_size:
        problems.append(Problem("workers", f"rank {rank} of {world_size}", "ranks count from 0 to workers-1"))
    if group < 1 or batch < group or batch % group:
        problems.append(
            Problem(
                "batch",
                f"{batch} is no multiple of group={group}",
                f"batch={max(1, group) * max(1, batch // max(1, group))}",
            )
        )
    elif world_size > 0 and (batch // group) % world_size:
        fits = [n for n in range(1, batch // group + 1) if (batch // group) % n == 0]
        problems.append(
            Problem(
                "workers",
                f"{batch // group} groups of {group} do not divide over {world_size} workers",
                f"workers={' or '.join(map(str, fits))}, or batch={group * world_size}",
            )
        )
    return problems
