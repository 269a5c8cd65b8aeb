"""BRNF's step: which terms are on when, where gradients end (brnf.md 8.9), classes that wait, the gate and the bank."""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
from collections import deque

import pytest
import torch
import torch.nn.functional as F

from harness.api.method import Batch, BuildInfo, Progress, StepOutput
from harness.api.vocabulary import IGNORE
from methods.brnf.bank import Bank, regions
from methods.brnf.densities import pixels_of
from methods.brnf.flow_optimiser import FiniteAdam
from methods.brnf.knobs import BrnfConfig
from methods.brnf.method import Brnf
from methods.brnf.mixture import ClassFlow
from methods.brnf.pixels import balanced_pixels
from methods.brnf.sampling import sample_features

INFO = BuildInfo(
    num_classes=3,
    has_background=True,
    crop=64,
    iterations=24,
    group=4,
    tier="smoke",
    variant="default",
    labels="tags",
    backbone="shapes_cnn",
    backbone_weights=None,
    decoder="largefov",
)
TAGS = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]])
SMALL = {"density_pixels": 4, "region_min": 1, "lr": 0.01}
WARM, LEARNING, USING = (Progress(step, 24) for step in (0, 4, 20))


def batch(size: int = 64) -> Batch:
    """Two images of coloured squares, one with padding, and base seeds that know the squares."""
    rng = torch.Generator().manual_seed(0)
    images = 0.3 * torch.randn(2, 3, size, size, generator=rng)
    seed = 0.1 * torch.rand(2, 3, 8, 8, generator=rng)
    for image, label, where in ((0, 0, (2, 4)), (1, 1, (0, 3)), (1, 2, (5, 8))):
        low, high = (size * n // 8 for n in where)
        images[image, label, low:high, low:high] += 2.5
        seed[image, label, where[0] : where[1], where[0] : where[1]] += 0.9
    content = torch.ones(2, size, size, dtype=torch.bool)
    content[0, -size // 4 :] = False
    return Batch(("a", "b"), {"view1": images}, TAGS, None, content, {"seed": seed})


def built(backbone: str = "shapes_cnn", **knobs) -> Brnf:
    torch.manual_seed(0)
    weights = None if backbone.startswith("shapes") else "random"
    info = dataclasses.replace(INFO, backbone=backbone, backbone_weights=weights)
    return Brnf(BrnfConfig(**{**SMALL, **knobs}), info).train()


def step(method: Brnf, progress: Progress) -> StepOutput:
    torch.manual_seed(progress.step)
    return method.step(batch(), progress)


@functools.cache
def experienced() -> Brnf:
    return trained(20)


def copied() -> Brnf:
    """A method after twenty steps, whose densities and bank hold something."""
    return copy.deepcopy(experienced())


def trained(steps: int, **knobs) -> Brnf:
    """A method after some steps."""
    method = built(**knobs)
    plans = method.optimizers()
    for n in range(steps):
        progress = Progress(n, 24)
        out = step(method, progress)
        torch.stack(list(out.losses.values())).sum().backward()
        for plan in plans:
            parameters = [p for g in plan.optimizer.param_groups for p in g["params"]]
            torch.nn.utils.clip_grad_norm_(parameters, plan.clip_norm)
            if plan.active(progress):
                plan.optimizer.step()
            plan.optimizer.zero_grad()
        method.update(out.stats, progress)
    return method


def test_terms_start_in_three_phases_and_rise() -> None:
    """brnf.md 2.8: epochs 0, 1 and 2 of 6, and a ramp of 300 of 3966 steps."""
    method = built()
    base = {"cls", "gui", "gsc"}
    assert set(step(method, WARM).losses) == base
    assert set(step(method, Progress(3, 24)).losses) == base
    assert set(step(method, LEARNING).losses) == base | {"f1", "f2"}
    assert set(step(method, USING).losses) == base | {"f1", "f2", "cal", "nce"}
    assert [plan.active(WARM) for plan in method.optimizers()] == [True, False, False]
    assert [plan.active(LEARNING) for plan in method.optimizers()] == [True, True, True]
    long = 3966
    shares = [method.phase(Progress(n, long)).ramp for n in (1322, 1322 + 149, 1322 + 299, long - 1)]
    assert shares == pytest.approx([1 / 300, 0.5, 1.0, 1.0])
    assert not method.phase(Progress(1321, long)).used
    factors = [plan.factor(12) for plan in method.optimizers()]
    assert factors == pytest.approx([0.5**0.9, 0.1, 0.1])


def test_the_consistency_weighs_more_before_the_flows_learn() -> None:
    full, none = built(w_gsc=0.5), built(w_gsc=1.0)
    assert torch.equal(step(full, WARM).losses["gsc"], step(none, WARM).losses["gsc"])
    assert torch.equal(2 * step(full, LEARNING).losses["gsc"], step(none, LEARNING).losses["gsc"])


def gradients(loss: torch.Tensor, method: Brnf) -> dict[str, torch.Tensor | None]:
    named = [(n, p) for n, p in method.named_parameters() if p.requires_grad]
    found = torch.autograd.grad(loss, [p for _, p in named], allow_unused=True, retain_graph=True)
    return {n: g for (n, _), g in zip(named, found, strict=True)}


def reached(loss: torch.Tensor, method: Brnf) -> set[str]:
    """First parts of the names of parameters that a term has a gradient for that is not exactly zero."""
    found = gradients(loss, method)
    return {".".join(n.split(".")[:2]) for n, g in found.items() if g is not None and bool(g.any())}


@pytest.mark.parametrize("backbone", ["shapes_cnn", "vit_tiny_patch16_224"])
def test_gradients_end_where_the_card_says(backbone: str) -> None:
    """brnf.md 8.9, each exactly zero or None."""
    method = built(backbone) if backbone != "shapes_cnn" else copied()
    if backbone != "shapes_cnn":
        method.f1.seen_K.fill_(100)
        method.bank.push(F.normalize(torch.randn(4, 4, method.dim), dim=2), torch.ones(4, 4))
    out = step(method, USING)
    flows = {"f1.density", "f2.density"}
    assert reached(out.losses["f1"], method) == {"f1.density"}, "d L_f1 / d CNN = 0"
    assert reached(out.losses["f2"], method) == {"f2.density"}
    if float(out.losses["cal"].detach()):
        assert reached(out.losses["cal"], method) == {"net.stages", "net.classifier"}, "d L_cal / d flow = 0"
    assert reached(out.losses["gui"], method) == {"net.side"}, "d L_gui / d x4 = 0"
    if float(out.losses["nce"].detach()):
        assert reached(out.losses["nce"], method) == {"net.side"}
    assert not flows & reached(out.losses["gsc"] + out.losses["cls"], method)
    assert not any(buffer.requires_grad for buffer in method.buffers()), "d L_nce / d bank = 0"


def test_the_audit_is_of_terms_that_are_there() -> None:
    out = step(copied(), USING)
    assert float(out.losses["cal"].detach()) > 0
    assert float(out.losses["nce"].detach()) > 0


def test_with_attached_side_branches_the_guidance_reaches_the_last_stages() -> None:
    method = built(side_detach="x1x2")
    assert reached(step(method, WARM).losses["gui"], method) == {"net.side", "net.stages"}


def test_a_cnn_keeps_three_stages_and_a_vit_none() -> None:
    cnn, vit = built(), built("vit_tiny_patch16_224")
    assert cnn.net.frozen == 3
    assert vit.net.frozen == 0
    assert not any(p.requires_grad for n, p in cnn.net.named_parameters() if n.startswith("stages.0"))
    out = step(vit, WARM)
    blocks = {
        n.split(".")[4] for n, g in gradients(out.losses["cls"], vit).items() if ".blocks." in n and g is not None
    }
    assert blocks == {str(n) for n in range(12)}, "the trunk is trained"
    assert vit.net.stages.ends == (0, 3, 6, 9, 12)


def test_widths_follow_the_backbone_where_tiers_are_small() -> None:
    """Design rule (c): x dim / 768 of a ViT, / 2048 of a CNN, in steps of 32."""
    assert built().describe()["side_dims"] == [32, 32, 32, 32]
    vit = built("vit_tiny_patch16_224")
    assert (vit.config.side_dims, vit.config.hidden, vit.dim) == ((32, 32, 64, 64), 64, 192)
    torch.manual_seed(0)
    card = Brnf(BrnfConfig(), dataclasses.replace(INFO, tier="paper"))
    assert (card.config.side_dims, card.config.hidden, card.dim) == ((128, 128, 256, 256), 256, 768)


ONLY = {"gmm": {"w_nce": 0.0, "gate": False}, "fscl": {"w_cal": 0.0, "gate": False},
        "bsdnf": {"w_cal": 0.0, "w_nce": 0.0}, "none": {"w_cal": 0.0, "w_nce": 0.0, "gate": False}}  # fmt: skip


@pytest.mark.parametrize(
    ("only", "more"), [("gmm", {"f1", "cal"}), ("fscl", {"f1", "nce"}), ("bsdnf", {"f2"}), ("none", set())]
)
def test_each_component_brings_its_terms_and_nothing_else(only: str, more: set[str]) -> None:
    """Beside those of no component; what all share starts from equal numbers."""
    base, other = built(**ONLY["none"]), built(**ONLY[only])
    assert set(step(other, USING).losses) == {"cls", "gui", "gsc"} | more
    assert {name.split(".")[0] for name, _ in other.named_parameters()} == {"net"} | (more & {"f1", "f2"})
    alone, beside = step(base, USING).losses, step(other, USING).losses
    assert all(torch.equal(beside[name], alone[name]) for name in alone if name != "gui" or only != "bsdnf")


def test_classes_with_too_few_pixels_wait_and_the_log_says_so() -> None:
    method = trained(16, density_pixels=100_000)
    out = step(method, USING)
    assert float(out.logged["f1_waiting"]) == 4
    assert float(out.logged["f2_waiting"]) == 3
    assert float(out.losses["cal"].detach()) == 0
    assert float(out.logged["gate_removed"]) == 0
    assert not method.bank.aug_weight_KS.any()
    assert float(step(copied(), USING).logged["f1_waiting"]) < 4


def test_an_image_with_a_class_that_waits_calibrates_nothing() -> None:
    method = copied()
    group = batch()
    valid = torch.ones(2, 4, 8, 8)
    pixels = pixels_of(torch.randn(2, method.dim, 8, 8), valid, group.tags_BC, method.config)
    method.f1.seen_K.copy_(torch.tensor([9.0, 9.0, 9.0, 0.0]))
    posterior = method.f1.posterior(pixels).view(2, 64, 4)
    assert torch.allclose(posterior[0].sum(1), torch.ones(64))
    assert not posterior[0, :, 2:].any(), "absent classes have none"
    assert not posterior[1].any(), "class 3 is in the second image"


def test_the_gate_is_the_card_s() -> None:
    """brnf.md 2.5, against a sum in words: pixels of equal score, mean 0 and deviation 1."""
    method = built(gate_softness=0.5)
    gate = method.f2
    gate.seen_K.fill_(100)
    gate.known_K.fill_(1)
    gate.std_K.fill_(1)
    seed = torch.tensor([0.2, 0.8, 0.0, 0.0]).view(1, 4, 1, 1).expand(1, 4, 1, 2)
    out = StepOutput({})
    found = gate.gated(seed, torch.tensor([-1.0, 1.0]), torch.tensor([1, 1]), 0.5, out)
    stays = [1 - 0.5 * (1 - 1 / (1 + math.exp(-(s + 1) / 0.5))) for s in (-1, 1)]
    assert found[0, 1, 0].tolist() == pytest.approx([0.8 * s for s in stays])
    assert found[0, 0, 0].tolist() == pytest.approx([1 - 0.8 * s for s in stays])
    assert float(out.logged["gate_removed"]) == pytest.approx(sum(2 * (1 - s) for s in stays) / 2)


def test_the_gate_s_moments_move_by_class() -> None:
    method = built(ema=1.0)
    gate = method.f2
    score, label = torch.tensor([1.0, 3.0, 9.0]), torch.tensor([1, 1, IGNORE])
    gate.follow(gate.moments(score, label))
    assert gate.mean_K.tolist() == [0, 2, 0, 0]
    assert gate.std_K.tolist() == [0, 1, 0, 0]
    gate.follow(gate.moments(score, torch.tensor([IGNORE, IGNORE, 2])))
    assert gate.mean_K.tolist() == [0, 2, 9, 0], "the first score is the mean, a class that is not there stays"
    gate.config = dataclasses.replace(gate.config, ema=0.75)
    gate.follow(gate.moments(score + 4, label))
    assert gate.mean_K.tolist() == [0, 3, 9, 0]


def test_base_seeds_are_of_the_tags_and_background_is_the_rest() -> None:
    method, group = built(), batch()
    valid = torch.ones(2, 4, 8, 8)
    valid[0, 2:] = valid[1, 1] = 0
    found = method.base_seed(group.extra["seed"], valid)
    assert not found[0, 2:].any()
    assert found[0, 1].max() == pytest.approx(1, abs=1e-4)
    assert torch.allclose(found[:, 0], 1 - found[:, 1:].amax(1))
    with_own = torch.cat([torch.full((2, 1, 8, 8), 7.0), group.extra["seed"]], dim=1)
    assert torch.equal(method.base_seed(with_own, valid), found)
    fine = F.interpolate(group.extra["seed"], (32, 32), mode="nearest")
    coarse = method.base_seed(fine, valid)
    assert torch.allclose(coarse, found, atol=1e-5)
    squared = built(seed_power=2.0).base_seed(group.extra["seed"], valid)
    assert torch.allclose(squared[:, 0], found[:, 0] ** 2)


def test_the_bank_is_a_queue() -> None:
    """Against a plain queue, image by image, where more come than it holds too."""
    bank = Bank(BrnfConfig(n_reg=3, n_aug=1), 2, 4)
    plain = [deque(maxlen=3), deque(maxlen=3)]
    rng = torch.Generator().manual_seed(0)
    for images in (2, 1, 5, 3, 4):
        feature = F.normalize(torch.randn(images, 2, 4, generator=rng), dim=2)
        valid = torch.rand(images, 2, generator=rng) < 0.6
        bank.push(feature, valid.float())
        for image in range(images):
            for label in range(2):
                if valid[image, label]:
                    plain[label].append(feature[image, label])
        for label in range(2):
            kept = bank.region_KSD[label][bank.region_weights()[label] > 0]
            assert len(kept) == len(plain[label])
            assert {tuple(v.tolist()) for v in kept} == {tuple(v.tolist()) for v in plain[label]}
    features, weights = bank.entries()
    assert features.shape == (3, 4, 4)
    assert not weights[2].any()
    assert bank.region_weights().sum() == 6


def test_regions_are_means_of_sure_pixels() -> None:
    v = torch.tensor([[3.0, 1.0, 0.0, 5.0], [0.0, 1.0, 2.0, 5.0]]).view(1, 2, 2, 2).requires_grad_()
    proto = torch.tensor([[0.1, 0.0, 0.9, 0.5], [0.9, 0.7, 0.1, 0.5]]).view(1, 2, 2, 2)
    seeds = torch.tensor([[0.0, 0.0, 1.0, 0.0], [1.0, 1.0, 0.0, 1.0]]).view(1, 2, 2, 2)
    found, valid = regions(v, proto, seeds, torch.ones(1, 2, 2, 2), tau=0.6, least=2)
    assert valid.tolist() == [[False, True]], "the background has one seed"
    assert found[0, 1].tolist() == pytest.approx([4 / 17**0.5, 1 / 17**0.5])
    assert torch.autograd.grad(found[0, 1].sum(), v)[0][0, :, 1].abs().sum() == 0


def test_densities_gate_and_regions_do_not_see_autocast() -> None:
    """In eight bits a deviation of .1 around a mean of -1.3 would drown: every number is that of single precision."""
    torch.manual_seed(0)
    method = built()
    v, valid = torch.randn(2, method.dim, 8, 8), torch.ones(2, 4, 8, 8)
    proto, seeds = torch.rand(2, 4, 8, 8), torch.ones(2, 4, 8, 8)
    pixels = pixels_of(v, valid, torch.ones(2, 3), method.config)
    score, label = -1.3 + 0.1 * torch.randn(128), torch.arange(128) % 4

    def made() -> list[torch.Tensor]:
        flow = method.f1.density.flow
        samples = sample_features(flow, method.f1.density.mean_KD, torch.ones(4, 3, method.dim), 0.5, 2)
        return [
            *flow(pixels.a_ND),
            *flow.inverse(pixels.a_ND),
            *samples,
            method.f1.posterior(pixels),
            method.f2.scores(pixels, label),
            method.f2.moments(score, label),
            regions(v, proto, seeds, valid, tau=0.5, least=1)[0],
        ]

    plain = made()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert all(torch.equal(one, other) for one, other in zip(plain, made(), strict=True))


def test_pixels_are_balanced_at_a_fixed_size() -> None:
    torch.manual_seed(0)
    kind = torch.tensor([0] * 50 + [1] * 7 + [-1] * 20 + [2] * 30)
    index, kept = balanced_pixels(kind, 3, per_kind=10, most=1000)
    assert index.shape == kept.shape == (30,)
    chosen = kind[index[kept]]
    assert torch.bincount(chosen, minlength=3).tolist() == [10, 7, 10]
    assert len(index[kept].unique()) == 27
    again, _ = balanced_pixels(kind, 3, per_kind=10, most=1000)
    assert not torch.equal(index, again)
    index, kept = balanced_pixels(kind, 3, per_kind=100, most=12)
    assert index.shape == (12,)
    assert bool(kept.all())


def test_samples_are_drawn_for_classes_with_a_density_and_are_their_own() -> None:
    method = copied()
    bank, f1 = method.bank, method.f1
    f1.seen_K.copy_(torch.tensor([9.0, 9.0, 9.0, 0.0]))
    bank.draw(f1, 7)
    first = bank.aug_KSD.clone()
    assert torch.allclose(first[:3].norm(dim=2), torch.ones(3, bank.config.n_aug), atol=1e-5)
    assert bank.aug_weight_KS[:3].sum(1).tolist() == pytest.approx([bank.config.n_aug] * 3, rel=1e-4)
    assert not bank.aug_weight_KS[3].any()
    torch.manual_seed(99)
    bank.draw(f1, 7)
    assert torch.equal(bank.aug_KSD, first), "no generator of the run is drawn from"
    assert 0 <= float(bank.accuracy) <= 1


def test_a_flow_s_optimiser_skips_gradients_that_are_not_finite() -> None:
    torch.manual_seed(0)
    ours, theirs = (torch.nn.Linear(3, 2) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    words = {"lr": 1e-3, "betas": (0.5, 0.9)}
    optimisers = FiniteAdam(ours.parameters(), **words), torch.optim.Adam(theirs.parameters(), **words, fused=True)

    def go(bad: float | None = None) -> None:
        x = torch.randn(4, 3)
        for net, optimiser in zip((ours, theirs), optimisers, strict=True):
            optimiser.zero_grad()
            net(x).square().sum().backward()
            if bad is not None:
                net.weight.grad[0, 0] = bad
                if net is theirs:
                    continue
            optimiser.step()

    for bad in (float("nan"), None, float("inf"), None):
        before = [p.clone() for p in ours.parameters()]
        go(bad)
        still = all(torch.equal(a, b) for a, b in zip(before, ours.parameters(), strict=True))
        assert still == (bad is not None)
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
    for one, other in zip(*(o.state.values() for o in optimisers), strict=True):
        assert all(torch.equal(one[name], other[name]) for name in ("step", "exp_avg", "exp_avg_sq"))
    plain = torch.optim.Adam(theirs.parameters(), **words)
    plain.load_state_dict({**optimisers[1].state_dict(), "param_groups": plain.state_dict()["param_groups"]})
    optimisers[0].load_state_dict(plain.state_dict())
    before = [p.clone() for p in ours.parameters()]
    go(float("nan"))
    assert all(torch.equal(a, b) for a, b in zip(before, ours.parameters(), strict=True)), "an older checkpoint's steps"


def test_several_components_are_a_mixture() -> None:
    """Against the sum over components in plain words."""
    torch.manual_seed(0)
    flow = ClassFlow(6, 3, hidden=8, components=2, learned_weights=True)
    flow.log_weight_KM.data.normal_()
    a = torch.randn(5, 6)
    z, logdet = flow.latent(a)
    weights = flow.log_weight_KM.softmax(0).view(3, 2)
    means = flow.mean_KD.view(3, 2, 6)
    for n in range(5):
        for k in range(3):
            densities = [
                weights[k, m] * torch.exp(-0.5 * (z[n] - means[k, m]).square().sum()) / (2 * math.pi) ** 3
                for m in (0, 1)
            ]
            expected = float((torch.stack(densities).sum().log() + logdet[n]).detach())
            assert float(flow.likelihood(z, logdet)[n, k]) == pytest.approx(expected, rel=1e-4)
    present = torch.tensor([[True, True, False]]).expand(5, 3)
    posterior = flow.posterior(z, present, 1.0)
    likelihood = flow.likelihood(z, logdet)[:, :2].softmax(1)
    assert torch.allclose(posterior[:, :2], likelihood, atol=1e-5)
    assert not posterior[:, 2].any()


def test_orthogonal_means_are() -> None:
    torch.manual_seed(0)
    means = ClassFlow(16, 4, hidden=8, means="orthogonal").mean_KD.detach()
    assert torch.allclose(means @ means.T, 16 * torch.eye(4), atol=1e-4)


@pytest.mark.parametrize(
    "knobs",
    [
        {"flow_dim": 32},
        {"components": 2, "learned_weights": True},
        {"w_disc": 0.5},
        {"density_cutoff": 0.9},
        {"f2_prior": "single"},
        {"feature_scale": "unit"},
        {"mean_init": "orthogonal"},
        {"optimiser": "adamw", "lr": 1e-4},
    ],
)
def test_options_train(knobs) -> None:
    method = trained(9, **knobs)
    assert all(bool(p.isfinite().all()) for p in method.parameters())
    out = step(method, USING)
    assert all(bool(torch.isfinite(v)) for v in out.losses.values())
    if "flow_dim" in knobs:
        assert method.bank.region_KSD.shape[2] == 32
        assert "project.weight" in reached(out.losses["nce"], method) or float(out.losses["nce"].detach()) == 0
        assert "project.weight" not in reached(out.losses["gui"] + out.losses["f1"] + out.losses["f2"], method)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"flow_start": 0.4}, "flow_start"),
        ({"side_dims": (8, 8)}, "side_dims"),
        ({"flow_dim": 1}, "flow_dim"),
        ({"final": "all"}, "final"),
        ({"n_blocks": 0}, "n_blocks"),
        ({"sample_t": float("nan")}, "sample_t"),
        ({"ema": 1.5}, "ema"),
    ],
)
def test_knobs_that_cannot_be_are_named(values, named) -> None:
    assert BrnfConfig().problems() == []
    assert [p.where for p in BrnfConfig(**values).problems()] == [named]
