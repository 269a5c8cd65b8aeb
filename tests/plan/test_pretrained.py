"""Where weights come from, answered at planning: users' files that fit or not, and a hub that does not answer."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from harness.api.registry import registry
from harness.cli.parsing import parse
from harness.cli.run_words import Words
from harness.errors import BadInput
from harness.plan import pretrained as module
from harness.plan.build import build_method
from harness.plan.plan import make_plan
from harness.store.pretraining import named, pretraining_of

TINY = "vit_tiny_patch16_224"
SMALL = [
    "data.n_train=16", "data.n_val=8", "data.n_test=8", "tier=smoke", "iterations=2", "protocol=fixed",
    f"backbone={TINY}", "ray=off",
]  # fmt: skip


def plan(*words: str):
    return make_plan(parse([*SMALL, *words], Words, "sweep", registry().names()))


@pytest.fixture(scope="module")
def vit() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return timm.create_model(TINY).state_dict()


def test_wrapped_and_distilled_weights_of_this_very_network_are_read(tmp_path: Path, vit) -> None:
    torch.manual_seed(1)
    distilled = timm.create_model("deit_tiny_distilled_patch16_224").state_dict()
    files = {
        "dino": {
            "student": {f"module.backbone.{k}": v + 1 for k, v in vit.items()},
            "teacher": {f"backbone.{k}": v for k, v in vit.items()},
        },
        "mmseg": {"state_dict": {f"backbone.{k}": v for k, v in vit.items()}},
        "dist": distilled,
        "plain": vit,
    }
    nets = {}
    for name, content in files.items():
        torch.save(content, tmp_path / f"{name}.pth")
        made = plan("methods=cam", "crop=64", f"backbone.weights={tmp_path}/{name}.pth")
        (study,) = made.studies
        assert study.pretrained.label == {"dino": "dino.pth (teacher)", "mmseg": "mmseg.pth (state_dict)"}.get(
            name, f"{name}.pth"
        )
        nets[name] = build_method(study.run, study.part.dataset, study.pretrained.path).net.encoder.state_dict()
    for name in ("dino", "mmseg"):
        assert all(torch.equal(v, nets["plain"][k]) for k, v in nets[name].items())
    assert torch.equal(nets["dist"]["blocks.0.attn.qkv.weight"], distilled["blocks.0.attn.qkv.weight"])
    grid = timm.layers.resample_abs_pos_embed(distilled["pos_embed"][:, 2:], [4, 4], [14, 14], num_prefix_tokens=0)
    assert nets["dist"]["pos_embed"].shape == grid.shape


def test_what_a_file_was_trained_on_is_what_it_says_else_what_its_name_tells(tmp_path: Path, vit) -> None:
    told = json.dumps({"data": "ImageNet-1k", "supervision": "self-supervised", "extra": "none"})
    said = {"says": told, "short": "glyphs", "vit.in21k": None, "mine": None}
    found = {}
    for name, metadata in said.items():
        path = tmp_path / f"{name}.safetensors"
        save_file(vit, path, {"pretraining": metadata} if metadata else None)
        made = plan("methods=cam", "crop=64", f"backbone.weights={path}")
        (study,) = made.studies
        row = made.resolve(study.study, {}, 0).row("done")
        found[name] = pretraining_of(row["pretraining"])
        assert found[name].weights == path.name
    assert found["says"].kind == ("ImageNet-1k", "self-supervised", "none")
    assert found["short"].kind == ("glyphs", "labels", "none")
    assert found["vit.in21k"].kind == ("ImageNet-21k (by its name)", "labels", "none")
    assert found["mine"].kind == ("", "", "")
    # What a file is tell its bytes: the one that can say something under a name of the other kind, and the reverse.
    save_file(vit, tmp_path / "says.pth", {"pretraining": told})
    torch.save(vit, tmp_path / "none.safetensors")
    kinds = [module.find(TINY, str(tmp_path / name)).pretraining.kind for name in ("says.pth", "none.safetensors")]
    assert kinds == [("ImageNet-1k", "self-supervised", "none"), ("", "", "")]
    save_file(vit, tmp_path / "odd.safetensors", {"pretraining": '{"data": 3}'})
    with pytest.raises(BadInput, match=r"odd.safetensors: pretraining .* are texts"):
        plan("methods=cam", "crop=64", f"backbone.weights={tmp_path}/odd.safetensors")


def test_what_weights_were_trained_on_is_no_part_of_a_key(tmp_path: Path, vit) -> None:
    save_file(vit, tmp_path / "mine.safetensors")
    (one,) = (made := plan("methods=cam", "crop=64", f"backbone.weights={tmp_path}/mine.safetensors")).studies
    other = dataclasses.replace(one, pretrained=dataclasses.replace(one.pretrained, pretraining=named("glyphs")))
    again = dataclasses.replace(made, studies=(other,), by_id={})
    before, after = (m.resolve(one.study, {}, 0) for m in (made, again))
    assert before.key == after.key
    assert before.row("done")["pretraining"] != after.row("done")["pretraining"]


def test_a_file_of_another_network_is_refused_before_anything_starts(tmp_path: Path) -> None:
    other = timm.create_model("vit_small_patch16_224").state_dict()
    torch.save({f"backbone.{k}": v for k, v in other.items()}, tmp_path / "small.pth")
    with pytest.raises(BadInput, match="does not fit vit_tiny_patch16_224"):
        plan("methods=cam", "crop=64", f"backbone.weights={tmp_path}/small.pth")


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    asked: list[str] = []

    def down(request, timeout):
        asked.append(request.full_url)
        raise OSError("Name or service not known")

    monkeypatch.setattr(module, "urlopen", down)
    module.find.cache_clear()
    module._unreachable.cache_clear()
    yield asked
    module.find.cache_clear()
    module._unreachable.cache_clear()


def test_an_unreachable_hub_is_asked_once_and_said_once_with_the_place_for_the_file(no_hub, monkeypatch) -> None:
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *a: None)
    began = time.perf_counter()
    with pytest.raises(BadInput) as error:
        plan("methods=cam,fsr,toco", "crop=64")
    assert time.perf_counter() - began < 20
    assert len(no_hub) == 1
    (problem,) = error.value.problems
    assert "Name or service not known" in problem.found
    assert "/resolve/main/model.safetensors" in problem.fix
    assert "backbone.weights=<file>" in problem.fix


def test_a_network_that_cannot_work_is_refused_before_the_hub_is_asked(no_hub) -> None:
    with pytest.raises(BadInput, match="60 is no multiple of the 16-pixel patch"):
        plan("methods=fsr", "crop=60")
    assert not no_hub
