"""Views made on the device hold the pixels of those made on the host, draw for draw."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.api.batching import collate
from harness.api.dataset import Sample
from harness.api.method import Batch, Views
from harness.api.registry import registry
from harness.cli.parsing import parse
from harness.cli.run_words import Words
from harness.engine.session import LocalSession
from harness.errors import BadInput
from harness.plan.plan import make_plan
from harness.testing import MethodRunner
from harness.testing.waiting import watch_step
from methods.fsr.views import FsrViews
from methods.parts.knobs import ViewKnobs
from methods.parts.views import device_views as made
from methods.parts.views.augment import hflip, resized_window
from methods.parts.views.colour import Colours, Jitter, recolour
from methods.parts.views.crop_views import CropViews

DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")),
]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZES = [(61, 90), (80, 70), (48, 48), (33, 120)]


def noise(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def photo(height: int, width: int, seed: int) -> NDArray[np.uint8]:
    """Smooth, with an edge."""
    coarse = torch.from_numpy(noise(5, 6, seed)).permute(2, 0, 1)[None].float()
    image = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")[0].permute(1, 2, 0)
    image[: height // 3, : width // 2] = 255 - image[: height // 3, : width // 2]
    return image.round().numpy().astype(np.uint8)


def planes(image: NDArray[np.uint8], device: str) -> Tensor:
    return torch.from_numpy(image.transpose(2, 0, 1).copy())[None].float().to(device)


def pixels(view_B3hw: Tensor) -> NDArray[np.uint8]:
    return view_B3hw[0].permute(1, 2, 0).cpu().numpy().astype(np.uint8)


def draws(colours: Colours = Colours(), window: Any = (0, 0, 1, 1), mirrored: bool = False) -> Tensor:  # noqa: B008
    return made.drawn_numbers([(window, mirrored, colours)])


CHANGES = [
    *((name, by) for name in ("brightness", "contrast", "saturation") for by in (0.0, 0.6, 0.83, 1.0, 1.17, 1.4)),
    *(("hue", by) for by in (-0.5, -0.1, -0.033, 0.0, 0.05, 0.1, 0.5)),
]


@pytest.mark.parametrize("device", DEVICES)
def test_colours_are_equal_to_the_byte(device: str) -> None:
    """Each change on all kinds of colours, four in any order, solarisation and blurs."""
    image = noise(64, 300)
    image[:2, :256] = np.arange(256, dtype=np.uint8)[:, None]  # greys
    rng = np.random.default_rng(1)
    orders = [Jitter(tuple(CHANGES[i] for i in rng.permutation(len(CHANGES))[:4])) for _ in range(6)]
    cases = [Colours(Jitter((one,))) for one in CHANGES] + [Colours(jitter) for jitter in orders]
    cases += [Colours(solarise=t) for t in (0, 1, 128, 255, 256)]
    cases += [Colours(blur=sigma) for sigma in (0.0, 0.1, 0.5, 1.0, 1.7, 2.0)]
    cases.append(Colours(orders[0], blur=0.7, solarise=100))
    for colours in cases:
        found = pixels(made.recoloured(planes(image, device), draws(colours).to(device), 2.0))
        assert np.array_equal(found, recolour(image, colours)), colours


def test_a_group_has_each_image_in_its_own_colours() -> None:
    images = [photo(20, 30, seed) for seed in range(3)]
    colours = [Colours(), Colours(Jitter((("hue", 0.2), ("contrast", 1.3)))), Colours(blur=1.5, solarise=90)]
    together = torch.cat([planes(image, "cpu") for image in images])
    numbers = torch.cat([draws(one) for one in colours])
    found = made.recoloured(together, numbers, 2.0)
    for view, image, one in zip(found, images, colours, strict=True):
        assert np.array_equal(pixels(view[None]), recolour(image, one))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("window", "crop"),
    [((0, 0, 187, 250), 96), ((10, 20, 100, 130), 96), ((5, 7, 60, 50), 96), ((3, 4, 96, 96), 96), ((186, 0, 1, 9), 8)],
)
def test_windows_are_pil_s_to_one_level(device: str, window: Any, crop: int) -> None:
    """Shrunk, enlarged, as large as it was, of one row; mirrored; nothing of what surrounds the window."""
    image = noise(187, 250)
    for mirrored in (False, True):
        wanted = resized_window(image, None, window, crop)[0]
        wanted = hflip(wanted, None)[0] if mirrored else wanted
        numbers = draws(window=window, mirrored=mirrored).to(device)
        apart = np.abs(pixels(made.placed(planes(image, device), numbers, crop)).astype(int) - wanted)
        assert apart.max() <= 1
        assert (apart > 0).mean() < 1e-3
        if window[2:] == (crop, crop):
            assert apart.max() == 0


def groups(views: CropViews, seed: int) -> tuple[Batch, Batch]:
    """A group as the host makes it, and as the device does, from equal generators."""
    found = []
    samples = [
        Sample(str(i), photo(*size, i), np.ones(2, np.float32), (photo(*size, i)[..., 0] // 64).astype(np.uint8))
        for i, size in enumerate(SIZES)
    ]
    device = made.DeviceViews(views)
    after = []
    for transform in (views, device):
        rngs = [np.random.default_rng([seed, i]) for i in range(len(samples))]
        each: list[Views] = [transform(sample, rng) for sample, rng in zip(samples, rngs, strict=True)]
        after.append([rng.random() for rng in rngs])
        found.append(collate([s.image_id for s in samples], each, [s.tags_C for s in samples]))
    assert after[0] == after[1], "other draws"
    return found[0], device.finished(found[1])


@pytest.mark.parametrize("augmentation", ["base", "blur", "solarize"])
def test_views_of_a_group_are_those_of_the_host(augmentation: str) -> None:
    """Images of four sizes, two views: same labels, same statistics, pixels apart by what a resized level makes."""
    knobs = ViewKnobs(jitter_probability=0.8)
    views = FsrViews(("view1", "view2"), 32, knobs, MEAN, STD, augmentation=augmentation)
    total, means, deviations = 0.0, [], []
    for seed in range(8):
        host, device = groups(views, seed)
        assert host.label_BHW is not None
        assert device.label_BHW is not None
        assert torch.equal(host.label_BHW, device.label_BHW)
        assert host.extents == device.extents
        assert device.views.keys() == host.views.keys()
        assert device.extra.keys() == host.extra.keys()
        for name, view in host.views.items():
            total += float((view - device.views[name]).abs().mean())
            means.append((float(view.mean()), float(device.views[name].mean())))
            deviations.append((float(view.std()), float(device.views[name].std())))
    assert total / len(means) < 1e-4, "levels are .017 apart"
    assert np.allclose(*zip(*means, strict=True), atol=1e-3)
    assert np.allclose(*zip(*deviations, strict=True), atol=1e-3)


def test_without_colours_a_view_of_full_size_is_equal_to_the_byte() -> None:
    """Normalisation, mirrors and padding to the group's largest image move nothing."""
    knobs = ViewKnobs(jitter_probability=0.0, crop_area_min=1.0)
    views = CropViews(("view1",), 48, knobs, MEAN, STD)
    for seed in range(4):
        host, device = groups(views, seed)
        assert torch.equal(host.views["view1"][2], device.views["view1"][2])


class Cam(MethodRunner):
    method = "cam"


class Fsr(MethodRunner):
    method = "fsr"


class Pce(MethodRunner):
    method = "pce"
    labels = "scribbles"


@pytest.mark.parametrize("tests", [Cam(), Pce(), Fsr()], ids=lambda tests: tests.method)
def test_neither_views_nor_step_wait_for_the_device(tests: MethodRunner) -> None:
    knobs = {"device_views": True, **({"augmentation": "blur"} if tests.method == "fsr" else {})}
    run, dataset = tests.run_config(knobs), tests.dataset()
    method = tests.build(run, dataset)
    group = next(iter(tests.loader(run, dataset, method, LocalSession(), 0)))[0]
    assert group.views.keys() == {made.PIXELS}
    assert group.views[made.PIXELS].dtype == torch.uint8
    assert watch_step(method, group, phases=2).waits == []


def test_a_run_sees_the_views_that_it_would_have_from_the_host(tmp_path: Path) -> None:
    losses = []
    for knobs in ({}, {"device_views": True}):
        _, trained = Cam().train(Cam().run_config(knobs, steps=3), tmp_path / str(len(losses)))
        losses.append([value for _, _, value in trained.steps])
    assert losses[0] != losses[1], "the knob did nothing"
    assert np.allclose(losses[0], losses[1], rtol=2e-2)


def test_what_is_made_on_the_host_alone_is_refused() -> None:
    with pytest.raises(BadInput, match="autoaugment is made on the host alone"):
        Fsr().build(Fsr().run_config({"device_views": True, "augmentation": "autoaugment"}), Fsr().dataset())
    words = ["method=cam+fsae", "data.n_train=16", "data.n_val=8", "data.n_test=8", "cam.device_views=true"]
    with pytest.raises(BadInput, match="the strong view is made on the host"):
        make_plan(parse(words, Words, "train", registry().names()), single=True)


def test_the_knob_is_part_of_a_key_only_where_it_is_turned() -> None:
    def key(*words: str) -> str:
        plan = make_plan(parse(["method=cam", *words], Words, "train", registry().names()), single=True)
        return plan.resolve(plan.studies[0].study, {}, 0).key

    assert key() == key("cam.device_views=false")
    assert key() != key("cam.device_views=true")
