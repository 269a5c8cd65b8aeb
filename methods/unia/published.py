"""Names in the published weights of UniA, repository zwyang6/UniA (unia.md 2.2, 2.3)."""

from __future__ import annotations

from harness.api.keymap import KeyMap
from harness.api.method import Method

_BRANCHES = {"mean": "mean", "std": "log_var"}
_MODULE = r"uncertainty_infer\."
_PARAMETERS = _MODULE + r"generate_parameters\."


def key_map(method: Method) -> KeyMap:
    """From the published names to those of `method.state_dict()`.

    Left out: the pretraining's classifier, gains that are 1 for ever, and modules that the published code allocates
    and never calls, unless this method gives the mean a head of its own.
    """
    own_mean_head = any(".leave_mean." in name for name in method.state_dict())
    heads = {_MODULE + "input_proj": "enter", _PARAMETERS + "std_proj": "leave"}
    if own_mean_head:
        heads[_PARAMETERS + "mean_proj"] = "leave_mean"
    rules = [
        (r"encoder\.norm\.(.*)", r"net.encoder.final_norm.\1"),
        (r"encoder\.(.*)", r"net.encoder.\1"),
        (r"classifier\.weight", "net.classifier_top.weight"),
        (r"aux_classifier\.weight", "net.classifier_aux.weight"),
        (r"attn_proj\.(.*)", r"net.affinity.conv.\1"),
        (r"decoder\.conv6\.weight", "net.decoder.first.weight"),
        (r"decoder\.conv7\.weight", "net.decoder.second.weight"),
        (r"decoder\.conv8\.weight", "net.decoder.classify.weight"),
        (_MODULE + r"cross_attn\.(.*)", r"net.uncertainty.query_back.\1"),
    ]
    for published, ours in heads.items():
        rules.append((published + r"\.mlp\.(.*)", rf"net.uncertainty.{ours}.mlp.\1"))
        rules.append((published + r"\.last_layer\.weight_v", f"net.uncertainty.{ours}.prototypes.weight"))
    for published, ours in _BRANCHES.items():
        rules.append((_PARAMETERS + published + r"_conv\.(.*)", rf"net.uncertainty.{ours}_scale.\1"))
        rules.append((_PARAMETERS + published + r"_cross_attn\.(.*)", rf"net.uncertainty.{ours}_attention.\1"))
    ignore = [r"encoder\.head\..*", r".*\.last_layer\.weight_g", _MODULE + r"conv\..*"]
    if not own_mean_head:
        ignore.append(_PARAMETERS + r"mean_proj\..*")
    return KeyMap(tuple(rules), tuple(ignore))
