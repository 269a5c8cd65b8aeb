"""FSR against fsr.md: masks, passes, terms, variants, teacher and centres."""

from __future__ import annotations

import dataclasses
import math

import golden_curves as golden
import pytest
import torch
from torch.nn import functional as F

from harness.api import fitting
from harness.api.method import Batch, Progress
from methods.fsr.config import METHOD, FsrConfig
from methods.fsr.model import heads_of
from methods.fsr.presets import preset
from methods.parts.bases.teacher import ema_update
from methods.parts.ops.distillation import patch_loss
from methods.parts.sizes import LATTICE
from methods.parts.tensors import at_slots, true_slots
from search_spaces.fsr import SPACE

LATE = Progress(10, 20)


def step(method, progress=LATE, seed=0, data=None):
    torch.manual_seed(progress.step)
    return method.step(data or golden.batch(method, seed), progress)


def values(method, progress=LATE):
    return {k: float(v.detach()) for k, v in step(method, progress).losses.items()}


@pytest.mark.parametrize("variant", METHOD.variants)
def test_golden_curve(variant):
    curve = golden.train(golden.make("fsr", variant))
    golden.check("fsr", variant, curve)
    assert curve["cls"][-1] < curve["cls"][0]


def test_six_terms_are_named_finite_and_start_where_the_card_says():
    voc = golden.make("fsr", seg_start=0.1)
    assert set(step(voc, Progress(1999, 20000)).losses) == {"cls", "class", "patch", "ptc"}
    assert set(step(voc, Progress(2000, 20000)).losses) == {"cls", "class", "patch", "ptc", "seg", "reg"}
    coco = golden.make("fsr", seg_start=0.1, ptc_start=preset("coco", "paper", "default").knobs["ptc_start"])
    terms = [set(step(coco, Progress(s, 80000)).losses) - {"cls", "class", "patch"} for s in (7999, 8000, 11999, 12000)]
    assert terms == [set(), {"seg", "reg"}, {"seg", "reg"}, {"seg", "reg", "ptc"}]
    assert all(torch.isfinite(v) and v.ndim == 0 for v in step(voc).losses.values())


def test_weights_scale_their_terms():
    plain = values(golden.make("fsr"))
    for term in ("cls", "class", "patch", "ptc", "seg", "reg"):
        before = getattr(FsrConfig(), f"w_{term}")
        doubled = values(golden.make("fsr", **{f"w_{term}": 2 * before}))
        assert doubled[term] == pytest.approx(2 * plain[term], rel=1e-5), term


def count_passes(method, monkeypatch):
    """Images and blocks of every encoder pass of a step."""
    passes = []
    import methods.fsr.model as model
    import methods.parts.bases.aux_segmenter as aux
    import methods.parts.nets.vit_segmenter as segmenter

    real = model.encode

    def spy(encoder, images, **words):
        stopped = words.get("stop_at_tap", False)
        passes.append(("teacher" if encoder is method.teacher.encoder else "student", len(images), stopped,
                       encoder.training))  # fmt: skip
        return real(encoder, images, **words)

    for module in (model, aux, segmenter):
        monkeypatch.setattr(module, "encode", spy)
    return passes


def test_default_runs_only_the_passes_that_are_read(monkeypatch):
    method = golden.make("fsr", random_phase=0.2, seg_start=0.3)
    passes = count_passes(method, monkeypatch)
    step(method, Progress(0, 20))
    # Random phase, no segmentation: student pair, teacher pair, and the mirror of view 1 up to the auxiliary block.
    assert passes == [("student", 8, False, True), ("teacher", 8, False, True), ("student", 4, True, False)]
    passes.clear()
    step(method, Progress(6, 20))
    # Mask CAM with its mirror stops at the auxiliary block; view 1 needs the mirror only.
    assert passes == [("student", 8, True, False), ("student", 8, False, True), ("teacher", 8, False, True),
                      ("student", 4, False, False)]  # fmt: skip


def test_released_runs_every_cam_pass_in_train_mode(monkeypatch):
    method = golden.make("fsr", "released", seg_start=0.3)
    passes = count_passes(method, monkeypatch)
    step(method, Progress(6, 20))
    assert passes == [("student", 8, True, True), ("student", 8, False, True), ("teacher", 8, False, True),
                      ("student", 8, False, True)]  # fmt: skip


def test_terms_without_weight_cost_nothing(monkeypatch):
    method = golden.make("fsr", w_class=0.0, w_patch=0.0, w_ptc=0.0, w_reg=0.0)
    passes = count_passes(method, monkeypatch)
    out = step(method)
    assert set(out.losses) == {"cls", "seg"}
    assert out.stats == {}
    assert passes == [("student", 4, False, True), ("student", 4, False, False)]
    passes.clear()
    method = golden.make("fsr", w_class=0.0)
    passes = count_passes(method, monkeypatch)
    out = step(method)
    assert "class" not in out.losses
    assert set(out.stats) == {"centre_patch"}
    assert ("teacher", 4, False, True) in passes, "the teacher reads view 2 only"


def test_variants_differ_where_the_card_says():
    default, released = golden.make("fsr"), golden.make("fsr", "released")
    assert default.normalisation() == ((0.44, 0.43, 0.40), (0.22, 0.21, 0.22))
    assert released.normalisation() == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert (default.config.reuse_cam, released.config.reuse_cam) == (True, False)
    one, other = preset("voc", "paper", "default").knobs, preset("voc", "paper", "released").knobs
    assert {k for k in other if one.get(k) != other[k]} == {"reuse_cam", "imagenet_normalisation", "w_reg"}
    assert other["w_reg"] == pytest.approx(LATTICE * FsrConfig().w_reg)


def test_reused_cam_equals_a_fresh_one_without_stochastic_depth():
    reused = values(golden.make("fsr", drop_path=0.0, reuse_cam=True, random_phase=0.0))
    fresh = values(golden.make("fsr", drop_path=0.0, reuse_cam=False, random_phase=0.0))
    assert reused == pytest.approx(fresh, rel=1e-5)


@pytest.mark.parametrize(("crop", "block", "masked"), [(96, 2, 15 * 4), (80, 1, 40)])
def test_mask_covers_whole_cells_of_the_fitted_size(crop, block, masked):
    method = golden.make("fsr", crop=crop)
    data = golden.batch(method, crop=crop)
    for progress in (Progress(0, 20), LATE):
        mask = method.masked_tokens(data.views["view2"], data.tags_BC, progress)
        grid = crop // 8
        assert mask.sum(dim=1).tolist() == [masked] * 4
        cells = mask.view(4, grid, grid)
        corners = cells[:, ::block, ::block].repeat_interleave(block, 1).repeat_interleave(block, 2)
        assert torch.equal(cells, corners)


def test_card_mask_is_20_of_49_cells():
    assert fitting.cells(28, FsrConfig().mask_block) == 7
    assert math.ceil(49 * FsrConfig().mask_ratio) * 16 == 320


def test_uncertain_cells_are_masked_first():
    method = golden.make("fsr", crop=96, mask_low=0.0, mask_high=1.0, mask_ratio=0.25)
    data = golden.batch(method, crop=96)
    view, tags = data.views["view2"], data.tags_BC
    torch.manual_seed(0)
    mask = method.masked_tokens(view, tags, LATE).view(4, 12, 12)[:, ::2, ::2]
    from methods.parts.ops.cam import best_class, multi_scale_cam

    method.eval()
    v, _ = best_class(multi_scale_cam(method.net.aux_cam_maps, view, (1.0,), relu_first=True), tags)
    uncertain = (v[:, ::16, ::16] > 0) & (v[:, ::16, ::16] < 1)
    for image in range(4):
        if int(uncertain[image].sum()) >= 9:
            assert not bool((mask[image] & ~uncertain[image]).any())
        else:
            assert bool((mask[image] >= uncertain[image]).all())


def test_batch_invariance_of_masks_and_patch_loss():
    method = golden.make("fsr", drop_path=0.0)
    data = golden.batch(method)
    noise = torch.rand(4, 6, 6)
    rand, torch.rand = torch.rand, lambda *size, **words: noise[: size[0]]
    try:
        together = method.masked_tokens(data.views["view2"], data.tags_BC, LATE)
        alone = method.masked_tokens(data.views["view2"][:1], data.tags_BC[:1], LATE)
    finally:
        torch.rand = rand
    assert torch.equal(together[:1], alone)


@pytest.mark.parametrize("most", [None, 6])
def test_patch_loss_of_masked_slots_equals_the_formula_over_all_tokens(most):
    torch.manual_seed(0)
    student, teacher, centre = torch.randn(3, 7, 5), torch.randn(3, 7, 5), torch.randn(5)
    mask = torch.rand(3, 7) < 0.5
    mask[1] = False
    expected = patch_loss(student, teacher, centre, 0.1, 0.05, mask)
    index, real = true_slots(mask, most)
    assert index.shape[1] == (most or int(mask.sum(1).max()))
    found = patch_loss(at_slots(student, index), at_slots(teacher, index), centre, 0.1, 0.05, real)
    torch.testing.assert_close(found, expected)


def test_card_self_check_of_both_cross_entropies():
    """fsr.md 8.3."""
    zero, mask = torch.zeros(2), torch.tensor([[True]])
    patch = patch_loss(torch.tensor([[[0.0, 0.1]]]), torch.tensor([[[0.04, 0.0]]]), zero, 0.1, 0.04, mask)
    assert float(patch) == pytest.approx(1.04432, abs=1e-5)
    uniform = patch_loss(torch.zeros(1, 1, 4096), torch.zeros(1, 1, 4096), torch.zeros(4096), 0.1, 0.04, mask)
    assert float(uniform) == pytest.approx(8.3178, abs=1e-4)


def test_class_loss_pairs_clean_teacher_of_view_1_with_masked_student_of_view_2():
    method = golden.make("fsr", drop_path=0.0, w_class=1.0, reuse_cam=True)
    data = golden.batch(method)
    progress = Progress(0, 20)
    loss = step(method, progress, data=data).losses["class"]
    torch.manual_seed(progress.step)
    mask = method.masked_tokens(data.views["view2"], data.tags_BC, progress)
    net = method.net
    student = net.project_class(net.read(data.views["view2"], mask).raw_BND)
    teacher = net.project_class(net.read(data.views["view1"]).raw_BND)
    target = (teacher / 0.04).softmax(-1)
    expected = -(target * (student / 0.1).log_softmax(-1)).sum(-1).mean()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)


def test_statistics_are_the_teachers_means():
    method = golden.make("fsr", drop_path=0.0)
    data = golden.batch(method)
    stats = step(method, data=data).stats
    patches = method.net.projector(method.net.read(data.views["view2"]).top_BND)
    torch.testing.assert_close(stats["centre_patch"], patches.mean((0, 1)), rtol=1e-5, atol=1e-6)
    assert not any(s.requires_grad for s in stats.values())
    with torch.no_grad():
        method.centre_patch_K.fill_(1.0)
    method.update(stats, Progress(0, 20))
    expected = 0.9 + 0.1 * stats["centre_patch"]
    torch.testing.assert_close(method.centre_patch_K, expected)


def test_masked_tokens_are_replaced_before_positions_are_added():
    method = golden.make("fsr").eval()
    net = method.net
    images = golden.batch(method).views["view2"]
    everything = torch.ones(4, 36, dtype=torch.bool)
    one = net.read(images, everything).raw_BND
    other = net.read(torch.randn_like(images), everything).raw_BND
    torch.testing.assert_close(one, other)
    assert not torch.allclose(one[:, 0], one[:, 1], atol=1e-4), "positions still tell tokens apart"
    assert torch.equal(net.read(images, ~everything).raw_BND, net.read(images).raw_BND)


def test_auxiliary_maps_stop_at_the_fitted_block():
    method = golden.make("fsr").eval()
    net, images = method.net, golden.batch(method).views["view1"]
    assert net.aux_block == 2
    assert net.encoder.depth == 3
    aux, top = net.both_cam_maps(images).chunk(2, dim=1)
    torch.testing.assert_close(net.aux_cam_maps(images), aux)
    torch.testing.assert_close(method.cam_logits(images), top)


def test_aggregation_updates_the_class_vector_from_all_patches():
    method = golden.make("fsr", aggregation_blocks=1)
    aggregation = method.net.aggregation
    assert torch.equal(aggregation.cls_token, method.net.encoder.cls_token)
    patches = torch.randn(2, 5, 96)
    block = aggregation.blocks[0]
    start = aggregation.cls_token.expand(2, -1, -1)
    q = block.query(block.norm1(start))
    k, v = block.key_value(block.norm1(patches)).chunk(2, -1)
    mixed = (q @ k.transpose(1, 2) / math.sqrt(96)).softmax(-1) @ v
    expected = start + block.out(mixed)
    expected = expected + block.mlp(block.norm2(expected))
    torch.testing.assert_close(aggregation(patches), expected[:, 0], rtol=1e-4, atol=1e-5)
    shuffled = aggregation(patches[:, torch.randperm(5)])
    torch.testing.assert_close(shuffled, expected[:, 0], rtol=1e-4, atol=1e-5)
    assert [heads_of(d) for d in (768, 384, 192, 96)] == [12, 6, 3, 1]


def test_teacher_starts_equal_moves_by_its_momentum_and_has_no_gradient():
    method = golden.make("fsr", iterations=20)
    student, teacher = method.net.state_dict(), method.teacher.state_dict()
    assert student.keys() == teacher.keys()
    assert all(torch.equal(student[k], teacher[k]) for k in student)
    assert not any(p.requires_grad for p in method.teacher.parameters())
    assert method.config.teacher_momentum == pytest.approx(0.9), "fitted to 20 steps"
    with torch.no_grad():
        method.net.mask_token.add_(1.0)
    before = method.teacher.mask_token.clone()
    method.update({}, Progress(10, 20))
    torch.testing.assert_close(method.teacher.mask_token, before + 0.05)
    ema_update(method.teacher, method.net, 0.0)
    assert torch.equal(method.teacher.mask_token, method.net.mask_token)
    assert not {id(p) for p in method.teacher.parameters()} & {
        id(p) for g in method.optimizers()[0].optimizer.param_groups for p in g["params"]
    }


def test_a_checkpoint_holds_teacher_and_centres():
    method = golden.make("fsr")
    golden.train(method, 2)
    state = method.state_dict()
    assert {k.partition(".")[0] for k in state} == {"net", "teacher", "centre_class_K", "centre_patch_K"}
    fresh = golden.make("fsr")
    fresh.load_state_dict(state)
    assert values(fresh) == values(method)
    storages = [v.data_ptr() for v in state.values()]
    assert len(set(storages)) == len(storages), "no shared tensors: safetensors would refuse them"


def test_teacher_predicts_by_its_own_weights():
    method = golden.make("fsr")
    golden.train(method, 3)
    images = golden.batch(method).views["view1"]
    want = frozenset({"segmentation"})
    student = method.predict(images, want=want).segmentation_BKhw
    teacher = method.predict(images, want=want, weights="teacher").segmentation_BKhw
    assert student.shape == teacher.shape == (4, 4, 6, 6)
    assert not torch.equal(student, teacher)


def test_token_contrast_of_equal_tokens_follows_the_card():
    """fsr.md 8.5: labels all 255 give .5, whatever the tokens are."""
    method = golden.make("fsr", w_ptc=1.0, pseudo_low=0.0, pseudo_high=1.0)
    data = golden.batch(method)
    tokens = method.net.read(data.views["view1"])
    cam = torch.full((4, 3, 48, 48), 0.5)
    ones = Batch(data.ids, data.views, torch.ones_like(data.tags_BC), None, None)
    label = method.aux_labels(cam, ones.tags_BC, None, tokens.hw)
    assert (label == 255).all()
    assert float(method.token_contrast(tokens, label).detach()) == pytest.approx(0.5)
    padded = dataclasses.replace(ones, content_BHW=torch.zeros(4, 48, 48, dtype=torch.bool))
    assert torch.equal(method.aux_labels(torch.ones_like(cam), padded.tags_BC, padded.content_BHW, tokens.hw), label)


def test_gradients_reach_every_part_once_all_terms_are_on():
    method = golden.make("fsr")
    torch.stack(list(step(method).losses.values())).sum().backward()
    without = {n for n, p in method.net.named_parameters() if p.requires_grad and p.grad is None}
    assert without == set()
    assert all(torch.isfinite(p.grad).all() for p in method.net.parameters() if p.grad is not None)


@pytest.mark.parametrize("tags", ["none", "all"])
def test_images_with_no_class_or_all_classes_and_single_images(tags):
    for images in (1, 4):
        method = golden.make("fsr")
        data = golden.batch(method, images=images)
        filled = torch.zeros_like(data.tags_BC) if tags == "none" else torch.ones_like(data.tags_BC)
        found = step(method, data=Batch(data.ids, data.views, filled, None, None)).losses
        assert all(torch.isfinite(v) for v in found.values())


def test_datasets_without_background():
    method = golden.make("fsr", has_background=False)
    assert all(math.isfinite(v) for v in values(method).values())
    assert method.net.decoder.classify.out_channels == 3


def test_describe_gives_fitted_values():
    found = golden.make("fsr", iterations=100, crop=96).describe()
    assert (found["grid"], found["mask_block"], found["mask_cells"], found["aux_block"]) == (12, 2, 6, 2)
    assert (found["decoder_width"], found["projector"]) == (64, [256, 32, 512])
    assert found["teacher_momentum"] == pytest.approx(0.9)
    assert golden.make("fsr", iterations=20000).describe()["teacher_momentum"] == 0.9995


def test_rules():
    def broken(**knobs):
        return [p.where for p in FsrConfig(**knobs).problems()]

    assert broken() == []
    assert broken(mask_low=0.7, mask_high=0.2) == ["mask_low"]
    assert broken(mask_ratio=0.0) == broken(mask_ratio=1.0) == ["mask_ratio"]
    assert broken(w_patch=-1.0, tau_teacher=0.2, mask_block=0) == ["w_patch", "tau_teacher", "mask_block"]


@pytest.mark.parametrize("family", ["voc", "coco", "acdc", "shapes"])
@pytest.mark.parametrize("tier", ["smoke", "lab", "paper"])
@pytest.mark.parametrize("variant", METHOD.variants)
def test_presets_are_legal_and_inside_the_search_space(family, tier, variant):
    chosen = preset(family, tier, variant)
    knobs = {k: v.default for k, v in FsrConfig.knobs().items()} | dict(chosen.knobs)
    assert FsrConfig(**knobs).problems() == []
    assert SPACE.check(FsrConfig, knobs) == []
    assert chosen.card_iterations == knobs["card_iterations"]


def test_paper_presets_are_the_card():
    """fsr.md section 3."""
    voc, coco = preset("voc", "paper", "default"), preset("coco", "paper", "default")
    assert voc.backbone == "vit_base_patch16_224.orig_in21k_ft_in1k"
    assert (voc.crop, voc.batch, voc.group, voc.iterations) == (448, 8, 2, 20000)
    assert voc.knobs["warmup"] * voc.iterations == coco.knobs["warmup"] * coco.iterations == 1500
    assert (coco.iterations, coco.knobs["ptc_start"] * coco.iterations) == (80000, 12000)
    assert (coco.knobs["pseudo_high"], coco.cam_threshold) == (0.65, 0.45)
    config = FsrConfig()
    assert config.seg_start * 20000 == 2000
    assert config.cam_scales == (1.0, 0.5, 1.5)
    assert F.softmax(torch.zeros(config.projector_out), 0)[0] == pytest.approx(1 / 4096)
