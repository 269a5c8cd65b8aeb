"""Weights as people have them: wrapped, nested, cut, or no weights at all."""

from __future__ import annotations

import bz2
import gzip
import lzma
import shutil
import subprocess
import tarfile
import zipfile
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


def packed(path: Path, kind: str) -> Path:
    """A checkpoint as people send it."""
    torch.save(NET, path / "w.pth")
    data, out = (path / "w.pth").read_bytes(), path / f"w.{kind}"
    if kind == "tar":
        with tarfile.open(out, "w") as archive:
            archive.add(path / "w.pth", "w.pth")
    elif kind == "zip":
        with zipfile.ZipFile(out, "w") as archive:
            archive.writestr("run/w.pth", data)
            archive.writestr("run/readme.txt", "x")
    elif kind == "ts":
        torch.jit.script(torch.nn.Linear(2, 2)).save(str(out))
    else:
        out.write_bytes({"gz": gzip, "xz": lzma, "bz2": bz2}[kind].compress(data))
    return out


@pytest.mark.parametrize(
    ("kind", "found", "fix"),
    [
        ("gz", "is compressed (gzip)", "gzip -dc {path} > weights.pth and give weights.pth"),
        ("xz", "is compressed (xz)", "xz -dc {path} > weights.pth and give weights.pth"),
        ("bz2", "is compressed (bzip2)", "bzip2 -dc {path} > weights.pth and give weights.pth"),
        ("tar", "is a tar archive", "tar -xf {path}, and give the file of weights in it"),
        ("zip", "is a zip archive of run/w.pth, run/readme.txt", "unzip {path}, and give the file of weights in it"),
        ("ts", "is a TorchScript program, which is not run", "torch.jit.load('w.ts').state_dict(), 'weights.pth')"),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_packed_weights_are_told_with_the_command_that_unpacks_them(tmp_path, kind, found, fix) -> None:
    path = packed(tmp_path, kind)
    text = said(path)
    assert found in text
    assert fix.format(path=path) in text
    program = fix.split(" ")[0]
    if " -dc " in fix and shutil.which(program):
        subprocess.run(
            fix.format(path=path).removesuffix(" and give weights.pth"), shell=True, check=True, cwd=tmp_path
        )
        assert read_weights(tmp_path / "weights.pth").state.keys() == NET.keys()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_nan_is_found_wherever_it_lies(tmp_path, dtype) -> None:
    """One NaN of one tensor, also in half precision; infinity may be meant (masks of attention)."""
    odd = NET["blocks.0.attn.qkv.weight"].to(dtype).clone()
    odd[3, 2] = float("nan")
    torch.save({"state_dict": {**NET, "blocks.0.attn.qkv.weight": odd}}, tmp_path / "nan.pth")
    text = said(tmp_path / "nan.pth")
    assert "nan.pth holds NaN in 1 of 3 tensors, first blocks.0.attn.qkv.weight" in text
    torch.save({**NET, "attn_mask": torch.full((2,), -torch.inf)}, tmp_path / "inf.pth")
    assert len(read_weights(tmp_path / "inf.pth").state) == 4
    save_file({"x": torch.tensor([1.0, torch.nan])}, tmp_path / "nan.safetensors")
    assert "holds NaN in 1 of 1 tensors, first x" in said(tmp_path / "nan.safetensors")


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ({}, "holds no dict of tensors"),
        ({"state_dict": {}}, "holds no dict of tensors"),
        ([1, 2], "holds no dict of tensors"),
        (torch.zeros(3), "holds no dict of tensors"),
        ({0: torch.zeros(3)}, "holds no dict of tensors"),
        ({**NET, "epoch": 3}, "holds 3 tensors beside epoch"),
        ({"a": {"b": NET, "c": NET}}, "holds a.b, a.c"),
    ],
)
def test_what_holds_no_one_network_is_said(tmp_path, content, found) -> None:
    torch.save(content, tmp_path / "x.pth")
    assert found in said(tmp_path / "x.pth")


def test_the_fix_for_tensors_beside_others_works(tmp_path, monkeypatch) -> None:
    torch.save({**NET, "epoch": 3}, tmp_path / "x.pth")
    monkeypatch.chdir(tmp_path)
    fix = said(tmp_path / "x.pth").split("save the tensors alone: ")[1]
    exec(fix, {"torch": torch})
    assert read_weights(tmp_path / "weights.pth").state.keys() == NET.keys()


def test_networks_in_dicts_of_dicts_are_found(tmp_path) -> None:
    other = {k: v + 5 for k, v in NET.items()}
    torch.save(
        {"model": {"state_dict": NET}, "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}}}, tmp_path / "x.pth"
    )
    assert read_weights(tmp_path / "x.pth").inside == "model.state_dict"
    torch.save({"model": {"teacher": NET, "student": other}}, tmp_path / "x.pth")
    found = read_weights(tmp_path / "x.pth")
    assert found.inside == "model.teacher"
    assert torch.equal(found.state["cls_token"], NET["cls_token"])
    loop: dict = {}
    loop["model"] = loop
    torch.save(loop, tmp_path / "x.pth")
    assert "holds no dict of tensors" in said(tmp_path / "x.pth")


def test_a_foreign_state_keeps_its_names() -> None:
    state = {"layer1.weight": torch.zeros(1)}
    assert without_prefix(state, NET.keys()) == state
