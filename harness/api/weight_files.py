"""Files of weights as people have them: read without running anything in them, one network of several, any prefix."""

from __future__ import annotations

import pickle
import struct
import zipfile
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from harness.errors import BadInput, Problem

NESTED = (
    "state_dict_ema", "model_ema", "state_dict", "model", "model_state_dict", "net", "network", "teacher", "student",
)  # fmt: skip
"""Where a file that holds more than a state dict has it: averaged weights before those that they average."""
_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"
_TEXT = ((b"<", "a web page"), (b"version https://git-lfs", "a Git LFS pointer, not the file"), (b"{", "JSON"))
_DAMAGED = (
    OSError, RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError, AssertionError, struct.error,
    zipfile.BadZipFile,
)  # fmt: skip
"""What torch's reader raises for a file that ends early or holds other bytes than it should."""
_SHOWN = 40


@dataclass(frozen=True)
class WeightFile:
    """The tensors of one network by name, and where in the file they were (`teacher`; empty: they are the file)."""

    state: Mapping[str, Tensor]
    inside: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """What a safetensors file says of itself."""


def read_weights(path: Path, where: str = "weights") -> WeightFile:
    """The state dict of a `.pth` or safetensors file, told by its bytes, whatever holds it. Nothing in it is run.

    Raises BadInput, under the word `where`, for a file that is missing, damaged or none of weights, that holds other
    objects than tensors, or several networks of names that are not known.
    """
    if not path.is_file():
        raise BadInput(Problem(where, f"{path} is no file", "give a .pth or .safetensors file"))
    try:
        with open(path, "rb") as f:
            start = f.read(64)
        safe = _is_safetensors(start, path.stat().st_size)
        if safe or (path.suffix == ".safetensors" and not start.startswith((_ZIP, _PICKLE))):
            return _of_safetensors(path)
        if not start.startswith((_ZIP, _PICKLE)):
            raise BadInput(Problem(where, f"{path} is no weights file: {_what(start)}", "download it again"))
        with open(path, "rb") as f:  # by its name torch may take it for something else
            content = torch.load(f, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as e:
        found = f"{path.name} holds more than tensors, which is not run: {_blocked(e)}"
        fix = (
            f"where you trust it, save its state dict alone: torch.save(torch.load({path.name!r}, weights_only=False)"
            "['state_dict'], 'weights.pth'), or ['model'], or .state_dict() of a whole network"
        )
        raise BadInput(Problem(where, found, fix)) from e
    except SafetensorError as e:
        found = f"{path} is no safetensors file: {_what(start)}"
        raise BadInput(Problem(where, found, "download it again")) from e
    except _DAMAGED as e:
        found = f"{path.name} cannot be read: {str(e).splitlines()[0] if str(e) else type(e).__name__:.200}"
        raise BadInput(Problem(where, found, "it is cut or damaged: download it again")) from e
    if _is_state(content):
        return WeightFile(dict(content))
    inside = {k: v for k, v in content.items() if _is_state(v)} if isinstance(content, Mapping) else {}
    chosen = next((n for n in NESTED if n in inside), next(iter(inside), None) if len(inside) == 1 else None)
    if chosen is None:
        found = f"{path.name} holds {', '.join(map(str, inside)) or 'no dict of tensors'}"
        raise BadInput(Problem(where, found, f"save one network's state dict, or name it {NESTED[2]}"))
    return WeightFile(dict(inside[chosen]), str(chosen))


def prefix_of(names: Collection[str], expected: Collection[str]) -> str:
    """What stands before a network's names (`module.backbone.`): what fits most of `expected`, mostly nothing."""
    wanted = set(expected)
    votes: Counter[str] = Counter()
    for name in names:
        votes.update(name[: -len(tail)] for tail in _tails(name) if tail in wanted)
    best = votes.most_common(1)
    return "" if not best or best[0][1] <= votes[""] else best[0][0]


def without_prefix(state: Mapping[str, Tensor], expected: Collection[str]) -> dict[str, Tensor]:
    """The tensors under the names that `expected` has, where a wrapper put one prefix before all of them.

    What lies beside the prefix (heads, other networks) is left out; without a prefix all tensors stay.
    """
    prefix = prefix_of(state, expected)
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def _tails(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[i:]) for i in range(len(parts))]


def _is_state(value: Any) -> bool:
    return isinstance(value, Mapping) and bool(value) and all(isinstance(v, Tensor) for v in value.values())


def _of_safetensors(path: Path) -> WeightFile:
    with safe_open(path, framework="pt") as opened:
        names = opened.keys()
        return WeightFile({name: opened.get_tensor(name) for name in names}, metadata=opened.metadata() or {})


def _is_safetensors(start: bytes, size: int) -> bool:
    """Whether a file begins as one of safetensors: eight bytes with the length of its header, then the header."""
    return start[8:9] == b"{" and 0 < int.from_bytes(start[:8], "little") < size


def _what(start: bytes) -> str:
    if not start:
        return "it is empty"
    kind = next((f" ({what})" for magic, what in _TEXT if start.lstrip().lower().startswith(magic)), "")
    shown = start[:_SHOWN].split(b"\n")[0].decode("latin-1")
    return f"it starts with {''.join(c if c.isprintable() else '?' for c in shown)!r}{kind}"


def _blocked(error: Exception) -> str:
    """The object that was not read, of torch's long advice."""
    text = str(error)
    _, found, rest = text.partition("GLOBAL ")
    return rest.split(" ")[0] if found else text.splitlines()[0][:120]
