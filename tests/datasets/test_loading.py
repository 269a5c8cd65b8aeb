"""The loader: batches are a function of seed and step, and of nothing else."""

from __future__ import annotations

import gc
import hashlib
import itertools
import multiprocessing
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.api.batching import collate
from harness.api.dataset import Dataset, Sample
from harness.api.method import Batch, Views
from harness.datasets import open_dataset
from harness.datasets.loading import Loader, batch_indices, epoch_order, image_rng
from harness.datasets.weak.deriving import DerivingDataset
from harness.errors import BadInput
from methods.parts.views import augment as A

Maker = Callable[..., Path]


@dataclass(frozen=True)
class TwoViews:
    """Two crops with flip and jitter, label and content of the first."""

    size: int = 16

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Views:
        crop = A.scale_pad_crop(sample.image_HW3, sample.label_HW, self.size, rng)
        second, _ = A.random_resized_crop(sample.image_HW3, None, self.size, (0.3, 1.0), (0.75, 4 / 3), rng)
        second = A.color_jitter(second, 0.4, 0.4, 0.2, 0.1, rng)
        mean, std = (0.5,) * 3, (0.5,) * 3
        return Views(
            {
                "crop": A.to_tensor_normalised(crop.image_HW3, mean, std),
                "second": A.to_tensor_normalised(second, mean, std),
            },
            A.label_tensor(crop.label_HW),
            torch.from_numpy(crop.content_HW),
        )


def first_pixel(sample: Sample, rng: np.random.Generator) -> Views:
    return Views({"view": torch.from_numpy(sample.image_HW3[0, 0].astype(np.float32)).reshape(3, 1, 1)})


def half_labels(sample: Sample, rng: np.random.Generator) -> Views:
    label = torch.zeros(1, 1, dtype=torch.int64) if sample.image_id.endswith("1") else None
    return Views({"view": torch.zeros(3, 1, 1)}, label)


def broken(sample: Sample, rng: np.random.Generator) -> Views:
    raise KeyError("a bug of a method")


def threads_and_pid(sample: Sample, rng: np.random.Generator) -> Views:
    return Views({"view": torch.tensor([torch.get_num_threads(), os.getpid(), 0.0], dtype=torch.float64)})


def nothing(sample: Sample, rng: np.random.Generator) -> Views:
    return Views({"view": torch.zeros(3, 1, 1)})


@pytest.fixture
def dataset(voc_folder: Maker) -> Dataset:
    return open_dataset("folder", root=str(voc_folder()))


def loader(dataset: Dataset, **changes: Any) -> Loader:
    words = {
        "seed": 3,
        "batch": 8,
        "group": 2,
        "total_steps": 5,
        "transform": TwoViews(),
        "labels": "masks",
        "ids": dataset.ids("train"),
        **changes,
    }
    return Loader(dataset, words.pop("ids"), words.pop("transform"), words.pop("labels"), **words)


def digest(batches: Iterable[Batch]) -> str:
    out = hashlib.sha256()
    for batch in batches:
        out.update(repr(batch.ids).encode())
        for name, tensor in (
            *batch.views.items(),
            ("tags", batch.tags_BC),
            ("label", batch.label_BHW),
            ("content", batch.content_BHW),
        ):
            out.update(name.encode())
            if tensor is not None:
                out.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode() + tensor.numpy().tobytes())
    return out.hexdigest()


def concatenated(ranks: list[list[list[Batch]]]) -> list[list[Batch]]:
    return [list(itertools.chain.from_iterable(parts)) for parts in zip(*ranks, strict=True)]


def digests(made: Iterable[list[Batch]]) -> list[str]:
    return [digest(batches) for batches in made]


def test_a_batch_holds_what_the_contract_says(dataset: Dataset) -> None:
    steps = list(loader(dataset))
    assert len(steps) == len(loader(dataset)) == 5
    for groups in steps:
        assert [len(batch.ids) for batch in groups] == [2, 2, 2, 2]
        for batch in groups:
            assert {name: tuple(view.shape) for name, view in batch.views.items()} == {
                "crop": (2, 3, 16, 16),
                "second": (2, 3, 16, 16),
            }
            assert batch.views["crop"].dtype == torch.float32
            assert (batch.tags_BC.shape, batch.tags_BC.dtype) == ((2, 2), torch.float32)
            for image_id, tags in zip(batch.ids, batch.tags_BC, strict=True):
                assert tags.tolist() == dataset.tags(image_id).tolist()
            assert batch.label_BHW is not None
            assert batch.content_BHW is not None
            assert (batch.label_BHW.dtype, batch.content_BHW.dtype) == (torch.int64, torch.bool)
            assert set(batch.label_BHW.unique().tolist()) <= {0, 1, 2, 255}


def test_bytes_do_not_depend_on_loader_processes(dataset: Dataset) -> None:
    alone = digests(loader(dataset))
    for loaders in (1, 2):
        with loader(dataset, loaders=loaders) as made:
            assert digests(made) == alone
            assert digests(made) == alone  # iterating again starts over


def test_bytes_do_not_depend_on_workers(dataset: Dataset) -> None:
    alone = digests(loader(dataset))
    for world_size in (2, 4):
        ranks = [list(loader(dataset, rank=rank, world_size=world_size)) for rank in range(world_size)]
        assert all(len(groups) == 4 // world_size for rank in ranks for groups in rank)
        assert digests(concatenated(ranks)) == alone


def test_bytes_do_not_depend_on_where_a_run_resumed(dataset: Dataset) -> None:
    alone = digests(loader(dataset))
    for start in range(6):
        assert digests(loader(dataset, start_step=start)) == alone[start:]
    with loader(dataset, start_step=3, loaders=1) as made:
        assert digests(made) == alone[3:]
    assert digests(loader(dataset, total_steps=3)) == alone[:3]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**40), st.integers(1, 3), st.sampled_from([1, 2, 4]), st.integers(1, 3), st.data())
def test_any_shape_of_run_sees_the_same_stream(seed: int, group: int, groups: int, count: int, data: Any) -> None:
    ids = tuple(f"i{n}" for n in range(data.draw(st.integers(1, 7))))
    words = {
        "seed": seed,
        "batch": group * groups,
        "group": group,
        "total_steps": 4,
        "transform": Drawing(),
        "labels": "tags",
        "ids": ids,
    }
    alone = [[i for batch in made for i in batch.ids] for made in loader(Blank(ids), **words)]
    whole = digests(loader(Blank(ids), **words))
    world = data.draw(st.sampled_from([n for n in (1, 2, 4) if groups % n == 0]))
    start = data.draw(st.integers(0, 4))
    ranks = [list(loader(Blank(ids), rank=r, world_size=world, start_step=start, **words)) for r in range(world)]
    assert digests(concatenated(ranks)) == whole[start:]
    stream = list(itertools.chain.from_iterable(alone))
    for epoch in range(len(stream) // len(ids)):
        assert sorted(stream[epoch * len(ids) : (epoch + 1) * len(ids)]) == sorted(ids)


class Blank(DerivingDataset):
    """Pictures of one pixel, for runs of any shape."""

    name, family, class_names, has_background = "blank", "voc", ("background", "x"), True

    def __init__(self, ids: tuple[str, ...]):
        self._ids = ids

    def splits(self) -> dict[str, bool]:
        return {"train": True}

    def ids(self, split: str) -> tuple[str, ...]:
        return self._ids

    def image(self, image_id: str) -> Any:
        return np.zeros((1, 1, 3), np.uint8)

    def mask(self, image_id: str) -> Any:
        return np.ones((1, 1), np.uint8)

    def fingerprint(self, ids: tuple[str, ...]) -> str:
        return ""


class Drawing:
    def __call__(self, sample: Sample, rng: np.random.Generator) -> Views:
        assert sample.label_HW is None
        return Views({"view": torch.from_numpy(rng.random((3, 1, 1)))})


def test_the_order_is_a_row_of_permutations() -> None:
    stream = [i for step in range(30) for i in batch_indices(7, 5, step, 4)]
    for epoch in range(17):
        assert stream[7 * epoch : 7 * epoch + 7] == epoch_order(7, 5, epoch).tolist()
        assert sorted(epoch_order(7, 5, epoch)) == list(range(7))
    assert len({tuple(epoch_order(7, 5, epoch)) for epoch in range(17)}) > 15
    assert epoch_order(7, 5, 0).tolist() != epoch_order(7, 6, 0).tolist()
    firsts = Counter(int(epoch_order(4, seed, 0)[0]) for seed in range(2000))
    assert all(440 < firsts[i] < 560 for i in range(4))


def test_frozen_order_and_draws() -> None:
    """Any change here changes the bytes of every run: raise the version of training."""
    assert batch_indices(10, 0, 0, 12) == [4, 6, 2, 7, 3, 5, 9, 0, 8, 1, 5, 1]
    assert image_rng(0, 0, "a").integers(1000, size=3).tolist() == [809, 257, 307]


def test_an_image_draws_by_seed_step_and_id_alone() -> None:
    draws = {
        place: image_rng(*place).random()
        for place in [(0, 0, "a"), (1, 0, "a"), (0, 1, "a"), (0, 0, "b"), (0, 0, "ab"), (0, 2**33, "a")]
    }
    assert len(set(draws.values())) == len(draws)
    assert all(image_rng(*place).random() == value for place, value in draws.items())


def test_other_seeds_and_steps_give_other_views(dataset: Dataset) -> None:
    assert len({*digests(loader(dataset)), *digests(loader(dataset, seed=4))}) == 10


def test_labels_reach_only_those_who_read_them(dataset: Dataset) -> None:
    tags_only = [batch for made in loader(dataset, labels="tags") for batch in made]
    assert all(batch.label_BHW is None for batch in tags_only)
    masked = [batch for made in loader(dataset) for batch in made]
    assert digest(tags_only) != digest(masked)
    for a, b in zip(tags_only, masked, strict=True):
        assert all(torch.equal(a.views[name], b.views[name]) for name in a.views)
    sparse = [batch for made in loader(dataset, labels="points") for batch in made]
    assert all(
        torch.equal(a.views[name], b.views[name]) for a, b in zip(sparse, masked, strict=True) for name in a.views
    )
    assert all((batch.label_BHW == 255).float().mean() > 0.5 for batch in sparse)
    with pytest.raises(BadInput, match="no weak labels are called 'dots'"):
        next(iter(loader(dataset, labels="dots")))


@pytest.mark.parametrize("loaders", [0, 1])
def test_global_generators_and_threads_are_left_alone(dataset: Dataset, loaders: int) -> None:
    before = (torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate(), torch.get_num_threads())
    with loader(dataset, loaders=loaders) as made:
        list(made)
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])
    assert before[2:] == (random.getstate(), torch.get_num_threads())
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    assert digests(loader(dataset)) == digests(loader(dataset))


@pytest.mark.parametrize("loaders", [0, 2])
def test_a_damaged_file_is_named_at_the_step_that_needs_it(dataset: Any, loaders: int) -> None:
    bad = dataset.image_path("a7")
    bad.write_bytes(bad.read_bytes()[:300])
    others = [i for i in dataset.ids("train") if i != "a7"]
    assert len(list(loader(dataset, transform=nothing, total_steps=8, ids=others))) == 8
    order = [dataset.ids("train")[i] for step in range(8) for i in batch_indices(12, 3, step, 4)]
    first = order.index("a7") // 4
    assert first > 0
    with loader(dataset, transform=nothing, batch=4, total_steps=8, loaders=loaders) as made:
        running = iter(made)
        assert len([next(running) for _ in range(first)]) == first
        with pytest.raises(BadInput, match=r"a7\.jpg: damaged or cut off") as caught:
            next(running)
    assert caught.value.problems[0].where == str(bad)
    assert caught.value.problems[0].fix


@pytest.mark.parametrize("loaders", [0, 1])
def test_a_bug_in_a_transform_is_not_called_bad_input(dataset: Dataset, loaders: int) -> None:
    with loader(dataset, transform=broken, loaders=loaders) as made, pytest.raises(KeyError, match="a bug"):
        list(made)


def test_a_mask_of_another_size_is_named(dataset: Any, mask_writer: Callable[..., None]) -> None:
    for i in range(12):
        mask_writer(dataset.mask_path(f"a{i}"), np.zeros((24, 31)))
    with pytest.raises(BadInput, match="masks of 31x24 pixels, image of 32x24"):
        list(loader(dataset))
    list(loader(dataset, labels="tags"))


def test_loader_processes_use_one_thread_and_end(dataset: Dataset) -> None:
    made = loader(dataset, transform=threads_and_pid, loaders=2, total_steps=6)
    running = iter(made)
    seen = [next(running)[0].views["view"] for _ in range(3)]
    assert {int(view[0, 0]) for view in seen} == {1}
    pids = {int(view[0, 1]) for view in seen}
    assert len(pids) == 2
    assert os.getpid() not in pids
    made.close()
    assert gone(pids)


def test_dropping_a_loader_ends_its_processes(dataset: Dataset) -> None:
    made = loader(dataset, transform=threads_and_pid, loaders=2, total_steps=6)
    running = iter(made)
    pids = {int(next(running)[0].views["view"][0, 1]) for _ in range(2)}
    del made, running
    gc.collect()
    assert gone(pids)


def gone(pids: set[int]) -> bool:
    for _ in range(100):
        alive = {child.pid for child in multiprocessing.active_children()} & pids
        if not alive:
            return True
        time.sleep(0.05)
    return False


def test_spawned_loaders_give_the_same_bytes(dataset: Dataset) -> None:
    with loader(dataset, loaders=1, total_steps=2, start_method="spawn") as made:
        assert digests(made) == digests(loader(dataset, total_steps=2))


def test_content_is_none_only_where_all_is_real() -> None:
    view, content = torch.zeros(3, 2, 2), torch.tensor([[True, False], [True, True]])
    tags = [np.zeros(1, np.float32)] * 2
    both = collate(["a", "b"], [Views({"v": view}), Views({"v": view}, content_HW=content)], tags)
    assert both.content_BHW is not None
    assert both.content_BHW.tolist() == [[[True, True], [True, True]], content.tolist()]
    assert collate(["a", "b"], [Views({"v": view})] * 2, tags).content_BHW is None
    with pytest.raises(ValueError, match="all images of a group, or none"):
        collate(["a", "b"], [Views({"v": view}), Views({"v": view}, label_HW=content.long())], tags)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch": 7}, "batch: 7 is no multiple of group=2\n    fix: batch=6"),
        ({"batch": 1}, "batch: 1 is no multiple of group=2\n    fix: batch=2"),
        ({"world_size": 3}, "4 groups of 2 do not divide over 3 workers\n    fix: workers=1 or 2 or 4, or batch=6"),
        ({"rank": 2, "world_size": 2}, "rank 2 of 2"),
        ({"loaders": -1, "seed": -2}, "seed: -2 is negative\n    fix: seed=0 or more\nloaders: -1 is negative"),
        ({"ids": ()}, "no training images"),
    ],
)
def test_shapes_that_cannot_be_are_refused_with_the_fix(
    dataset: Dataset, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadInput) as caught:
        loader(dataset, **changes)
    assert message in str(caught.value)


def test_no_steps_left_is_an_empty_loader(dataset: Dataset) -> None:
    for loaders in (0, 2):
        with loader(dataset, start_step=5, loaders=loaders) as made:
            assert list(made) == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("loaders", [0, 1])
def test_pinned_batches_hold_the_same_bytes(dataset: Dataset, loaders: int) -> None:
    torch.zeros(1, device="cuda")
    with loader(dataset, loaders=loaders, pin_memory=True) as made:
        steps = list(made)
    assert all(view.is_pinned() for groups in steps for batch in groups for view in batch.views.values())
    assert digests(steps) == digests(loader(dataset))


def test_real_photos_give_the_same_bytes_in_any_shape(real_data: Path) -> None:
    for name, masks in (("msrc21", "SegmentationClassObj"), ("camvid11", None), ("pets3", None)):
        photos = open_dataset("folder", root=str(real_data / name), masks=masks)
        words = {"transform": TwoViews(64), "total_steps": 3}
        alone = digests(loader(photos, **words))
        with loader(photos, loaders=2, **words) as made:
            assert digests(made) == alone
        ranks = [list(loader(photos, rank=rank, world_size=2, **words)) for rank in range(2)]
        assert digests(concatenated(ranks)) == alone
