"""Names of the published checkpoints (the official code's `network`, saved from a parallel wrapper)."""

from __future__ import annotations

from harness.api.keymap import KeyMap
from harness.api.method import Method

HEAD = r"\.(mlp\.\d+\.(?:weight|bias))"


def key_map(method: Method) -> KeyMap:
    """From the published names to ours.

    Names of modules are those of the official `model_seg_neg.py`, `vit.py` and `conv_head.py`; that the wrapper left
    `module.` in front is inferred from its training script. The frozen gains of the prototypes are 1 and left out, as
    is the 1000-way head that nothing reads (toco.md 7.6).
    """
    return KeyMap(
        rules=(
            (r"encoder\.norm\.(.+)", r"net.encoder.final_norm.\1"),
            (r"encoder\.(.+)", r"net.encoder.\1"),
            (r"classifier\.weight", "net.classifier_top.weight"),
            (r"aux_classifier\.weight", "net.classifier_aux.weight"),
            (r"decoder\.conv6\.weight", "net.decoder.first.weight"),
            (r"decoder\.conv7\.weight", "net.decoder.second.weight"),
            (r"decoder\.conv8\.weight", "net.decoder.classify.weight"),
            (rf"proj_head{HEAD}", r"net.projector.\1"),
            (r"proj_head\.last_layer\.weight_v", "net.projector.prototypes.weight"),
            (rf"proj_head_t{HEAD}", r"projector_teacher.\1"),
            (r"proj_head_t\.last_layer\.weight_v", "projector_teacher.prototypes.weight"),
        ),
        ignore=(r"encoder\.head\.(?:weight|bias)", r"proj_head(?:_t)?\.last_layer\.weight_g"),
    )
