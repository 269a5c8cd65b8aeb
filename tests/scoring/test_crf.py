"""A12: presets, unaries, the restriction to labels that occur, and processes."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from harness.scoring import crf
from harness.scoring.crf import PRESETS, CrfPreset, Soft, crf_labels, crf_pool, crf_problems, dense_crf

installed = crf.importlib.util.find_spec("pydensecrf") is not None
needs_crf = pytest.mark.skipif(not installed, reason="pydensecrf is not installed (extra crf)")


def picture(h: int = 48, w: int = 60, labels: int = 21, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A smooth photo-like image of two regions, and the soft, noisy prediction of a network with `labels` labels."""
    rng = np.random.default_rng(seed)
    inside = (np.hypot(*(np.mgrid[:h, :w] - np.array([h / 2, w / 2])[:, None, None])) < h / 3).astype(float)
    image = 60 + 120 * inside[..., None] * [1, 0.6, 0.2] + gaussian_filter(rng.normal(0, 40, (h, w, 3)), (2, 2, 0))
    logits = gaussian_filter(rng.normal(0, 8, (labels, h, w)), (0, 4, 4))
    logits[0] += 4 * (1 - gaussian_filter(inside, 3))
    logits[min(7, labels - 1)] += 4 * gaussian_filter(inside, 3)
    probs = np.exp(logits - logits.max(0))
    return image.clip(0, 255).astype(np.uint8), (probs / probs.sum(0)).astype(np.float32)


def test_presets_are_those_of_the_card():
    card = {
        "toco": (1, 1, 121, 5, 4),
        "toco-cam": (3, 3, 36, 3, 4),
        "afa": (3, 3, 64, 5, 4),
        "irn": (3, 3, 50, 5, 10),
        "fsae": (3, 3, 80, 13, 10),
        "deeplab": (1, 3, 67, 3, 4),
    }
    found = {n: (p.pos_xy_std, p.pos_w, p.bi_xy_std, p.bi_rgb_std, p.bi_w) for n, p in PRESETS.items()}
    assert found == card
    assert {p.iterations for p in PRESETS.values()} == {10}
    assert {n: p.gt_prob for n, p in PRESETS.items() if p.gt_prob} == {"irn": 0.7}


def test_unaries_by_hand():
    soft = crf.soft_unary(np.array([[[0.5, 0.0]], [[0.5, 1.0]]]))
    assert soft == pytest.approx(np.array([[np.log(2), -np.log(1e-5)], [np.log(2), 0.0]]), rel=1e-6)
    hard = crf.hard_unary(np.array([[0, 2]]), 3, 0.7)
    right, wrong = -np.log(0.7), -np.log(0.15)
    assert hard == pytest.approx(np.array([[right, wrong], [wrong, wrong], [wrong, right]]), rel=1e-6)


def test_which_labels_occur():
    probs = np.full((4, 2, 2), 0.05, np.float32)
    probs[2] = 0.101
    probs[1, 0, 0] = 0.9
    assert Soft.of(probs).labels_n.tolist() == [1, 2]
    assert Soft.of(np.full((21, 2, 2), 1 / 21, np.float32)).labels_n.tolist() == list(range(21))
    assert Soft.of(probs, above=0.95).labels_n.tolist() == [1]


def test_words_are_answered_before_anything_starts(monkeypatch):
    assert crf_problems("none") == []
    assert "did you mean toco" in crf_problems("tocco")[0].fix
    monkeypatch.setattr(crf.importlib.util, "find_spec", lambda name: None)
    (problem,) = crf_problems("afa")
    assert "not installed" in problem.found
    assert "uv sync --extra crf, or pip install pydensecrf2==1.1" in problem.fix


@needs_crf
def test_one_label_needs_no_crf():
    image, _ = picture()
    soft = Soft(np.array([4], np.uint8), np.full((1, *image.shape[:2]), 0.9, np.float32))
    assert (crf_labels(image, soft, PRESETS["toco"]) == 4).all()


@needs_crf
def test_arrays_of_datasets_are_read_only():
    image, probs = picture(20, 24)
    soft = Soft.of(probs)
    free = crf_labels(image, soft, PRESETS["toco"])
    image.setflags(write=False)
    soft.probs_nHW.setflags(write=False)
    assert (crf_labels(image[:, ::-1][:, ::-1], soft, PRESETS["toco"]) == free).all()


@needs_crf
@pytest.mark.parametrize("name", ["toco", "afa", "irn"])
def test_labels_that_occur_are_enough(name):
    """The restriction may change 0.05 % of pixels (performance.md section 3)."""
    different = total = 0
    for seed in range(3):
        image, probs = picture(seed=seed)
        few = Soft.of(probs)
        assert 2 <= len(few.labels_n) < 21
        every = Soft.of(probs, above=-1.0)
        a, b = (crf_labels(image, soft, PRESETS[name]) for soft in (few, every))
        different += int((a != b).sum())
        total += a.size
    assert different / total <= 0.0005


@needs_crf
def test_it_is_pydensecrf_as_the_field_calls_it():
    from pydensecrf.densecrf import DenseCRF2D
    from pydensecrf.utils import unary_from_labels, unary_from_softmax

    image, probs = picture(labels=3)
    for name, preset in PRESETS.items():
        labels = probs.argmax(0)
        d = DenseCRF2D(image.shape[1], image.shape[0], 3)
        hard = preset.gt_prob is not None
        d.setUnaryEnergy(unary_from_labels(labels, 3, 0.7, zero_unsure=False) if hard else unary_from_softmax(probs))
        d.addPairwiseGaussian(sxy=preset.pos_xy_std, compat=preset.pos_w)
        d.addPairwiseBilateral(sxy=preset.bi_xy_std, srgb=preset.bi_rgb_std, rgbim=image, compat=preset.bi_w)
        expected = np.array(d.inference(10)).argmax(0).reshape(labels.shape)
        unary = crf.hard_unary(labels, 3, 0.7) if hard else crf.soft_unary(probs)
        assert (dense_crf(image, unary, preset).argmax(0) == expected).all(), name
        assert (crf_labels(image, Soft.of(probs, above=-1.0), preset) == expected).all(), name


@needs_crf
def test_it_moves_borders_to_edges():
    image, probs = picture(labels=2)
    inside = image[..., 0] > 120
    probs = np.stack([1 - probs[1], probs[1]])
    smoothed = gaussian_filter(np.where(inside, 0.8, 0.2), 4)
    probs = np.stack([1 - smoothed, smoothed]).astype(np.float32)
    before = (probs.argmax(0) == inside).mean()
    after = (crf_labels(image, Soft.of(probs), PRESETS["toco"]) == inside).mean()
    assert after > before


@needs_crf
def test_processes_give_the_same_labels():
    preset = CrfPreset(1, 1, 30, 5, 4, iterations=2)
    jobs = [picture(24, 30, seed=s) for s in range(4)]
    with crf_pool(2) as pool:
        spread = [pool.submit(image, Soft.of(probs), preset) for image, probs in jobs]
        found = [f.result() for f in spread]
    with crf_pool(1) as pool:
        alone = [pool.submit(image, Soft.of(probs), preset).result() for image, probs in jobs]
    assert all((a == b).all() for a, b in zip(found, alone, strict=True))
