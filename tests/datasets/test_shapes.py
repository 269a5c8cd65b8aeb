"""The properties that the embedded dataset promises, over the first 1000 training pictures of seed 0."""

from __future__ import annotations

import hashlib
import inspect
import pickle
from dataclasses import dataclass, replace

import numpy as np
import pytest

from harness.api.vocabulary import IGNORE
from harness.datasets import open_dataset
from harness.datasets.shapes import (
    GENERATOR_VERSION,
    Options,
    Shapes,
    _pictures,
    _sparse,
    open,
    parse_options,
)
from harness.datasets.shapes.scene import BODY, CLUTTER, CONTEXT, PART, SMALLEST, Scene, render
from harness.datasets.weak import strokes
from harness.errors import BadInput

N = 1000
MAPS = ("image", "mask", "region", "instance")


@dataclass(frozen=True)
class Corpus:
    """Pictures, maps and derived facts of the first 1000 training pictures."""

    scenes: list[Scene]
    image: np.ndarray
    mask: np.ndarray
    region: np.ndarray
    instance: np.ndarray
    tags: np.ndarray
    place: np.ndarray

    @property
    def foreground(self) -> np.ndarray:
        return (self.mask > 0) & (self.mask != IGNORE)


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    scenes = [render(0, 0, i) for i in range(N)]
    mask = np.stack([s.mask_HW for s in scenes])
    return Corpus(
        scenes,
        np.stack([s.image_HW3 for s in scenes]),
        mask,
        np.stack([s.region_HW for s in scenes]),
        np.stack([s.instance_HW for s in scenes]),
        np.stack([(mask == c).any((1, 2)) for c in range(1, 9)], 1),
        np.array([s.place for s in scenes]),
    )


def test_image_and_mask_format(corpus: Corpus) -> None:
    assert corpus.image.shape == (N, 96, 96, 3)
    assert corpus.image.dtype == corpus.mask.dtype == np.uint8
    assert np.unique(corpus.mask).tolist() == [*range(9), 255]


def test_tags_are_balanced(corpus: Corpus) -> None:
    assert corpus.tags.mean(0).min() > 0.11
    assert corpus.tags.mean(0).max() < 0.22


def test_numbers_of_objects_and_classes(corpus: Corpus) -> None:
    objects = np.array([sum(t.visible >= SMALLEST for t in s.things) for s in corpus.scenes])
    np.testing.assert_allclose([(objects == n).mean() for n in (1, 2, 3)], (0.50, 0.35, 0.15), atol=0.05)
    assert objects.mean() == pytest.approx(1.66, abs=0.05)
    classes = corpus.tags.sum(1)
    np.testing.assert_allclose([(classes == n).mean() for n in (1, 2, 3)], (0.69, 0.28, 0.03), atol=0.05)
    assert classes.min() >= 1


def test_object_areas(corpus: Corpus) -> None:
    area = []
    for scene in corpus.scenes:
        clear = np.bincount(scene.instance_HW[scene.mask_HW != IGNORE], minlength=4) / scene.mask_HW.size
        area += [clear[i + 1] for i, t in enumerate(scene.things) if t.visible >= SMALLEST]
    assert 0.07 < np.median(area) < 0.10
    assert 0.06 < np.mean(np.array(area) < 0.03) < 0.13


def test_shares_of_pixels(corpus: Corpus) -> None:
    background, void = corpus.mask == 0, corpus.mask == IGNORE
    shares = (background.mean(), corpus.foreground.mean(), void.mean())
    np.testing.assert_allclose(shares, (0.773, 0.167, 0.059), atol=0.02)
    assert 0.17 < (corpus.region[corpus.foreground] == PART).mean() < 0.25
    assert (corpus.region[background] == CONTEXT).mean() == pytest.approx(0.16, abs=0.03)
    assert (corpus.region[background] == CLUTTER).mean() == pytest.approx(0.03, abs=0.03)


def test_hidden_parts(corpus: Corpus) -> None:
    seen = [t.part_seen for s in corpus.scenes for t in s.things if t.visible >= SMALLEST]
    assert 0.10 < np.mean(np.array(seen) < 0.25) < 0.18


def test_context_comes_with_two_classes_only(corpus: Corpus) -> None:
    for k, place in ((0, "sea"), (1, "rail")):
        there = corpus.place == place
        assert 0.70 < there[corpus.tags[:, k]].mean() < 0.85
        assert 0.78 < corpus.tags[there, k].mean() < 0.92
        others = [j for j in range(8) if j != k]
        assert max(there[corpus.tags[:, j]].mean() for j in others) < 0.12


def _pairs(corpus: Corpus, picked: str) -> np.ndarray:
    """Mean absolute RGB difference of pixel pairs 4 apart of one sort, in the first 248 pictures."""
    steps = []
    corpus = replace(corpus, **{name: getattr(corpus, name)[:248] for name in MAPS})
    for a, b in ((np.s_[:, :, :-4], np.s_[:, :, 4:]), (np.s_[:, :-4], np.s_[:, 4:])):
        m, n, r, s = corpus.mask[a], corpus.mask[b], corpus.region[a], corpus.region[b]
        clear = (m != IGNORE) & (n != IGNORE)
        if picked == "across":
            chosen = clear & (m != n)
        elif picked == "inside":
            chosen = clear & (m == n)
        else:
            i, j = corpus.instance[a], corpus.instance[b]
            chosen = (i > 0) & (i == j) & (np.minimum(r, s) == BODY) & (np.maximum(r, s) == PART)
        p, q = corpus.image[a][chosen].astype(np.int16), corpus.image[b][chosen].astype(np.int16)
        steps.append(np.abs(p - q).mean(1))
    return np.concatenate(steps)


def test_colour_steps_follow_boundaries(corpus: Corpus) -> None:
    across, inside, heads = (_pairs(corpus, sort) for sort in ("across", "inside", "part to body"))
    assert np.median(across) > 5 * np.median(inside)
    assert (across < 10).mean() < 0.04
    assert np.median(heads) == pytest.approx(61, abs=6)


def test_colour_oracle(corpus: Corpus) -> None:
    """A labelling of each 24-level colour bin of an image by its majority label is nearly right."""
    bins = (corpus.image // 24).astype(np.int64) @ np.array((121, 11, 1))
    conf = np.zeros((9, 9), np.int64)
    for mask, code in zip(corpus.mask, bins, strict=True):
        clear = mask != IGNORE
        votes = np.bincount(code[clear] * 9 + mask[clear], minlength=1331 * 9).reshape(-1, 9)
        guess = votes.argmax(1)[code[clear]]
        conf += np.bincount(mask[clear] * 9 + guess, minlength=81).reshape(9, 9)
    hit = np.diag(conf)
    assert (hit / (conf.sum(0) + conf.sum(1) - hit)).mean() > 0.88


@pytest.mark.parametrize("kind", ["points", "scribbles", "clicks20"])
def test_weak_labels_agree_with_masks(corpus: Corpus, kind: str) -> None:
    count = {"scribbles": 250}.get(kind, N)
    labels = np.stack([_sparse(0, 0, i, kind, 0.0) for i in range(count)])
    drawn = labels != IGNORE
    assert drawn.any((1, 2)).all()
    np.testing.assert_array_equal(labels[drawn], corpus.mask[:count][drawn])
    if kind == "scribbles":
        assert drawn.mean() == pytest.approx(0.06, abs=0.03)
        assert drawn[corpus.foreground[:count]].mean() == pytest.approx(0.08, abs=0.03)
    if kind == "clicks20":
        assert set(drawn.sum((1, 2))) == {20}
    if kind == "points":
        instances = [sum(t.visible >= SMALLEST for t in s.things) for s in corpus.scenes]
        np.testing.assert_array_equal(drawn.sum((1, 2)), np.array(instances) + 1)


def test_weak_labels_reach_every_tag(corpus: Corpus) -> None:
    for i in range(100):
        for kind in ("points", "scribbles"):
            found = np.unique(_sparse(0, 0, i, kind, 0.0))
            assert set(found) == {0, *(np.flatnonzero(corpus.tags[i]) + 1), IGNORE}


def test_instances_below_the_limit_are_void(corpus: Corpus) -> None:
    small = [(s, i + 1) for s in corpus.scenes for i, t in enumerate(s.things) if 0 < t.visible < SMALLEST]
    for scene, number in small:
        assert (scene.mask_HW[scene.instance_HW == number] == IGNORE).all()
    one_pixel = corpus.instance[:, :, 1:] != corpus.instance[:, :, :-1]
    assert (corpus.mask[:, :, 1:][one_pixel] == IGNORE).all()
    assert (corpus.mask[:, :, :-1][one_pixel] == IGNORE).all()


PICTURES = {  # SHA-256 over the first 64 images and masks of each split, generator version 1
    "train": "6bf6bc4237d4a197d34265e2a3c85f4c395697360c43a4552c108e96f37d508a",
    "val": "a151de5ca9822135f6c81c3f90e68162489412ea18028ec96e8e60c8d95660be",
    "test": "5e85548bb7f48992a42b58971d6204251c58470e02ac326e102ac635f9e8a12d",
}
WEAK = "0a61eec4e7f9c7fc322f6d12edcdc883faf324d41b12bf71943997803ef80364"
LOCKED_NUMPY = "2.4"


def test_pictures_have_not_changed() -> None:
    """A difference means new pictures: raise GENERATOR_VERSION, measure again, then renew the digests."""
    if not np.__version__.startswith(LOCKED_NUMPY):
        pytest.skip("bytes are promised for the locked numpy only")
    data = Shapes()
    digests = {}
    for split in PICTURES:
        total = hashlib.sha256()
        for image_id in data.ids(split)[:64]:
            total.update(data.image(image_id).tobytes() + data.mask(image_id).tobytes())
        digests[split] = total.hexdigest()
    total = hashlib.sha256()
    for image_id in data.ids("train")[:16]:
        for kind in ("points", "scribbles", "clicks20"):
            total.update(data.weak(image_id, kind).tobytes())
    assert (GENERATOR_VERSION, digests, total.hexdigest()) == (1, PICTURES, WEAK)


def test_main_class_and_order() -> None:
    """Pictures do not depend on what was rendered before, and picture i shows class i mod 8."""
    again = render(0, 0, 5)
    for other in (9, 0):
        render(0, 0, other)
    np.testing.assert_array_equal(render(0, 0, 5).image_HW3, again.image_HW3)
    assert all(i % 8 + 1 in {t.label for t in render(3, 1, i).things} for i in range(16))
    assert not np.array_equal(render(0, 1, 5).image_HW3, again.image_HW3)
    assert not np.array_equal(render(1, 0, 5).image_HW3, again.image_HW3)


def test_options_are_the_parameters_of_open() -> None:
    own = [name for name in inspect.signature(open).parameters if name not in ("root", "masks", "classes")]
    assert own == list(vars(Options()))


def test_dataset_interface() -> None:
    data = open(n_train="24", n_val="3", n_test="5")
    assert data.splits() == {"train": True, "val": True, "test": True}
    assert data.ids("val") == ("val/000000", "val/000001", "val/000002")
    assert (data.num_labels, data.num_classes, data.has_background) == (9, 8, True)
    assert [len(Shapes().ids(split)) for split in ("train", "val", "test")] == [1000, 200, 400]
    np.testing.assert_array_equal(data.mask("test/000004"), render(0, 1, 4).mask_HW)
    np.testing.assert_array_equal(data.image("val/000002"), render(0, 2, 2).image_HW3)
    assert data.size("train/000000") == (96, 96)
    tags = data.tags("train/000002")
    assert tags.dtype == np.float32
    assert tags[2] == 1
    np.testing.assert_array_equal(data.weak("train/000002", "masks"), data.mask("train/000002"))


def test_callers_cannot_spoil_the_cache() -> None:
    data = Shapes()
    for read in (data.image, data.mask, lambda i: data.weak(i, "points")):
        read("train/000000")[:] = 7
        assert not (read("train/000000") == 7).all()


def test_pickled_dataset_is_small_and_equal() -> None:
    data = open(seed="4")
    data.image("train/000001")
    text = pickle.dumps(data)
    assert len(text) < 1000
    other = pickle.loads(text)
    _pictures.cache_clear()
    np.testing.assert_array_equal(other.image("train/000001"), data.image("train/000001"))


def test_fingerprint_covers_what_decides_the_labels() -> None:
    ids = Shapes().ids("train")[:50]
    same = Shapes().fingerprint(ids)
    assert Shapes(Options(n_train=60, n_test=7)).fingerprint(ids) == same
    others = [
        Shapes(Options(seed=1)).fingerprint(ids),
        Shapes(Options(tag_noise=0.1)).fingerprint(ids),
        Shapes(Options(point_jitter=2)).fingerprint(ids),
        Shapes().fingerprint(ids[::-1]),
        Shapes().fingerprint(ids[:-1]),
    ]
    assert len({same, *others}) == 6


def test_tag_noise_is_for_training_only_and_deterministic() -> None:
    clean, noisy = Shapes(), open(tag_noise="0.5")
    for image_id in clean.ids("val")[:10]:
        np.testing.assert_array_equal(clean.tags(image_id), noisy.tags(image_id))
    ids = clean.ids("train")[:200]
    truth, given = (np.stack([d.tags(i) for i in ids]) for d in (clean, noisy))
    np.testing.assert_array_equal(given, np.stack([noisy.tags(i) for i in ids]))
    added = ((given == 1) & (truth == 0)).sum(1)
    assert set(added) == {0, 1}
    assert added.mean() == pytest.approx(0.5, abs=0.1)
    assert ((given == 1) & (truth == 1)).any(1).all()
    several = truth.sum(1) == 2
    missed = ((given == 0) & (truth == 1)).sum(1)[several]
    assert missed.mean() == pytest.approx(0.5, abs=0.2)


def test_point_jitter_moves_points_but_keeps_their_number() -> None:
    clean, sloppy = Shapes(), open(point_jitter="3")
    moved = 0
    for image_id in clean.ids("train")[:20]:
        before, after = clean.weak(image_id, "points"), sloppy.weak(image_id, "points")
        assert (after != IGNORE).sum() <= (before != IGNORE).sum()
        moved += not np.array_equal(before, after)
    assert moved == 20


def test_bad_words_are_answered_together() -> None:
    with pytest.raises(BadInput) as caught:
        open(n_val="many", tag_noise="2", root="/data")
    text = str(caught.value)
    assert len(caught.value.problems) == 3
    for piece in ("data.n_val", "'many'", "data.tag_noise", "data.root"):
        assert piece in text
    for use in (parse_options, lambda options: open_dataset("shapes", options=options)):
        with pytest.raises(BadInput, match="did you mean n_train"):
            use({"n_trian": "5"})
    with pytest.raises(BadInput, match="did you mean scribbles"):
        Shapes().weak("train/000000", "scribble")
    with pytest.raises(BadInput, match="did you mean train"):
        Shapes().ids("tarin")
    for bad in ("train/001000", "train/1", "trian/000001", "train"):
        with pytest.raises(BadInput, match="shapes has no image"):
            Shapes().image(bad)


def test_thinning_by_hand() -> None:
    """A 3x7 bar thins to its middle line; a one-pixel line stays; a plus keeps its centre."""
    bar = np.zeros((5, 9), bool)
    bar[1:4, 1:8] = True
    ys, xs = np.nonzero(strokes.thin(bar))
    assert set(ys) == {2}
    assert len(xs) >= 4
    line = np.zeros((3, 6), bool)
    line[1, 1:5] = True
    np.testing.assert_array_equal(strokes.thin(line), line)


def test_longest_path_by_hand() -> None:
    """Of a T the longest path runs from end to end of its bar; the smaller component does not count."""
    grid = np.zeros((6, 9), bool)
    grid[1, 1:8] = True
    grid[2, 4] = True
    grid[5, 0:2] = True
    path = strokes.longest_path(grid)
    assert {path[0], path[-1]} == {(1, 1), (1, 7)}
    assert [x for _, x in sorted(path, key=lambda p: p[1])] == list(range(1, 8))
    assert strokes.longest_path(np.zeros((3, 3), bool)) == []


def test_points_prefer_the_inside() -> None:
    """In a 9x9 square depths 1 to 4 hold 32, 24, 16, 9 pixels: P(border ring) = 32/416."""
    mask = np.zeros((20, 20), np.uint8)
    mask[5:14, 5:14] = 3
    instance = (mask > 0).astype(np.uint8)
    rng = np.random.default_rng(0)
    border = 0
    for _ in range(1000):
        label = strokes.points(mask, strokes.numbered(mask, instance), rng)
        ((y, x),) = np.argwhere(label == 3)
        border += y in (5, 13) or x in (5, 13)
        assert (label == 0).sum() == 1
    assert border / 1000 == pytest.approx(32 / (32 + 4 * 24 + 9 * 16 + 16 * 9), abs=0.025)
