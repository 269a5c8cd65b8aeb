"""`variant=paper` difference by difference ("Paper vs code" of fsr.md), and the ablations of Tables 3, 4 and 5."""

from __future__ import annotations

import pickle

import golden_curves as golden
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from harness.api.dataset import Sample
from harness.api.method import Progress
from harness.api.registry import registry
from harness.plan.knobs import typed_knobs
from methods.fsr.config import ABLATIONS, METHOD, FsrConfig
from methods.fsr.masks import mask_score
from methods.fsr.model import Pooling
from methods.fsr.presets import PAPER, preset
from methods.parts.ops.cam import best_class, multi_scale_cam, normalise_cam
from methods.parts.ops.masking import edge_tokens, select_cells, uncertain_cells

LATE = Progress(10, 20)


def paper(**knobs):
    return golden.make("fsr", "paper", **{"drop_path": 0.0, **knobs})


def step(method, progress=LATE):
    torch.manual_seed(progress.step)
    return method.step(golden.batch(method), progress)


def reads(method, monkeypatch):
    """(network, view, masked tokens per image) of every full pass of a step, view by its first pixel.

    CAM passes come last; the mirror of the golden view 1 is its view 2.
    """
    found, data = [], golden.batch(method)
    names = {float(v[0, 0, 0, 0]): name for name, v in data.views.items()}
    for who, net in (("student", method.net), ("teacher", method.teacher)):
        real = net.read

        def spy(images, masked=None, depth_LB=None, who=who, real=real):
            for part in range(0, len(images), golden.GROUP):
                count = 0 if masked is None else int(masked[part].sum())
                found.append((who, names.get(float(images[part, 0, 0, 0])), count))
            return real(images, masked, depth_LB)

        monkeypatch.setattr(net, "read", spy)
    return found


def test_the_preset_is_the_cards_list():
    one, other = preset("voc", "paper", "default").knobs, preset("voc", "paper", "paper").knobs
    assert {k: v for k, v in other.items() if one.get(k, getattr(FsrConfig(), k)) != v} == PAPER
    assert set(step(golden.make("fsr", "paper")).losses) == {"cls", "class", "patch", "ptc", "seg"}


def test_difference_1_view_1_is_masked_and_view_2_is_the_teachers(monkeypatch):
    method = paper()
    found = reads(method, monkeypatch)
    step(method)
    # 36 tokens, floor(.4 * 36) = 14 of them masked. The teacher reads view 2 for its class, view 1 for its patches.
    assert found[:4] == [
        ("student", "view1", 0),
        ("student", "view1", 14),
        ("teacher", "view2", 0),
        ("teacher", "view1", 0),
    ]
    method = golden.make("fsr", random_phase=0.0)
    found = reads(method, monkeypatch)
    step(method)
    assert [f[1:] for f in found[:4]] == [("view1", 0), ("view2", 15), ("view1", 0), ("view2", 0)]


def test_difference_1_losses_by_hand():
    method = paper(w_class=1.0, w_patch=1.0, aggregate_unmasked=False)
    data, net = golden.batch(method), method.net
    losses = step(method).losses
    torch.manual_seed(LATE.step)
    mask = method.masked_tokens(data.views["view1"], data.tags_BC, LATE)
    hidden = net.read(data.views["view1"], mask)
    tau = method.config.tau_teacher

    def cross_entropy(student, teacher):
        return -((teacher / tau).softmax(-1) * (student / 0.1).log_softmax(-1)).sum(-1)

    target = net.project_class(net.read(data.views["view2"]).raw_BND)
    expected = cross_entropy(net.project_class(hidden.raw_BND), target).mean()
    torch.testing.assert_close(losses["class"], expected, rtol=1e-4, atol=1e-6)
    patches = net.projector(net.read(data.views["view1"]).top_BND)
    expected = cross_entropy(net.projector(hidden.top_BND), patches)[mask].mean()
    torch.testing.assert_close(losses["patch"], expected, rtol=1e-4, atol=1e-6)


def test_difference_2_top_classifier_at_one_scale_without_mirror():
    method = paper(cam_scales=(1.0, 0.5)).eval()
    data, net = golden.batch(method), method.net
    view, tags = data.views["view1"], data.tags_BC
    clean = net.read(view)
    found = mask_score(net, method.config, view, tags, clean)
    plain, _ = best_class(normalise_cam(net.top_maps(clean.top_BND, clean.hw).relu()), tags)
    assert found.shape == (4, 6, 6)
    torch.testing.assert_close(found, plain)
    torch.testing.assert_close(mask_score(net, method.config, view, tags), plain, msg="read anew where not at hand")
    code = golden.make("fsr", drop_path=0.0, cam_scales=(1.0, 0.5)).eval()
    auxiliary, _ = best_class(
        multi_scale_cam(code.net.aux_cam_maps, view, (1.0, 0.5), relu_first=True, tags_BC=tags), tags
    )
    torch.testing.assert_close(mask_score(code.net, code.config, view, tags), auxiliary)


@pytest.mark.parametrize(("ratio", "up", "down"), [(0.4, 15, 14), (0.5, 18, 18), (0.1, 4, 3)])
def test_difference_3_single_patches_rounded_down(ratio, up, down):
    noise = torch.rand(2, 6, 6)
    assert select_cells(None, noise, ratio).flatten(1).sum(1).tolist() == [up, up]
    assert select_cells(None, noise, ratio, floor=True).flatten(1).sum(1).tolist() == [down, down]
    method = paper(mask_ratio=ratio, crop=96)
    data = golden.batch(method, crop=96)
    mask = method.masked_tokens(data.views["view1"], data.tags_BC, LATE)
    assert mask.sum(1).tolist() == [int(144 * ratio + 1e-9)] * 4
    grid = mask.view(4, 12, 12)
    assert not torch.equal(grid[:, ::2], grid[:, 1::2]), "no blocks of two tokens"


def test_difference_4_only_unmasked_tokens_are_aggregated():
    method = paper().eval()
    net = method.net
    tokens, mask = torch.randn(2, 36, 96), torch.rand(2, 36) < 0.4
    other = torch.where(mask[..., None], torch.randn(2, 36, 96), tokens)
    torch.testing.assert_close(net.project_class(tokens, mask), net.project_class(other, mask))
    assert not torch.allclose(net.project_class(tokens), net.project_class(other), atol=1e-4)
    alone = net.project_class(tokens[:1, ~mask[0]])
    torch.testing.assert_close(net.project_class(tokens, mask)[:1], alone, rtol=1e-4, atol=1e-5)
    everything = torch.ones_like(mask)
    torch.testing.assert_close(net.project_class(tokens, everything), net.project_class(tokens))
    one, two = step(paper()).losses, step(paper(aggregate_unmasked=False)).losses
    assert not torch.equal(one["class"], two["class"])
    assert torch.equal(one["patch"], two["patch"])


def test_difference_5_the_teachers_encoder_is_the_students():
    method = golden.make("fsr", "paper")
    golden.train(method, 3)
    student, teacher = method.net.state_dict(), method.teacher.state_dict()
    equal = {name for name in student if torch.equal(student[name], teacher[name])}
    assert {name.startswith("projector.") for name in student.keys() - equal} == {True}
    assert len(student.keys() - equal) > 3
    code = golden.make("fsr")
    golden.train(code, 3)
    student, teacher = code.net.state_dict(), code.teacher.state_dict()
    assert not torch.equal(student["classifier_top.weight"], teacher["classifier_top.weight"])


def test_difference_6_no_random_phase_and_no_energy(monkeypatch):
    seen = []
    import methods.fsr.masks as masks

    real = masks.select_cells
    monkeypatch.setattr(masks, "select_cells", lambda u, *a, **k: seen.append(u is not None) or real(u, *a, **k))
    for method in (golden.make("fsr", "paper"), golden.make("fsr")):
        for progress in (Progress(0, 20), Progress(3, 20), Progress(4, 20)):
            step(method, progress)
    assert seen == [True, True, True, False, False, True]
    assert "reg" not in step(golden.make("fsr", "paper")).losses
    assert "reg" in step(golden.make("fsr")).losses


def test_ablations_are_the_rows_of_the_tables():
    ratios = [f"unc_{s}_{p}" for s in ("random", "uncertain") for p in (10, 20, 30, 40, 50)]
    table4 = ["none", "unc", "cer", "cer_gap", "cer_gmp", "both"]
    table5 = ["base", "blur", "solarize", "autoaugment"]
    assert set(METHOD.ablations) == {*ratios, "unc_cam_strict", "unc_edge_strict", *table4, *table5}
    spec = registry().spec("fsr")
    for name, knobs in ABLATIONS.items():
        for variant in METHOD.variants:
            chosen = preset("voc", "paper", variant).knobs
            assert typed_knobs(spec, {**chosen, **knobs}).problems() == [], name
    assert METHOD.ablations["both"] == {}
    assert METHOD.ablations["unc_random_30"] == {"w_class": 0.0, "selection": "random", "mask_ratio": 0.3}


@pytest.mark.parametrize("name", ["none", "unc", "cer", "cer_gap", "cer_gmp", "both", "unc_cam_strict"])
def test_terms_of_the_components(name):
    terms = set(step(golden.make("fsr", **ABLATIONS[name])).losses)
    assert ("class" in terms) == (name.startswith("cer") or name == "both")
    assert ("patch" in terms) == (name.startswith("unc") or name == "both")
    assert terms >= {"cls", "ptc", "seg", "reg"}


@pytest.mark.parametrize("kind", ["gap", "gmp"])
def test_pooled_class_tokens(kind):
    tokens, mask = torch.randn(3, 5, 4), torch.tensor([[True, False, True, False, False]] * 2 + [[True] * 5])
    found = Pooling(kind)(tokens, mask)
    for i, kept in enumerate(([1, 3, 4], [1, 3, 4], [0, 1, 2, 3, 4])):
        expected = tokens[i, kept].mean(0) if kind == "gap" else tokens[i, kept].amax(0)
        torch.testing.assert_close(found[i], expected)
    everything = Pooling(kind)(tokens)
    torch.testing.assert_close(everything, tokens.mean(1) if kind == "gap" else tokens.amax(1))
    method = golden.make("fsr", aggregation=kind)
    assert "class" in step(method).losses
    assert not [n for n, _ in method.net.named_parameters() if n.startswith("aggregation")]


def test_random_selection_never_looks_at_a_cam(monkeypatch):
    import methods.fsr.masks as masks

    monkeypatch.setattr(masks, "mask_score", lambda *a: pytest.fail("a CAM was made"))
    method = golden.make("fsr", **ABLATIONS["unc_random_30"])
    data = golden.batch(method)
    assert method.masked_tokens(data.views["view2"], data.tags_BC, LATE).sum(1).tolist() == [11] * 4


def test_strict_cam_masks_exactly_the_tokens_between_the_thresholds():
    method = golden.make("fsr", drop_path=0.0, **ABLATIONS["unc_cam_strict"])
    data = golden.batch(method)
    view, tags = data.views["view2"], data.tags_BC
    for progress in (Progress(0, 20), LATE):
        mask = method.masked_tokens(view, tags, progress)
        v = mask_score(method.net, method.config, view, tags)
        assert torch.equal(mask, uncertain_cells(v, (6, 6), 0.2, 0.7).flatten(1))
        assert torch.equal(mask.view(4, 6, 6), (v[:, ::8, ::8] > 0.2) & (v[:, ::8, ::8] < 0.7))
    assert len(set(mask.sum(1).tolist())) > 1, "no ratio"


def test_strict_edges_mask_exactly_the_tokens_that_an_edge_touches():
    pixels = torch.zeros(2, 3, 48, 48)
    pixels[0, :, :, 20:] = 200.0
    mask = edge_tokens(pixels, (6, 6)).view(2, 6, 6)
    assert mask[0].any(0).tolist() == [False, False, True, False, False, False]
    assert mask[0, 1:5, 2].all()
    assert not mask[1].any()
    with pytest.raises(ValueError, match="no whole 7x7 tokens"):
        edge_tokens(pixels, (7, 7))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(edge_tokens(pixels, (6, 6)).view(2, 6, 6), mask), "numpy reads no eight bits"
    method = golden.make("fsr", **ABLATIONS["unc_edge_strict"])
    assert torch.isfinite(step(method).losses["patch"])
    data = golden.batch(method)
    flat = torch.zeros_like(data.views["view2"])
    assert not method.masked_tokens(flat, data.tags_BC, LATE).any()


def test_an_image_without_masked_tokens_costs_nothing():
    method = golden.make("fsr", mask_low=0.0, mask_high=1e-9, **ABLATIONS["unc_cam_strict"])
    losses = step(method).losses
    assert float(losses["patch"].detach()) == 0.0
    torch.stack(list(losses.values())).sum().backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in method.net.parameters())


def sample():
    rng = np.random.default_rng(5)
    smooth = F.interpolate(torch.from_numpy(rng.random((1, 3, 6, 6))), size=(48, 48), mode="bilinear")
    image = (255 * smooth[0].permute(1, 2, 0)).to(torch.uint8).numpy()
    return Sample("a", image, np.ones(2, np.float32), None)


def views(augmentation, seed, **knobs):
    method = golden.make("fsr", augmentation=augmentation, **knobs)
    transform = pickle.loads(pickle.dumps(method.transform()))
    return transform(sample(), np.random.default_rng(seed)).views


@pytest.mark.parametrize("name", ["base", "blur", "solarize", "autoaugment"])
def test_views_come_from_the_images_generator_alone(name):
    rng = np.random.default_rng(3)
    transform = golden.make("fsr", augmentation=name).transform()
    torch.manual_seed(1)
    np.random.seed(1)
    first = transform(sample(), rng).views
    torch.manual_seed(2)
    np.random.seed(2)
    state = torch.get_rng_state()
    again = transform(sample(), np.random.default_rng(3)).views
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert torch.equal(torch.get_rng_state(), state), "the global generators are put back"
    other = transform(sample(), rng).views
    assert not torch.equal(other["view1"], first["view1"])
    assert not torch.equal(first["view1"], first["view2"])


def test_augmentations_change_the_share_of_views_that_they_should():
    plain = {"crop_area_min": 1.0, "flip_probability": 0.0, "jitter_probability": 0.0}
    base = views("base", 0, **plain)["view1"]
    counts = {}
    for name in ("blur", "solarize", "autoaugment"):
        transform = golden.make("fsr", augmentation=name, **plain).transform()
        found = [v for s in range(100) for v in transform(sample(), np.random.default_rng(s)).views.values()]
        counts[name] = sum(not torch.equal(v, base) for v in found)
    assert counts["blur"] == pytest.approx(20, abs=12)
    assert counts["solarize"] == pytest.approx(40, abs=16)
    assert counts["autoaugment"] > 120


def test_wrong_words_are_named():
    broken = FsrConfig(selection="uncertian", aggregation="max", augmentation="randaugment").problems()
    assert [p.where for p in broken] == ["selection", "aggregation", "augmentation"]
    assert "uncertain" in broken[0].fix
