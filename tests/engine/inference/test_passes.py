"""Inference protocols against the cards' own words, written as loops over images, scales and mirrors."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from harness.api.inference import PROTOCOLS, Inference
from harness.api.method import Method, Prediction
from harness.datasets.weak.deriving import DerivingDataset
from harness.engine.inference import passes as module
from harness.engine.inference.passes import Passes, resample

SIZES = {"a": (40, 56), "b": (40, 56), "c": (33, 47), "d": (48, 32)}
CROP = 32


class Photos(DerivingDataset):
    name = family = "toy"
    class_names = ("background", "x", "y")
    has_background = True

    def splits(self):
        return {"val": True}

    def ids(self, split):
        return tuple(SIZES)

    def image(self, image_id):
        rng = np.random.default_rng(ord(image_id))
        return rng.integers(0, 255, (*SIZES[image_id], 3), dtype=np.uint8)

    def mask(self, image_id):
        return np.zeros(SIZES[image_id], np.uint8)

    def fingerprint(self, ids):
        return ""


class Net(Method):
    """A patch embedding of stride 8 that is not symmetric, and counts its calls."""

    def __init__(self, stride=8):
        super().__init__()
        torch.manual_seed(0)
        self.conv = torch.nn.Conv2d(3, 3, stride, stride)
        self.stride, self.seen = stride, []

    transform = step = optimizers = None

    def describe(self):
        return {"stride": self.stride}

    def normalisation(self):
        return (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)

    @torch.no_grad()
    def predict(self, images_B3HW, tags_BC=None, *, want, weights="student"):
        self.seen.append(tuple(images_B3HW.shape))
        return Prediction(segmentation_BKhw=3 * self.conv(images_B3HW))


@pytest.fixture
def net():
    return Net().eval()


def fused(net, how, ids=("a", "b", "c", "d")):
    found = dict(Passes(Photos(), net, CROP, "cpu").fused(ids, [SIZES[i] for i in ids], how))
    return [found[n] for n in range(len(ids))]


def normalised(image):
    x = torch.tensor(image).permute(2, 0, 1).float()[None] / 255
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in Net().normalisation())
    return (x - mean) / std


def up(x, size, corners=False):
    return F.interpolate(x, size, mode="bilinear", align_corners=corners)


def padded_scores(net, x, size):
    """Pad to the stride, score, and read off bilinearly at the centres of the target's pixels."""
    h, w = x.shape[2:]
    maps = 3 * net.conv(F.pad(x, (0, -w % 8, 0, -h % 8)))
    for axis, (real, wanted) in enumerate(((h, size[0]), (w, size[1])), start=2):
        at = ((torch.arange(wanted) + 0.5) * real / wanted / 8 - 0.5).clamp(0, maps.shape[axis] - 1)
        low = at.long().clamp(max=max(0, maps.shape[axis] - 2))
        high = (low + 1).clamp(max=maps.shape[axis] - 1)
        share = (at - low).view(-1, *[1] * (3 - axis))
        maps = maps.index_select(axis, low) * (1 - share) + maps.index_select(axis, high) * share
    return maps


@pytest.mark.parametrize("flip", ["add", "mean", "max"])
@pytest.mark.parametrize("fusion", ["max", "sum", "mean"])
def test_scales_mirrors_and_fusion_at_the_crop(net, flip, fusion):
    how = Inference((1.0, 1.5), flip, fusion)
    for image_id, found in zip(SIZES, fused(net, how), strict=True):
        scales = []
        for side in (32, 48):
            x = Passes(Photos(), net, CROP, "cpu").squares([image_id], side)
            a = up(3 * net.conv(x), SIZES[image_id])
            b = up(3 * net.conv(x.flip(-1)), SIZES[image_id]).flip(-1)
            scales.append({"add": a + b, "mean": (a + b) / 2, "max": torch.maximum(a, b)}[flip])
        both = torch.stack(scales)
        expected = {"max": both.amax(0), "sum": both.sum(0), "mean": both.mean(0)}[fusion]
        torch.testing.assert_close(found, expected[0], atol=1e-4, rtol=1e-4)


def test_fsr_scales_the_original_and_pads_it(net):
    """fsr.md section 4: original size x scales, flips added after resizing, maximum over scales."""
    for image_id, found in zip(SIZES, fused(net, PROTOCOLS["fsr"]), strict=True):
        size, x = SIZES[image_id], normalised(Photos().image(image_id))
        expected = None
        for scale in (1.0, 1.25, 1.5):
            scaled = x if scale == 1 else up(x, (int(size[0] * scale), int(size[1] * scale)))
            here = padded_scores(net, scaled, size) + padded_scores(net, scaled.flip(-1), size).flip(-1)
            expected = here if expected is None else torch.maximum(expected, here)
        torch.testing.assert_close(found, expected[0], atol=1e-4, rtol=1e-4)
    shapes = [s[2:] for s in net.seen]
    assert all(h % 8 == 0 and w % 8 == 0 for h, w in shapes)
    assert len(net.seen) == 3 * 3, "images of one size and their mirrors share a pass"
    assert net.seen[0][0] == 4


def test_toco_on_coco_scales_the_square(net):
    """toco.md section 4, COCO: first to the crop's square, that to each scale, mirrors by max, scales summed."""
    for image_id, found in zip(SIZES, fused(net, PROTOCOLS["toco-coco"]), strict=True):
        size, square = SIZES[image_id], up(normalised(Photos().image(image_id)), (CROP, CROP))
        expected = 0
        for side in (32, 40, 48):
            x = square if side == CROP else up(square, (side, side))
            expected = expected + torch.maximum(
                up(3 * net.conv(x), size), up(3 * net.conv(x.flip(-1)), size).flip(-1)
            )  # fmt: skip
        torch.testing.assert_close(found, expected[0], atol=1e-4, rtol=1e-4)
    assert {s[2:] for s in net.seen[:9]} == {(32, 32), (40, 40), (48, 48)}


def test_the_square_is_what_larger_scales_see():
    """Columns 0, 1, 0, 1, ... of 8 pixels: at a crop of 4 the square holds their mean, and so does every scale."""
    image = np.zeros((8, 8, 3), np.uint8)
    image[:, 1::2] = 255

    class Stripes(Photos):
        def image(self, image_id):
            return image

    class Pixels(Net):
        def normalisation(self):
            return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)

        def predict(self, images_B3HW, tags_BC=None, *, want, weights="student"):
            self.seen.append(images_B3HW)
            return Prediction(segmentation_BKhw=images_B3HW)

    network = Pixels(stride=1)
    how = Inference((1.0, 2.0), "none", "sum", "square")
    ((_, found),) = Passes(Stripes(), network, 4, "cpu").fused(["a"], [(8, 8)], how)
    assert [tuple(x.shape) for x in network.seen] == [(1, 3, 4, 4), (1, 3, 8, 8)]
    # Each pixel of the square is half a dark and half a bright column.
    assert all(torch.allclose(x, torch.full_like(x, 0.5)) for x in network.seen)
    torch.testing.assert_close(found, torch.ones(3, 8, 8))


def test_unia_scales_the_image_itself(net):
    """unia.md section 4, scales of 448x448: the published code resizes the image to each of 448, 560 and 672."""
    (found,) = fused(net, PROTOCOLS["unia"], ["a"])
    passes, expected = Passes(Photos(), net, CROP, "cpu"), None
    for side in (32, 48):  # 1.25 x 32 is 32 on the grid of 16
        x = passes.squares(["a"], side)
        here = up(3 * net.conv(x), SIZES["a"]) + up(3 * net.conv(x.flip(-1)), SIZES["a"]).flip(-1)
        expected = here if expected is None else torch.maximum(expected, here)
    torch.testing.assert_close(found, expected[0], atol=1e-4, rtol=1e-4)


def test_afa_fuses_at_the_first_map(net):
    """afa.md section 4: long side resized, flips averaged, maximum at the map of scale 1, then to the image."""
    (found,) = fused(net, PROTOCOLS["afa"], ["a"])
    from PIL import Image

    small = np.asarray(Image.fromarray(Photos().image("a")).resize((32, 23), Image.Resampling.BILINEAR))
    x = normalised(small)
    expected = None
    for scale in (1.0, 0.5, 0.75):
        scaled = x if scale == 1 else up(x, (int(23 * scale), int(32 * scale)))
        here = (padded_scores(net, scaled, (3, 4)) + padded_scores(net, scaled.flip(-1), (3, 4)).flip(-1)) / 2
        expected = here if expected is None else torch.maximum(expected, here)
    torch.testing.assert_close(found, up(expected, (40, 56))[0], atol=1e-4, rtol=1e-4)


def test_agmm_averages_probabilities_with_aligned_corners():
    """agmm.md section 4: sizes rounded down, 14 passes, probabilities resized and averaged."""
    net = Net(stride=1).eval()
    (found,) = fused(net, PROTOCOLS["agmm"], ["c"])
    x, total = normalised(Photos().image("c")), 0
    for scale in (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0):
        scaled = up(x, (int(33 * scale), int(47 * scale)), corners=True)
        for mirror in (False, True):
            y = scaled.flip(-1) if mirror else scaled
            p = up((3 * net.conv(y)).softmax(1), (33, 47), corners=True)
            total = total + (p.flip(-1) if mirror else p)
    torch.testing.assert_close(found, total[0] / 14, atol=1e-5, rtol=1e-5)
    assert float((found.sum(0) - 1).abs().max()) < 1e-5


def test_tiles_are_averaged_by_visits():
    net = Net(stride=1).eval()
    for image_id, found in zip(SIZES, fused(net, PROTOCOLS["agmm-tiles"]), strict=True):
        h, w = SIZES[image_id]
        x = F.pad(normalised(Photos().image(image_id)), (0, max(0, 32 - w), 0, max(0, 32 - h)))
        # A network of one pixel's view says the same in every tile.
        torch.testing.assert_close(found, (3 * net.conv(x)).softmax(1)[0, :, :h, :w], atol=1e-5, rtol=1e-5)


def test_tiles_smaller_than_the_image_do_see_borders(net):
    (found,) = fused(net, PROTOCOLS["agmm-tiles"], ["a"])
    starts_y, starts_x = (0, 8), (0, 11, 22, 24)
    x, total, visits = normalised(Photos().image("a")), torch.zeros(1, 3, 40, 56), torch.zeros(40, 56)
    for y in starts_y:
        for left in starts_x:
            p = (3 * net.conv(x[..., y : y + 32, left : left + 32])).softmax(1)
            total[..., y : y + 32, left : left + 32] += up(p, (32, 32), corners=True)
            visits[y : y + 32, left : left + 32] += 1
    torch.testing.assert_close(found, (total / visits)[0], atol=1e-5, rtol=1e-5)


def test_small_passes_change_nothing(net, monkeypatch):
    whole = fused(net, PROTOCOLS["fsr"])
    monkeypatch.setattr(module, "PIXELS", 1)
    net.seen.clear()
    for a, b in zip(whole, fused(net, PROTOCOLS["fsr"]), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
    assert {s[0] for s in net.seen} == {1}


def test_resampling_of_a_part_equals_the_part():
    """A map whose left half shows the image, read off like the left half of the wide map."""
    maps = torch.randn(2, 6, 8)
    torch.testing.assert_close(resample(maps, (1.0, 1.0), (12, 16)), up(maps[None], (12, 16))[0])
    found = resample(maps, (0.5, 0.75), (12, 24))
    torch.testing.assert_close(found, up(maps[None], (24, 32))[0, :, :12, :24], atol=1e-5, rtol=1e-5)
