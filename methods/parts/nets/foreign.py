"""What tells a file of weights of one network from those of another, said before torch says less of it."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import timm
from torch import Tensor

from harness.errors import BadInput, Problem

SIZES = {192: "tiny", 384: "small", 768: "base", 1024: "large", 1280: "huge"}
"""timm's words for the widths of ViTs."""
TOKENS = ("reg_token", "dist_token")
"""Tokens that run along with the patches: without them the others were trained for another network."""
BUFFERS = ("mask", "index")
"""How tensors end that are computed, not learned."""
PATCH, POSITION = "patch_embed.proj.weight", "pos_embed"


def first_line(error: Exception) -> str:
    """An error in one line."""
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0][:200] if text else ''}"


def foreign(name: str, path: str, error: Exception | str, fix: str = "") -> BadInput:
    """The answer to a file of weights of another network."""
    found = f"{path} does not fit {name}: {error if isinstance(error, str) else first_line(error)}"
    return BadInput(Problem("backbone.weights", found, fix or "give the state dict of this very network"))


def check_state(
    state: Mapping[str, Tensor], expected: Mapping[str, Tensor], name: str, path: str, whole: Collection[str] = ()
) -> None:
    """Holds the tensors of a file against those of the network `name`; `whole` are names of parts of it that are not
    built.

    Raises BadInput for missing tensors, other shapes, and parts of a larger network of the same kind, which loading
    would leave out without a word: more blocks, register tokens, layer scales. Heads may come along.
    """
    missing = [key for key in expected if key not in state]
    if missing:
        found = f"{len(missing)} of {len(expected)} tensors are missing, first {missing[0]}"
        raise foreign(name, path, found, _fix(state, expected))
    for key, tensor in expected.items():
        if state[key].shape != tensor.shape:
            found = f"{key} is {_shape(state[key])} in the file and {_shape(tensor)} in the network"
            raise foreign(name, path, found, _fix(state, expected))
    parts = {key.partition(".")[0] for key in expected if "." in key}
    beyond = [
        key
        for key, tensor in state.items()
        if key not in expected and key not in whole and tensor.is_floating_point() and not key.endswith(BUFFERS)
        if key in TOKENS or key.partition(".")[0] in parts
    ]
    if beyond:
        found = f"the file has {len(beyond)} tensors of a larger network, first {beyond[0]}"
        raise foreign(name, path, found, _fix(state, expected))


def check_patches(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], name: str, path: str) -> None:
    """Raises BadInput where a ViT's file has patches of another size (pixels), which timm would resize."""
    kernel, own = state.get(PATCH), expected[PATCH]
    if kernel is not None and kernel.ndim == 4 and kernel.shape[-2:] != own.shape[-2:]:
        found = f"its patches are {_shape(kernel[0, 0])} pixels and those of the network {_shape(own[0, 0])}"
        raise foreign(name, path, found, _fix(state, expected))


def of_positions(
    state: Mapping[str, Tensor], expected: Mapping[str, Tensor], prefix: int, error: Exception, name: str, path: str
) -> BadInput:
    """The answer where a ViT's table of positions, for `prefix` tokens and a grid, could not be brought to another
    grid."""
    found: Exception | str = error
    for token in ("cls_token", *TOKENS):
        if (token in state) != (token in expected):
            found = f"{token} is in the {'file' if token in state else 'network'} alone"
            break
    else:
        table = state.get(POSITION)
        cells = table.shape[1] - prefix if table is not None and table.ndim == 3 else -1
        if table is not None and (cells < 0 or math.isqrt(cells) ** 2 != cells):
            tokens = f"{prefix} token{'s' * (prefix != 1)}"
            found = f"its {POSITION} is {_shape(table)}: behind {tokens} there is no square grid"
    return foreign(name, path, found, _fix(state, expected))


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "one number"


def _fix(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str:
    """What to give in its place: the network that a ViT's file of another width or patch seems to be of, where timm has
    it."""
    kernel, own = state.get(PATCH), expected.get(PATCH)
    if kernel is None or kernel.ndim != 4 or own is None:
        return ""
    if (kernel.shape[0], kernel.shape[-1]) == (own.shape[0], own.shape[-1]):
        return ""
    width, _, side, _ = kernel.shape
    token = next((tensor for key, tensor in state.items() if key == TOKENS[0]), None)
    registers = f"_reg{token.shape[1]}" if token is not None and token.ndim == 3 else ""
    start = f"vit_{SIZES.get(width, '')}_patch{side}{registers}_"
    known = [model for model in timm.list_models("vit_*") if model.startswith(start)]
    plain = [model for model in known if model == f"{start}224"] or known
    if not plain:
        return ""
    return f"its width is {width} and its patches {side}x{side}: for instance backbone={plain[0]}, or other weights"
