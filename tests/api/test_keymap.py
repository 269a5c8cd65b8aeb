"""Published names to ours: rules in order, everything that does not fit named at once."""

import pytest
import torch

from harness.api.keymap import KeyMap
from harness.errors import BadInput

MAP = KeyMap(
    rules=((r"encoder\.blocks\.(\d+)\.(.*)", r"net.encoder.block\1.\2"), (r"classifier\.weight", "net.head.weight")),
    ignore=(r".*\.num_batches_tracked", "loss_centre"),
)
EXPECTED = {
    "net.head.weight": torch.zeros(3, 2),
    "net.encoder.block0.w": torch.zeros(4),
    "bias": torch.zeros(1),
}


def test_rules_strip_ignore_and_order():
    state = {
        "module.encoder.blocks.0.w": torch.arange(4.0),
        "module.classifier.weight": torch.ones(3, 2),
        "module.bias": torch.ones(1),
        "module.norm.num_batches_tracked": torch.tensor(3),
        "loss_centre": torch.ones(7),
    }
    found = MAP.convert(state, EXPECTED)
    assert list(found) == list(EXPECTED)
    assert torch.equal(found["net.encoder.block0.w"], torch.arange(4.0))
    assert MAP.name("norm.num_batches_tracked") is None
    assert MAP.name("encoder.blocks.11.attn.qkv.weight") == "net.encoder.block11.attn.qkv.weight"


def test_the_first_rule_counts_and_must_match_whole_names():
    rules = KeyMap(rules=(("a", "first"), ("a.*", "second")))
    assert rules.name("a") == "first"
    assert rules.name("ab") == "second"
    assert KeyMap(rules=(("a", "first"),)).name("ab") == "ab"


def test_everything_that_does_not_fit_is_named_at_once():
    state = {
        "classifier.weight": torch.ones(5, 2),
        "bias": torch.ones(1),
        "module.bias": torch.ones(1),
        "extra.weight": torch.ones(1),
    }
    with pytest.raises(BadInput) as caught:
        MAP.convert(state, EXPECTED)
    text = str(caught.value)
    assert "1 tensors are missing: net.encoder.block0.w" in text
    assert "1 tensors are unknown: extra.weight" in text
    assert "module.bias and bias -> bias" in text
    assert "classifier.weight -> net.head.weight is (5, 2), not (3, 2)" in text
    assert len(caught.value.problems) == 4


def test_long_lists_are_cut():
    expected = {f"t{i}": torch.zeros(1) for i in range(30)}
    with pytest.raises(BadInput, match=r"30 tensors are missing: t0, .* and 18 more"):
        KeyMap(rules=()).convert({}, expected)
