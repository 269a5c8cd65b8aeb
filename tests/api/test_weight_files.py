"""Weights as people have them: wrapped, nested, cut, or no weights at all."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from harness.api.weight_files import prefix_of, read_weights, without_prefix
from harness.errors import BadInput

NET = {"cls_token": torch.ones(1, 1, 4), "blocks.0.attn.qkv.weight": torch.zeros(12, 4), "norm.bias": torch.zeros(4)}


def said(path: Path) -> str:
    with pytest.raises(BadInput) as error:
        read_weights(path, "backbone.weights")
    assert "backbone.weights" in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("content", "found", "fix"),
    [
        (b"<html><body>Sign in</body></html>", "it starts with '<html><body>", "download it again"),
        (b"\n  <!DOCTYPE html>", "(a web page)", "download it again"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "Git LFS pointer", "download it again"),
        (b'{"error": "not found"}', "(JSON)", "download it again"),
        (bytes([7, 3, 99, 200]), "it starts with '??cÈ'", "download it again"),
        (b"", "it is empty", "download it again"),
        (b"PK\x03\x04 cut off", "cannot be read", "cut or damaged"),
        (b"\x80\x02}q\x00(X", "cannot be read", "cut or damaged"),
    ],
)
def test_what_is_no_weights_file_is_told_so_and_nobody_is_advised_to_trust_it(
    tmp_path: Path, content: bytes, found: str, fix: str
) -> None:
    path = tmp_path / "page.pth"
    path.write_bytes(content)
    text = said(path)
    assert found in text
    assert fix in text
    assert "trust" not in text


@pytest.mark.parametrize("content", [b"<html>", b"", b'{"error":{"code":404}}'])
def test_the_same_under_the_name_of_safetensors(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "page.safetensors"
    path.write_bytes(content)
    text = said(path)
    assert "is no safetensors file" in text
    assert "download it again" in text


def test_objects_are_not_run_and_the_one_that_stopped_it_is_named(tmp_path: Path) -> None:
    path = tmp_path / "whole.pth"
    torch.save({"model": NET, "args": Path("x")}, path)
    text = said(path)
    assert "holds more than tensors" in text
    assert "pathlib" in text
    assert len(text) < 450
    # The fix as it is printed: torch refuses the file again without the word.
    assert "torch.load('whole.pth', weights_only=False)" in text
    torch.save(torch.load(path, weights_only=False)["model"], tmp_path / "weights.pth")
    assert read_weights(tmp_path / "weights.pth").state.keys() == NET.keys()


def test_what_a_file_is_tell_its_bytes_not_its_name(tmp_path: Path) -> None:
    save_file(NET, tmp_path / "renamed.pth")
    torch.save({"model": NET}, tmp_path / "renamed.safetensors")
    torch.save(NET, tmp_path / "old.safetensors", _use_new_zipfile_serialization=False)
    for name in ("renamed.pth", "renamed.safetensors", "old.safetensors"):
        found = read_weights(tmp_path / name)
        assert found.state.keys() == NET.keys(), name
        assert all(torch.equal(found.state[k], v) for k, v in NET.items()), name


def test_one_network_of_several_is_taken_and_named(tmp_path: Path) -> None:
    path = tmp_path / "dino.pth"
    other = {k: v + 5 for k, v in NET.items()}
    torch.save({"student": other, "teacher": NET, "epoch": 3}, path)
    found = read_weights(path)
    assert found.inside == "teacher"
    assert torch.equal(found.state["cls_token"], NET["cls_token"])
    torch.save({"model": other, "model_ema": NET}, path)
    assert read_weights(path).inside == "model_ema"
    torch.save(NET, path)
    assert read_weights(path).inside == ""
    torch.save({"a": NET, "b": other}, path)
    assert "holds a, b" in said(path)
    save_file(NET, tmp_path / "plain.safetensors")
    assert read_weights(tmp_path / "plain.safetensors").state.keys() == NET.keys()


@pytest.mark.parametrize("prefix", ["", "backbone.", "module.backbone.", "model.", "encoder.vit.", "teacher.module."])
def test_prefixes_are_taken_off_whatever_they_are(prefix: str) -> None:
    state = {prefix + k: v for k, v in NET.items()} | {"head.weight": torch.zeros(1), "head.norm.bias": torch.zeros(4)}
    assert prefix_of(state, NET.keys()) == prefix
    assert NET.keys() <= without_prefix(state, NET.keys()).keys()
    assert torch.equal(without_prefix(state, NET.keys())["cls_token"], NET["cls_token"])


def test_a_foreign_state_keeps_its_names() -> None:
    state = {"layer1.weight": torch.zeros(1)}
    assert without_prefix(state, NET.keys()) == state
