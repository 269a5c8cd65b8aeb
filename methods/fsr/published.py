"""The released checkpoint's names in ours, as the published code has them.

Read in repository Jessie459/feature-self-reinforcement at commit 3a7cbf7: `models/network.py` (classifiers),
`models/vit.py` (encoder, mask token, class blocks), `models/decoder.py`, `models/projector.py`; `train_voc.py` saves
the student's state dict alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.api.keymap import KeyMap
from harness.api.method import Method

AGGREGATION = r"encoder\.cls_blocks\.(\d+)\."
RULES = (
    (r"encoder\.mask_token", "net.mask_token"),
    (r"encoder\.norm\.(weight|bias)", r"net.encoder.final_norm.\1"),
    (r"encoder\.(pos_embed|cls_token|patch_embed\..+|blocks\..+)", r"net.encoder.\1"),
    (AGGREGATION + r"norm([12])\.(.+)", r"net.aggregation.blocks.\1.norm\2.\3"),
    (AGGREGATION + r"attn\.q\.(.+)", r"net.aggregation.blocks.\1.query.\2"),
    (AGGREGATION + r"attn\.kv\.(.+)", r"net.aggregation.blocks.\1.key_value.\2"),
    (AGGREGATION + r"attn\.proj\.(.+)", r"net.aggregation.blocks.\1.out.\2"),
    (AGGREGATION + r"mlp\.fc1\.(.+)", r"net.aggregation.blocks.\1.mlp.0.\2"),
    (AGGREGATION + r"mlp\.fc2\.(.+)", r"net.aggregation.blocks.\1.mlp.2.\2"),
    (r"top_classifier\.weight", "net.classifier_top.weight"),
    (r"aux_classifier\.weight", "net.classifier_aux.weight"),
    (r"decoder\.conv6\.weight", "net.decoder.first.weight"),
    (r"decoder\.conv7\.weight", "net.decoder.second.weight"),
    (r"decoder\.conv8\.weight", "net.decoder.classify.weight"),
    (r"projector\.mlp\.(\d+)\.(.+)", r"net.projector.mlp.\1.\2"),
    (r"projector\.last_layer\.weight_v", "net.projector.prototypes.weight"),
)
IGNORED = (r"projector\.last_layer\.weight_g",)
"""The gains that are 1 for ever (A10)."""
MASK = "encoder.mask_token"


@dataclass(frozen=True)
class FsrKeyMap(KeyMap):
    """`KeyMap` for a file of one network, which becomes student and teacher; centres start at 0 as in training."""

    def convert(self, state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """As `KeyMap.convert`; the class token's position is cut off, keys and values are joined, (1,D) is (1,1,D)."""
        plain = {self._stripped(name): tensor for name, tensor in state.items()}
        slots = expected["net.encoder.pos_embed"].shape[1] if "net.encoder.pos_embed" in expected else 0
        position = plain.get("encoder.pos_embed")
        if position is not None and position.ndim == 3 and position.shape[1] == slots + 1:
            plain["encoder.pos_embed"] = position[:, 1:]
        if MASK in plain and plain[MASK].ndim == 2:
            plain[MASK] = plain[MASK][:, None]
        for name in [n for n in plain if ".attn.k." in n]:
            value = name.replace(".attn.k.", ".attn.v.")
            if value in plain:
                plain[name.replace(".attn.k.", ".attn.kv.")] = torch.cat([plain.pop(name), plain.pop(value)])
        network = {name: tensor for name, tensor in expected.items() if name.startswith("net.")}
        aggregated = "net.aggregation.cls_token"
        wanted = {name: tensor for name, tensor in network.items() if name != aggregated}
        found = super().convert(plain, wanted)
        if aggregated in network:
            # Published: one class vector. Ours has it where it is aggregated; the encoder's own is not read.
            found[aggregated] = found["net.encoder.cls_token"].clone()
        return {
            name: found[name]
            if name in found
            else found["net." + name.removeprefix("teacher.")].clone()
            if name.startswith("teacher.")
            else torch.zeros_like(tensor)
            for name, tensor in expected.items()
        }

    def _stripped(self, name: str) -> str:
        for prefix in self.strip:
            name = name.removeprefix(prefix)
        return name


def published(method: Method) -> FsrKeyMap:
    """The key map of the released student or teacher file; `method` gives nothing to it."""
    return FsrKeyMap(RULES, IGNORED)
