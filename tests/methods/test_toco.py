"""ToCo against toco.md: numbers of its section 8, terms and starts, shared forwards, variants, published weights."""

from __future__ import annotations

import dataclasses
import math

import golden_curves as golden
import pytest
import torch

from harness.api.inference import PROTOCOLS
from harness.api.method import Batch, Progress
from harness.api.registry import registry
from harness.api.spec import resolve
from harness.errors import BadInput
from methods.parts.ops.cam import multi_scale_cam, threshold_labels
from methods.parts.ops.losses import balanced_segmentation_loss
from methods.parts.ops.relations import ptc_loss, token_relations
from methods.toco.config import ABLATIONS, METHOD, TocoConfig
from methods.toco.losses import ctc_loss
from methods.toco.presets import preset
from search_spaces.toco import SPACE

LATE = Progress(10, 20)


def step(method, progress=LATE, data=None):
    torch.manual_seed(progress.step)
    return method.step(data or golden.batch(method), progress)


def values(method, progress=LATE, data=None):
    return {k: float(v.detach()) for k, v in step(method, progress, data).losses.items()}


@pytest.mark.parametrize("variant", METHOD.variants)
def test_golden_curve(variant):
    # A CAM of a random network is flat: crops without object are seen with a higher limit only.
    curve = golden.train(golden.make("toco", variant, negative_limit=1.0))
    assert curve["ctc"][-1] > 0.1
    golden.check("toco", variant, curve)
    assert curve["cls"][-1] < curve["cls"][0]


@pytest.mark.parametrize(
    ("flags", "loss"), [((1, 1, 1, 0), 0.924232), ((1, 1, 1, 1), 1.2502e-4), ((1, 1, 0, 0), 1.647886)]
)
@pytest.mark.parametrize("tau", [0.1, 1.0])
def test_class_contrast_of_the_card(flags, loss, tau):
    """toco.md 8.1: equal features. The card's second number carries the rounding of 1.0001 in float32."""
    found = ctc_loss(torch.zeros(3, 2, 5), torch.zeros(3, 4, 5), torch.tensor([flags] * 3).bool(), tau)
    assert float(found) == pytest.approx(loss, rel=1e-6 if loss > 0.01 else 3e-4)


@pytest.mark.parametrize("constant_term", [True, False])
def test_class_contrast_equals_the_formula(constant_term):
    """toco.md 2.5, crop by crop."""
    torch.manual_seed(0)
    teacher, student = torch.randn(3, 2, 6), torch.randn(3, 7, 6)
    positive = torch.tensor([[1, 1, 0, 1, 0, 0, 1], [1] * 7, [1, 1, 0, 0, 0, 0, 0]]).bool()
    expected = 0.0
    for t, s, flag in zip(teacher.double(), student.double(), positive, strict=True):
        for v in range(2):
            e = [math.exp(float(t[v] @ s[j]) / 0.5) for j in range(7)]
            negative = sum(e[j] for j in range(7) if not flag[j])
            terms = [-math.log(e[j] / (e[j] + negative + 1e-4)) for j in range(7) if flag[j]]
            terms += [-math.log(1 / (1 + negative + 1e-4))] * constant_term
            expected += sum(terms) / (2 * (float(flag.sum()) + 1e-4)) / 3
    found = ctc_loss(teacher, student, positive, 0.5, constant_term=constant_term)
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_class_contrast_survives_aligned_prototypes():
    """1024 cosines of 1 at tau .1 are logits of 10240: exp would leave float32."""
    student = torch.ones(1, 3, 1024, requires_grad=True)
    loss = ctc_loss(torch.ones(1, 2, 1024), student, torch.tensor([[True, True, False]]), 0.1)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(student.grad).all()


def test_token_contrast_of_the_card():
    """toco.md 8.3."""
    tokens = torch.tensor([[[1.0, 0], [1, 0], [0, 1]]])
    assert float(ptc_loss(tokens, token_relations(torch.tensor([[1, 1, 2]])))) == pytest.approx(1 / 6)
    same = torch.ones(1, 3, 2)
    # 6 of 7 positives counted: 1/2 (1 - 6/7); the card's .566667 has labels 1, 1, 2 on identical tokens.
    assert float(ptc_loss(same, token_relations(torch.tensor([[1, 1, 1]])))) == pytest.approx(1 / 14)
    assert float(ptc_loss(same, token_relations(torch.tensor([[1, 1, 2]])))) == pytest.approx(0.566667, abs=1e-6)
    assert float(ptc_loss(tokens, token_relations(torch.full((1, 3), 255)))) == pytest.approx(0.5)


def test_labels_of_the_card():
    """toco.md 8.4."""
    cam = torch.tensor([[0.1, 0.25, 0.26, 0.5, 0.7, 0.71], [0.05, 0.3, 0.26, 0.9, 0.2, 0.0]]).view(1, 2, 1, 6)
    both = threshold_labels(cam, torch.ones(1, 2), low=0.25, high=0.7)
    assert both.flatten().tolist() == [0, 255, 255, 2, 255, 1]
    one = threshold_labels(cam, torch.tensor([[1.0, 0.0]]), low=0.25, high=0.7)
    assert one.flatten().tolist() == [0, 0, 255, 255, 255, 1]


def test_learning_rates_of_the_card():
    """toco.md 8.5, from the training log; heads learn ten times as fast and everything decays."""
    method = golden.make("toco", iterations=20000, lr=6e-5, head_lr_scale=10.0, warmup=1500 / 20000)
    (plan,) = method.optimizers()
    lr = {s: 6e-5 * plan.factor(s) for s in (0, 199, 1499, 1500, 19999)}
    assert lr == pytest.approx({0: 6e-11, 199: 7.960e-6, 1499: 5.996e-5, 1500: 5.593e-5, 19999: 8.077e-9}, rel=1e-3)
    groups = plan.optimizer.param_groups
    assert [g["lr"] for g in groups] == pytest.approx([6e-5, 6e-4])
    assert [g["weight_decay"] for g in groups] == [0.01, 0.01]
    trained = {id(p) for g in groups for p in g["params"]}
    assert trained == {id(p) for p in method.net.parameters() if p.requires_grad}
    assert not method.net.encoder.net.position_table.requires_grad
    assert method.net.encoder.cls_token.requires_grad
    assert plan.clip_norm is None


def test_segmentation_loss_starts_at_the_logarithm():
    """toco.md 8.6: zero logits of 21 labels."""
    label = torch.arange(16).view(1, 4, 4)
    assert float(balanced_segmentation_loss(torch.zeros(1, 21, 2, 2), label)) == pytest.approx(3.04452, abs=1e-5)


def test_token_box_of_the_card():
    """toco.md 8.7: box [2,90) x [3,80) on a 6 x 6 token map of 96 pixels."""
    content = torch.zeros(1, 96, 96, dtype=torch.bool)
    content[:, 2:90, 3:80] = True
    literal = golden.make("toco", "released").token_content(content, (6, 6))[0]
    expected = torch.zeros(6, 6, dtype=torch.bool)
    expected[2:, 3:] = True
    assert torch.equal(literal, expected)
    scaled = golden.make("toco").token_content(content, (6, 6))[0]
    assert torch.equal(scaled, torch.tensor([True] * 6).outer(torch.tensor([True] * 5 + [False])))
    far = torch.zeros(1, 448, 448, dtype=torch.bool)
    far[:, 28:, :] = True
    assert not golden.make("toco", "released").token_content(far, (28, 28)).any(), "the whole image is ignored"


def test_terms_start_where_the_card_says():
    voc = golden.make("toco", seg_start=0.1)
    assert set(step(voc, Progress(0, 20000)).losses) == {"cls", "aux", "ptc", "ctc"}
    assert voc.active(Progress(2000, 20000)) == {"cls", "aux", "ptc", "ctc"}
    assert voc.active(Progress(2001, 20000)) == {"cls", "aux", "ptc", "ctc", "seg", "reg"}
    assert voc.top_makes_labels(Progress(0, 20000))
    starts = {k: v for k, v in preset("coco", "paper", "default").knobs.items() if k.endswith("_start")}
    coco = golden.make("toco", **starts)
    terms = [coco.active(Progress(s, 80000)) - {"cls", "aux"} for s in (0, 8000, 8001, 12000, 12001)]
    assert terms == [set(), set(), {"seg", "reg"}, {"seg", "reg"}, {"ptc", "ctc", "seg", "reg"}]
    assert [coco.top_makes_labels(Progress(s, 80000)) for s in (8001, 12000, 12001)] == [False, False, True]
    assert TocoConfig(**starts).last_start() == 0.15


def test_pseudo_labels_come_from_the_cam_of_the_schedule(monkeypatch):
    method = golden.make("toco", top_start=0.5, seg_start=0.1)
    seen = []
    monkeypatch.setattr(method, "pseudo_mask", lambda images, cam, *rest: seen.append(cam) or cam[:, 0].long())
    data = golden.batch(method)
    for progress in (Progress(10, 20), Progress(11, 20)):
        step(method, progress, data)
    method.eval()
    maps = [method.net.aux_cam_maps, lambda x: method.net.top_maps(*method.net.tokens(x))]
    for cam, fn in zip(seen, maps, strict=True):
        expected = multi_scale_cam(fn, data.views["view1"], (1.0,), tags_BC=data.tags_BC)
        torch.testing.assert_close(cam, expected, rtol=1e-4, atol=1e-5)


def test_weights_scale_their_terms_and_zero_costs_nothing():
    plain = values(golden.make("toco"))
    for term in ("cls", "aux", "ptc", "ctc", "seg", "reg"):
        knob = f"w_{term}"
        doubled = values(golden.make("toco", **{knob: 2 * getattr(TocoConfig(), knob)}))
        assert doubled[term] == pytest.approx(2 * plain[term], rel=1e-5), term
        assert term not in values(golden.make("toco", **{knob: 0.0}))
    assert golden.make("toco", w_ctc=0.0).view_names == ("view1",)


def count_passes(method, monkeypatch):
    """Images, side and whether it stops early, of every encoder pass."""
    import methods.parts.bases.aux_segmenter as aux
    import methods.parts.nets.vit_segmenter as segmenter
    import methods.toco.model as model

    passes, real = [], model.encode

    def spy(encoder, images, **words):
        passes.append((len(images), images.shape[-1], words.get("stop_at_tap", False)))
        return real(encoder, images, **words)

    for module in (model, aux, segmenter):
        monkeypatch.setattr(module, "encode", spy)
    return passes


def test_forwards_with_equal_outputs_are_shared(monkeypatch):
    """toco.md 2.8: views 1 and 2 once, local crops once, and the mirror of view 1 for its CAM."""
    method = golden.make("toco", seg_start=0.3)
    passes = count_passes(method, monkeypatch)
    step(method, Progress(0, 20))
    assert passes == [(8, 48, False), (4, 48, True), (32, 16, False)], "before seg_start the top CAM is not needed"
    passes.clear()
    step(method, Progress(10, 20))
    assert passes == [(8, 48, False), (4, 48, False), (32, 16, False)]
    passes.clear()
    method = golden.make("toco", w_ctc=0.0, w_ptc=0.0)
    passes = count_passes(method, monkeypatch)
    step(method, Progress(0, 20))
    assert passes == [(4, 48, False)]


@pytest.mark.parametrize("variant", METHOD.variants)
def test_sharing_changes_no_loss_and_no_gradient(variant, monkeypatch):
    """Against the published order of work: a pass for the input, one for each use of the global crops, CAMs anew."""
    shared = golden.make("toco", variant)
    data = golden.batch(shared)
    out = step(shared, LATE, data)
    torch.stack(list(out.losses.values())).sum().backward()
    apart = golden.make("toco", variant)
    net, read = apart.net, apart.net.read

    def one_by_one(images, depth_LB):
        assert depth_LB is None, "the card has no stochastic depth"
        tokens, _ = read(images[: len(images) // 2])
        teacher_and_student = read(images)[1]
        second, _ = read(images)
        return dataclasses.replace(tokens, hw=second.hw), teacher_and_student

    def cams_anew(images, tags, tokens, *, with_top):
        with torch.no_grad():
            maps = [net.aux_cam_maps, lambda x: net.top_maps(*net.tokens(x))]
            return tuple(multi_scale_cam(fn, images, apart.config.cam_scales, tags_BC=tags) for fn in maps)

    monkeypatch.setattr(net, "read", one_by_one)
    monkeypatch.setattr(apart, "cams", cams_anew)
    found = step(apart, LATE, data)
    torch.stack(list(found.losses.values())).sum().backward()
    for name, loss in out.losses.items():
        assert float(loss.detach()) == pytest.approx(float(found.losses[name].detach()), rel=1e-4), name
    for (name, a), b in zip(shared.net.named_parameters(), apart.net.parameters(), strict=True):
        if a.grad is not None:
            torch.testing.assert_close(a.grad, b.grad, rtol=2e-3, atol=2e-5, msg=name)


def test_gradients_reach_every_part_but_the_frozen_ones():
    method = golden.make("toco")
    torch.stack(list(step(method).losses.values())).sum().backward()
    without = {n for n, p in method.net.named_parameters() if p.grad is None}
    assert without == {"encoder.net.position_table"}
    assert all(p.grad is None and not p.requires_grad for p in method.projector_teacher.parameters())


def test_local_crops_are_cut_from_the_local_view_at_their_own_size(monkeypatch):
    method = golden.make("toco")
    data = golden.batch(method)
    marked = dataclasses.replace(data, views={**data.views, "local": torch.full((4, 3, 48, 48), 7.0)})
    seen = []
    real = method.net.class_tokens
    monkeypatch.setattr(method.net, "class_tokens", lambda crops, _: seen.append(crops) or real(crops))
    step(method, LATE, marked)
    assert seen[0].shape == (32, 3, 16, 16)
    assert seen[0].eq(7.0).all()


@pytest.mark.parametrize(("backbone", "crop", "side"), [("vit_tiny_patch16_224", 448, 96), ("shapes_vit", 96, 24)])
def test_local_side_is_fitted(backbone, crop, side):
    info = dataclasses.replace(golden.make("toco", crop=crop).info, backbone=backbone)
    assert resolve(METHOD.build)(TocoConfig(), info).local_side == side
    assert resolve(METHOD.build)(TocoConfig(local_size=1), info).local_side == 2 * (16 if side == 96 else 8)


def test_no_room_for_local_crops_is_bad_input():
    with pytest.raises(BadInput, match="no room for 8 local crops of 16 px in 16"):
        golden.make("toco", crop=16)
    golden.make("toco", crop=16, w_ctc=0.0)


def test_teacher_head_starts_equal_and_follows():
    method = golden.make("toco")
    student, teacher = method.net.projector.state_dict(), method.projector_teacher.state_dict()
    assert all(torch.equal(student[k], teacher[k]) for k in student)
    before = teacher["prototypes.weight"].clone()
    with torch.no_grad():
        method.net.projector.prototypes.weight.add_(1.0)
    method.update({}, LATE)
    torch.testing.assert_close(method.projector_teacher.prototypes.weight, before + 0.1)
    assert method.teacher is None, "the encoder has no moving average to predict with"
    state = method.state_dict()
    assert {k.partition(".")[0] for k in state} == {"net", "projector_teacher"}
    assert len({v.data_ptr() for v in state.values()}) == len(state), "safetensors refuses shared tensors"


def test_variants_differ_where_the_card_says():
    default, released = golden.make("toco"), golden.make("toco", "released")
    assert default.normalisation() == ((0.44, 0.43, 0.40), (0.22, 0.21, 0.22))
    assert released.normalisation() == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    one, other = preset("voc", "paper", "default").knobs, preset("voc", "paper", "released").knobs
    changed = {
        "imagenet_normalisation",
        "separate_flips",
        "literal_token_box",
        "kaiming_decoder",
        "idle_steps",
        "w_reg",
    }
    assert {k for k in other if one.get(k) != other[k]} == changed
    assert other["w_reg"] == pytest.approx(0.0275)
    width = default.config.decoder_width
    kaiming, plain = (float(m.net.decoder.second.weight.detach().std()) for m in (default, released))
    assert kaiming == pytest.approx(math.sqrt(2 / (9 * width)), rel=0.02)
    assert plain == pytest.approx(math.sqrt(1 / (27 * width)), rel=0.02), "uniform within 1/sqrt(fan in)"


def test_cams_have_no_relu_before_they_are_resized():
    """A3: FSR's have one, ToCo's not."""
    method = golden.make("toco").eval()
    data = golden.batch(method)
    found = method.predict(data.views["view1"], data.tags_BC, want=frozenset({"cam"})).cam_BCHW
    maps = multi_scale_cam(method.cam_logits, data.views["view1"], (1.0,), tags_BC=data.tags_BC)
    torch.testing.assert_close(found, maps, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("idle", [False, True])
def test_heads_may_take_part_before_their_losses_start(idle):
    """Published: losses that have not started are multiplied by 0, so AdamW decays their heads and counts the steps."""
    method = golden.make("toco", idle_steps=idle, seg_start=0.5, ctc_start=0.5)
    out = step(method, Progress(2, 20))
    assert set(out.losses) == {"cls", "aux", "ptc"}
    torch.stack(list(out.losses.values())).sum().backward()
    for head in (method.net.decoder, method.net.projector):
        grads = [p.grad for p in head.parameters() if p.requires_grad]
        assert all((g is not None and not g.any()) if idle else g is None for g in grads)
    late = golden.make("toco", idle_steps=idle)
    assert values(late) == values(golden.make("toco")), "no loss changes by it"


def test_padded_pixels_are_in_no_label():
    method = golden.make("toco")
    data = golden.batch(method)
    nothing = dataclasses.replace(data, content_BHW=torch.zeros(4, 48, 48, dtype=torch.bool))
    found = values(method, LATE, nothing)
    assert found["ptc"] == pytest.approx(0.2 * 0.5)
    assert found["seg"] == 0
    assert found["reg"] == 0


@pytest.mark.parametrize("tags", ["none", "all"])
def test_images_with_no_class_or_all_classes_and_single_images(tags):
    for images in (1, 4):
        method = golden.make("toco")
        data = golden.batch(method, images=images)
        filled = torch.zeros_like(data.tags_BC) if tags == "none" else torch.ones_like(data.tags_BC)
        found = step(method, data=Batch(data.ids, data.views, filled, None, None)).losses
        assert all(torch.isfinite(v) for v in found.values())


def test_datasets_without_background():
    method = golden.make("toco", has_background=False)
    assert all(math.isfinite(v) for v in values(method).values())
    assert method.net.decoder.classify.out_channels == 3


def test_rules():
    def broken(**knobs):
        return [p.where for p in TocoConfig(**knobs).problems()]

    assert broken() == []
    assert broken(scale_min=3.0, w_ctc=-1.0, aux_block=13) == ["aux_block", "w_ctc", "scale_min"]
    assert broken(ctc_tau=0.0, blur_view1=1.5, local_crops=0) == ["blur_view1", "ctc_tau", "local_crops"]


@pytest.mark.parametrize("family", ["voc", "coco", "acdc", "shapes"])
@pytest.mark.parametrize("tier", ["smoke", "lab", "paper"])
@pytest.mark.parametrize("variant", METHOD.variants)
def test_presets_are_legal_and_inside_the_search_space(family, tier, variant):
    chosen = preset(family, tier, variant)
    knobs = {k: v.default for k, v in TocoConfig.knobs().items()} | dict(chosen.knobs)
    assert TocoConfig(**knobs).problems() == []
    assert SPACE.check(TocoConfig, knobs) == []


def test_paper_presets_are_the_card():
    """toco.md section 3."""
    voc, coco = preset("voc", "paper", "default"), preset("coco", "paper", "default")
    assert voc.backbone == "vit_base_patch16_224.orig_in21k_ft_in1k"
    assert (voc.crop, voc.batch, voc.group, voc.iterations, voc.inference) == (448, 4, 2, 20000, PROTOCOLS["toco"])
    assert (coco.crop, coco.batch, coco.group, coco.iterations, coco.inference) == (
        448,
        8,
        2,
        80000,
        PROTOCOLS["toco-coco"],
    )
    assert voc.knobs["warmup"] * voc.iterations == coco.knobs["warmup"] * coco.iterations == 1500
    assert (coco.knobs["pseudo_high"], coco.cam_threshold, coco.knobs["ctc_tau"]) == (0.65, 0.45, 1.0)
    config = TocoConfig()
    assert (config.lr, config.head_lr_scale, config.weight_decay, config.power) == (6e-5, 10, 0.01, 0.9)
    assert (config.pseudo_low, config.pseudo_high, voc.cam_threshold) == (0.25, 0.7, 0.5)
    assert (config.local_crops, config.projector_out, config.ctc_tau, config.head_momentum) == (8, 1024, 0.5, 0.9)
    assert (config.drop_path, config.cam_scales) == (0.0, (1.0, 0.5, 1.5))


def test_ablations_are_legal_and_change_the_preset():
    card = {k: v.default for k, v in TocoConfig.knobs().items()}
    for name, overrides in ABLATIONS.items():
        assert TocoConfig(**{**card, **overrides}).problems() == [], name
        assert any(card[k] != v for k, v in overrides.items()), name
    assert set(values(golden.make("toco", **ABLATIONS["base"]))) == {"cls", "aux", "seg", "reg"}


@pytest.fixture(scope="module")
def tiny():
    info = dataclasses.replace(golden.make("toco", crop=64).info, backbone="vit_tiny_patch16_224")
    torch.manual_seed(0)
    return resolve(METHOD.build)(TocoConfig(), info)


def published(method, prefix="module."):
    """A state dict as the official training script saves it, from our weights."""
    state = {}
    for name, tensor in method.state_dict().items():
        for ours, theirs in (
            ("net.encoder.final_norm.", "encoder.norm."), ("net.encoder.", "encoder."),
            ("net.classifier_top.", "classifier."), ("net.classifier_aux.", "aux_classifier."),
            ("net.decoder.first.", "decoder.conv6."), ("net.decoder.second.", "decoder.conv7."),
            ("net.decoder.classify.", "decoder.conv8."), ("net.projector.prototypes.weight",
            "proj_head.last_layer.weight_v"), ("projector_teacher.prototypes.weight",
            "proj_head_t.last_layer.weight_v"), ("net.projector.", "proj_head."), ("projector_teacher.",
            "proj_head_t."),
        ):  # fmt: skip
            if name.startswith(ours):
                state[prefix + name.replace(ours, theirs)] = tensor
                break
    for head in ("proj_head", "proj_head_t"):
        state[f"{prefix}{head}.last_layer.weight_g"] = torch.ones(len(method.net.projector.prototypes.weight), 1)
    state |= {f"{prefix}encoder.head.{part}": torch.zeros(1000) for part in ("weight", "bias")}
    return state


@pytest.mark.parametrize("prefix", ["module.", ""])
def test_published_names_load(tiny, prefix):
    state = published(tiny, prefix)
    assert state[f"{prefix}encoder.pos_embed"].shape == (1, 197, 192)
    assert f"{prefix}encoder.blocks.11.attn.qkv.weight" in state
    assert f"{prefix}proj_head.mlp.4.bias" in state
    converted = resolve(METHOD.published)(tiny).convert(state, tiny.state_dict())
    assert all(torch.equal(converted[k], v) for k, v in tiny.state_dict().items())


def test_wrong_published_names_are_all_named(tiny):
    state = published(tiny)
    del state["module.decoder.conv7.weight"]
    state["module.decoder.conv9.weight"] = torch.zeros(1)
    state["module.classifier.weight"] = torch.zeros(20, 768, 1, 1)
    with pytest.raises(BadInput) as caught:
        resolve(METHOD.published)(tiny).convert(state, tiny.state_dict())
    said = str(caught.value)
    assert "1 tensors are missing: net.decoder.second.weight" in said
    assert "decoder.conv9.weight" in said
    assert "classifier.weight -> net.classifier_top.weight is (20, 768, 1, 1), not (3, 192, 1, 1)" in said


def test_it_is_registered():
    assert registry().spec("toco") is METHOD
    assert golden.make("toco", crop=96).describe()["local_side"] == 24
