"""UniA against unia.md: routing of labels, passes, terms, variants, presets."""

from __future__ import annotations

import dataclasses
import math

import golden_curves as golden
import pytest
import torch

import methods.parts.bases.aux_segmenter as aux_segmenter
import methods.unia.model as model
from harness.api.inference import PROTOCOLS
from harness.api.method import Batch, Progress
from harness.api.registry import registry
from harness.plan.knobs import typed_knobs
from methods.parts.ops.affinity import affinity_pairs, contrastive_affinity_loss, radius_mask
from methods.unia.config import ABLATIONS, METHOD, UniaConfig
from methods.unia.labels import Labels, routing, token_labels
from methods.unia.presets import preset
from search_spaces.unia import SPACE

LATE = Progress(15, 20)
ALL = {"cls", "aux", "kl", "ptc", "aff", "seg", "reg"}
MCR = {"seg_label": "mcr", "aff_label": "mcr", "kl_label": "mcr"}


def step(method, progress=LATE, seed=0, data=None):
    torch.manual_seed(progress.step)
    return method.step(data or golden.batch(method, seed), progress)


def values(method, progress=LATE, data=None):
    return {k: float(v.detach()) for k, v in step(method, progress, data=data).losses.items()}


def card(family, variant="default"):
    return typed_knobs(METHOD, preset(family, "paper", variant).knobs)


@pytest.mark.parametrize("variant", METHOD.variants)
def test_golden_curve(variant):
    curve = golden.train(golden.make("unia", variant))
    golden.check("unia", variant, curve)
    assert curve["cls"][-1] < curve["cls"][0]
    assert set(curve) == ALL


def routes(config, total, *steps):
    return [routing(config, Progress(s, total)) for s in steps]


def test_terms_start_where_the_card_says():
    """unia.md 2.6."""
    early, late = routes(card("voc"), 20000, 2000, 2001)
    assert (early.terms, late.terms) == (ALL - {"seg", "reg"}, ALL)
    found = [r.terms for r in routes(card("coco"), 80000, 8000, 8001, 12000, 12001, 16000, 16001)]
    base = {"cls", "aux", "kl"}
    assert found == [base, base | {"ptc"}, base | {"ptc"}, ALL - {"seg", "reg"}, ALL - {"seg", "reg"}, ALL]


def test_labels_feed_the_losses_of_the_card():
    """unia.md 2.7 and 2.5: VOC gives refined labels to kl from 8000 on, COCO to all from 30000 on."""
    voc = routes(card("voc"), 20000, 7999, 8000)
    assert [r.mcr for r in voc] == [set(), {"kl"}]
    assert [(r.aux, r.top, r.affinity) for r in voc] == [(True, True, True)] * 2
    coco = routes(card("coco"), 80000, 29999, 30000)
    assert [r.mcr for r in coco] == [set(), {"kl", "aff", "seg", "reg"}]
    assert [r.prior for r in routes(card("voc"), 20000, 6000, 6001)] == [False, True]
    assert [r.prior for r in routes(card("coco"), 80000, 6000, 6001)] == [False, True]
    assert [r.trust_cam for r in routes(card("acdc"), 20000, 8999, 9000)] == [False, True]
    assert not routes(card("voc"), 20000, 9000)[0].trust_cam


def test_refined_labels_wait_for_segmentation():
    config = UniaConfig(seg_start=0.5, kl_mcr_start=0.1, aff_mcr_start=0.1, **{**MCR, "seg_label": "par"})
    assert [r.mcr for r in routes(config, 100, 50, 51)] == [set(), {"kl", "aff"}]
    assert UniaConfig().last_start() == 0.1
    assert card("coco").last_start() == 0.2


def test_weights_scale_their_terms():
    plain = values(golden.make("unia"))
    assert set(plain) == ALL
    for term in sorted(ALL):
        before = getattr(UniaConfig(), f"w_{term}")
        doubled = values(golden.make("unia", **{f"w_{term}": 2 * before}))
        assert doubled[term] == pytest.approx(2 * plain[term], rel=1e-5), term


def count_passes(monkeypatch):
    passes = []
    real = model.encode

    def spy(encoder, images, **words):
        passes.append(
            (len(images), tuple(images.shape[-2:]), bool(words.get("stop_at_tap")), len(words.get("attention", ())))
        )
        return real(encoder, images, **words)

    for module in (model, aux_segmenter):
        monkeypatch.setattr(module, "encode", spy)
    return passes


def test_a_step_runs_only_the_passes_that_are_read(monkeypatch):
    method = golden.make("unia", cam_scales=(1.0, 0.5), seg_start=0.3)
    passes = count_passes(monkeypatch)
    step(method, Progress(0, 20))
    # Training forward with attention; mirror of scale 1, then scale .5 and its mirror, up to the auxiliary block.
    assert passes == [(4, (48, 48), False, 2), (4, (48, 48), True, 0), (8, (24, 24), True, 0)]
    passes.clear()
    step(method, Progress(7, 20))
    assert passes == [(4, (48, 48), False, 2), (4, (48, 48), False, 0), (8, (24, 24), False, 0)]
    passes.clear()
    step(golden.make("unia", w_aff=0.0, kl_label="aux"))
    assert passes[0] == (4, (48, 48), False, 0), "attention that nothing reads keeps the fused kernel"
    passes.clear()
    step(golden.make("unia", w_aff=0.0, w_kl=0.0, w_ptc=0.0, seg_start=0.9))
    assert passes == [(4, (48, 48), False, 0)], "no term reads a CAM"


def test_reused_maps_equal_fresh_ones():
    method = golden.make("unia", **MCR)
    data = golden.batch(method)
    tokens = method.net.read(data.views["view1"], with_affinity=True, with_mean=False)
    reused = method.cams(data.views["view1"], data.tags_BC, tokens, with_top=True)
    both = torch.cat([data.tags_BC] * 2, dim=1)
    from methods.parts.ops.cam import multi_scale_cam

    fresh = multi_scale_cam(method.net.both_cam_maps, data.views["view1"], (1.0,), tags_BC=both)
    torch.testing.assert_close(torch.cat(reused, dim=1), fresh, rtol=1e-4, atol=1e-5)


def test_noise_comes_from_the_seeded_generator_of_the_step_only():
    method = golden.make("unia")
    assert values(method) == values(method)
    torch.manual_seed(1)
    first = method.step(golden.batch(method), LATE).losses["kl"]
    second = method.step(golden.batch(method), LATE).losses["kl"]
    assert float(first.detach()) != float(second.detach())
    state = torch.get_rng_state()
    method.predict(golden.batch(method).views["view1"], want=frozenset(METHOD.targets))
    assert torch.equal(torch.get_rng_state(), state)


def test_affinity_loss_is_the_operator_on_its_labels_and_may_run_over_the_batch():
    method = golden.make("unia", w_aff=1.0, radius=14)
    assert method.radius == 3
    data = golden.batch(method)
    tokens = method.net.read(data.views["view1"], with_affinity=True, with_mean=False)
    label = torch.randint(0, 3, (4, 6, 6))
    label[:, 0] = 255
    pairs = affinity_pairs(label.flatten(1), radius_mask((6, 6), 3))
    expected = contrastive_affinity_loss(tokens.affinity_BNN, pairs, 0.5)
    found = method.affinity_contrast(tokens, Labels(aux_Bhw=label), refined=False)
    torch.testing.assert_close(found, expected)
    over = golden.make("unia", w_aff=1.0, radius=14, aff_over_batch=2)
    torch.testing.assert_close(over.affinity_contrast(tokens, Labels(aux_Bhw=label), refined=False), expected / 2)


def test_published_and_mean_form_have_one_weight():
    """unia.md 2.8 e: .1 over twice 4 images, COCO .05 over twice 2; at other tiers' sizes the variants agree too."""
    for family, batch, published in (("voc", 4, 0.1), ("coco", 2, 0.05)):
        released = card(family, "released")
        assert published / (2 * batch) == released.w_aff == card(family).w_aff == 0.0125
        assert preset(family, "paper", "released").group == released.aff_over_batch == batch
    lab = preset("voc", "lab", "released")
    assert lab.knobs["aff_over_batch"] == lab.group == 8


def test_token_labels_are_ids_unless_published():
    """unia.md 2.8 c."""
    label = torch.zeros(1, 8, 8, dtype=torch.int64)
    label[0, :, 5:] = 4
    near = token_labels(label, (4, 4), bilinear=False)
    assert set(near.unique().tolist()) == {0.0, 4.0}
    assert 2.0 in token_labels(label, (4, 4), bilinear=True).unique().tolist()


def test_mcr_reaches_the_losses():
    plain = values(golden.make("unia", kl_label="aux"))
    for term, word in (("kl", "kl_label"), ("aff", "aff_label"), ("seg", "seg_label")):
        changed = values(golden.make("unia", **{"kl_label": "aux", word: "mcr"}))
        assert changed[term] != plain[term], term
        assert changed["cls"] == plain["cls"]


def test_variants_differ_where_the_card_says():
    default, released = golden.make("unia"), golden.make("unia", "released")
    assert default.normalisation() == ((0.44, 0.43, 0.40), (0.22, 0.21, 0.22))
    assert released.normalisation() == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert [m.net.affinity.conv.bias.requires_grad for m in (default, released)] == [True, False]
    one, other = preset("coco", "paper", "default").knobs, preset("coco", "paper", "released").knobs
    assert {k for k in other if one.get(k) != other[k]} == {
        "imagenet_normalisation", "aff_over_batch", "freeze_aff_bias", "bilinear_label_ids", "idle_steps",
        "w_reg"}  # fmt: skip
    assert not released.config.separate_mu_head, "the shared head is in both: the published number has it"


def test_oblong_images_pass_through_every_part():
    method = golden.make("unia", crop=96).eval()
    images = torch.randn(2, 3, 64, 96)
    found = method.predict(images, torch.eye(3)[:2], want=frozenset(METHOD.targets))
    assert found.cam_BCHW.shape == found.pseudo_BCHW.shape == (2, 3, 64, 96)
    assert found.segmentation_BKhw.shape == (2, 4, 8, 12)
    data = Batch(("a", "b"), {"view1": images}, torch.eye(3)[:2], None, None)
    assert all(math.isfinite(v) for v in values(method, data=data).values())


def test_gradients_reach_every_part_once_all_terms_are_on():
    method = golden.make("unia", separate_mu_head=True)
    torch.stack(list(step(method).losses.values())).sum().backward()
    without = {n for n, p in method.net.named_parameters() if p.requires_grad and p.grad is None}
    assert without == set()
    assert all(torch.isfinite(p.grad).all() for p in method.net.parameters() if p.grad is not None)


@pytest.mark.parametrize("tags", ["none", "all"])
def test_images_with_no_class_or_all_classes_and_single_images(tags):
    for images in (1, 4):
        method = golden.make("unia", **MCR)
        data = golden.batch(method, images=images)
        filled = torch.zeros_like(data.tags_BC) if tags == "none" else torch.ones_like(data.tags_BC)
        found = step(method, data=Batch(data.ids, data.views, filled, None, None)).losses
        assert all(torch.isfinite(v) for v in found.values())


def test_padding_is_ignored():
    method = golden.make("unia", **MCR)
    data = golden.batch(method)
    content = torch.ones(4, 48, 48, dtype=torch.bool)
    content[:, :, 24:] = False
    padded = dataclasses.replace(data, content_BHW=content)
    tokens = method.net.read(data.views["view1"], with_affinity=True, with_mean=False)
    found = method.labels(padded, tokens, routing(method.config, LATE))
    assert (found.aux_Bhw[:, :, 3:] == 255).all()
    for label in (found.par_BHW, found.mcr_BHW):
        assert (label[:, :, 24:] == 255).all()


def test_datasets_without_background():
    method = golden.make("unia", has_background=False, **MCR)
    assert all(math.isfinite(v) for v in values(method).values())
    assert method.net.decoder.classify.out_channels == 3
    label = torch.tensor([[[0, 1], [3, 255]]])
    assert method.segmentation_ids(label).flatten().tolist() == [255, 0, 2, 255]
    assert method.token_ids(label).tolist() == [[255, 1, 3, 255]]


@pytest.mark.parametrize("name", ABLATIONS)
def test_ablations_are_one_word_each_and_run(name):
    method = golden.make("unia", **ABLATIONS[name])
    losses = values(method)
    assert all(math.isfinite(v) for v in losses.values())
    gone = {"base": {"kl", "aff"}, "no_unc": {"kl"}, "no_kl": {"kl"}, "no_aff": {"aff"},
            "no_ptc": {"ptc"}, "no_reg": {"reg"}}  # fmt: skip
    assert set(losses) == ALL - gone.get(name, set())


def test_describe_gives_fitted_values():
    found = golden.make("unia", crop=96).describe()
    assert (found["grid"], found["radius"], found["pooling_cell"], found["aux_block"]) == (12, 3, 2, 2)
    assert (found["affinity_blocks"], found["uncertainty"]) == ([2, 3], [128, 256, 32])


def test_rules():
    def broken(**knobs):
        return [p.where for p in UniaConfig(**knobs).problems()]

    assert broken() == []
    assert broken(pseudo_low=0.8) == ["pseudo_low"]
    assert broken(seg_label="aux", aff_norm="rows", kl_label="par") == ["seg_label", "kl_label", "aff_norm"]
    assert broken(w_aff=-1.0, w_gauss=2.0, radius=0) == ["w_aff", "w_gauss", "radius"]
    assert broken(seg_mcr_start=1.5, power=-1.0) == ["seg_mcr_start", "power"]
    assert broken(uncertainty=False) == ["w_kl"]


@pytest.mark.parametrize("family", ["voc", "coco", "acdc", "shapes"])
@pytest.mark.parametrize("tier", ["smoke", "lab", "paper"])
@pytest.mark.parametrize("variant", METHOD.variants)
def test_presets_are_legal_and_inside_the_search_space(family, tier, variant):
    chosen = preset(family, tier, variant)
    knobs = {k: v.default for k, v in UniaConfig.knobs().items()} | dict(chosen.knobs)
    assert UniaConfig(**knobs).problems() == []
    assert SPACE.check(UniaConfig, knobs) == []


def test_paper_presets_are_the_card():
    """unia.md section 3."""
    voc, coco = preset("voc", "paper", "default"), preset("coco", "paper", "default")
    assert (voc.crop, voc.batch, voc.group, voc.iterations) == (448, 4, 4, 20000)
    assert (coco.crop, coco.batch, coco.group, coco.iterations) == (448, 8, 2, 80000)
    assert voc.knobs["warmup"] * voc.iterations == coco.knobs["warmup"] * coco.iterations == 1500
    assert (voc.cam_threshold, coco.cam_threshold) == (0.5, 0.45)
    config, other = card("voc"), card("coco")
    assert (config.pseudo_high, config.pseudo_low, other.pseudo_high) == (0.7, 0.25, 0.65)
    assert config.cam_scales == (1.0, 0.5, 0.75, 1.5)
    assert other.cam_scales == (1.0, 0.5, 0.75, 1.25, 1.5)
    weights = ("w_cls", "w_aux", "w_kl", "w_ptc", "w_aff", "w_seg", "w_reg")
    assert [getattr(config, w) for w in weights] == [1, 1, 0.1, 0.3, 0.0125, 0.15, 0.05]
    assert [getattr(other, w) for w in weights] == [1, 1, 0.1, 0.2, 0.0125, 0.12, 0.05]
    assert registry().spec("unia") is METHOD
    assert voc.inference == coco.inference == PROTOCOLS["unia"]
    assert voc.inference.scales == (1.0, 1.25, 1.5)
