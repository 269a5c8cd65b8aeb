"""Compiled blocks: numbers of those that are not, one graph whatever the depth, and who is refused."""

from __future__ import annotations

import functools
import os
import re
import shutil
import sys

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from harness.api.registry import registry
from harness.cli.parsing import parse
from harness.cli.run_words import Words
from harness.errors import BadInput
from harness.plan.build import build_method
from harness.plan.plan import make_plan
from methods.parts.nets import timm_blocks
from methods.parts.nets.backbones import build_encoder, encode
from methods.parts.nets.depth import draw_depth, joined_depth

NAME = "vit_tiny_patch16_224"


def encoder(drop=0.1, *, compiled=True):
    torch.manual_seed(0)
    made = build_encoder(NAME, "random", crop=32, drop=drop)
    if compiled:
        made.compile_blocks()
    return made.train()


@pytest.fixture
def graphs(monkeypatch):
    """Counts graphs, and runs them without PyTorch's code generator, which would take a minute."""
    torch._dynamo.reset()
    counter = CompileCounter()
    monkeypatch.setattr(timm_blocks, "COMPILER", sys.executable)  # none is needed for this
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=counter))
    yield counter
    torch._dynamo.reset()


def outputs_and_gradients(made, images, depth):
    found = encode(made, images, depth_LB=depth)
    found.last_BND.square().mean().backward()
    return [found.last_BND.detach(), *(p.grad for p in made.parameters() if p.grad is not None)]


def test_numbers_and_gradients_are_those_of_blocks_as_they_are(graphs):
    images = torch.randn(2, 3, 32, 32)
    plain, ours = encoder(compiled=False), encoder()
    depth = joined_depth(plain, [draw_depth(plain, 2, images)])
    assert depth is not None
    assert (depth == 0).any(), "nothing is dropped"
    for expected, found in zip(*(outputs_and_gradients(m, images, depth) for m in (plain, ours)), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert graphs.frame_count == 1, "a graph for all twelve blocks"


def test_images_of_other_sizes_take_one_further_graph_for_all_sizes(graphs):
    ours = encoder().eval()
    plain = encoder(compiled=False).eval()
    with torch.no_grad():
        for size in (32, 48, 64, 80):
            images = torch.randn(1, 3, size, size)
            torch.testing.assert_close(encode(ours, images).last_BND, encode(plain, images).last_BND)
    assert graphs.frame_count == 2


def test_blocks_that_draw_for_themselves_are_not_compiled(graphs):
    images = torch.randn(2, 3, 32, 32)
    found = []
    for made in (encoder(compiled=False), encoder()):
        torch.manual_seed(1)
        found.append(encode(made, images).last_BND)
    assert torch.equal(*found)
    assert graphs.frame_count == 0


def test_parameters_keep_their_names(graphs):
    assert encoder().state_dict().keys() == encoder(compiled=False).state_dict().keys()


def test_networks_of_other_blocks_are_refused():
    with pytest.raises(BadInput, match="those of ShapesEncoder are others"):
        build_encoder("shapes_vit", "random", crop=32, drop=0.0).compile_blocks()


@pytest.mark.parametrize("named", [None, "no-such-compiler"])
def test_a_machine_without_a_compiler_is_told(monkeypatch, tmp_path, named):
    if named is None:
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.delenv("CXX", raising=False)
    else:
        monkeypatch.setenv("CXX", named)
    with pytest.raises(BadInput, match=rf"this machine has no {re.escape(named or 'g++')}[\s\S]*install g\+\+"):
        timm_blocks.compiled()


def plan(*words):
    small = ["data.n_train=16", "data.n_val=8", "data.n_test=8", "backbone.weights=random", "method=cam", *words]
    return make_plan(parse(small, Words, "train", registry().names()), single=True)


def test_the_knob_is_part_of_a_key_only_where_it_is_turned_and_reaches_the_network(graphs):
    vit = (f"backbone={NAME}", "crop=32")

    def payload(*words):
        made = plan(*vit, *words)
        return made.resolve(made.studies[0].study, {}, 0), made

    key = payload()[0].key
    assert payload("cam.compile_blocks=false")[0].key == key
    turned, made = payload("cam.compile_blocks=true")
    assert turned.key != key
    method = build_method(turned.run, made.dataset, "random")
    with torch.no_grad():
        method.eval().cam_logits(torch.rand(1, 3, 32, 32))
    assert graphs.frame_count == 1


def test_the_knob_is_refused_for_the_embedded_network():
    with pytest.raises(BadInput, match=r"compile_blocks[\s\S]*those of ShapesEncoder are others"):
        plan("cam.compile_blocks=true")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which(os.environ.get("CXX", timm_blocks.COMPILER)) is None, reason="no C++ compiler")
def test_programs_of_pytorch_give_the_same_numbers():
    torch._dynamo.reset()
    images = torch.randn(2, 3, 32, 32)
    plain, ours = encoder(compiled=False), encoder()
    depth = joined_depth(plain, [draw_depth(plain, 2, images)])
    for expected, found in zip(*(outputs_and_gradients(m, images, depth) for m in (plain, ours)), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
