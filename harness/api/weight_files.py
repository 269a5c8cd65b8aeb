"""Files of weights as people have them: read without running anything in them, one network of several, any prefix."""

from __future__ import annotations

import pickle
import shlex
import struct
import zipfile
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
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
_PACKED = ((b"\x1f\x8b", "gzip"), (b"\xfd7zXZ\x00", "xz"), (b"BZh", "bzip2"), (b"\x28\xb5\x2f\xfd", "zstd"))
"""How compressed files begin, and the program that takes them apart."""
_TAR_AT, _TAR = 257, b"ustar"
_HEAD = 512
DEEPEST = 4
"""Dicts inside one another that are looked through for a state dict."""


@dataclass(frozen=True)
class WeightFile:
    """The tensors of one network by name, and where in the file they were (`teacher`; empty: they are the file)."""

    state: Mapping[str, Tensor]
    inside: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """What a safetensors file says of itself."""


def read_weights(path: Path, where: str = "weights") -> WeightFile:
    """The state dict of a `.pth` or safetensors file, told by its bytes, whatever holds it. Nothing in it is run.

    Raises BadInput, under the word `where`, for a file that is missing, damaged, packed or none of weights, that holds
    other objects than tensors, NaN, or several networks of names that are not known.
    """
    if not path.is_file():
        raise BadInput(Problem(where, f"{path} is no file", "give a .pth or .safetensors file"))
    try:
        with open(path, "rb") as f:
            start = f.read(_HEAD)
        safe = _is_safetensors(start, path.stat().st_size)
        if safe or (path.suffix == ".safetensors" and not start.startswith((_ZIP, _PICKLE))):
            return _sound(_of_safetensors(path), path, where)
        _refuse_packed(path, start, where)
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
    return _sound(_chosen(content, path, where), path, where)


def _chosen(content: Any, path: Path, where: str) -> WeightFile:
    """One network's tensors of what a file holds. Raises BadInput where it holds none, or several of unknown names."""
    states = dict(_states(content, (), DEEPEST))
    known = [inside for inside in states if set(inside) <= set(NESTED)]
    if known:
        inside = min(known, key=lambda names: [NESTED.index(name) for name in names])
        return WeightFile(dict(states[inside]), ".".join(inside))
    # What lies deeper beside them are moments of optimisers.
    top = [inside for inside in states if len(inside) == min(map(len, states))]
    if len(top) == 1:
        return WeightFile(dict(states[top[0]]), ".".join(top[0]))
    beside = [k for k, v in content.items() if not isinstance(v, Tensor)] if isinstance(content, Mapping) else []
    tensors = len(content) - len(beside) if beside else 0
    if top:
        found, fix = ", ".join(".".join(inside) for inside in top), f"save one of them alone, or name it {NESTED[2]}"
    elif tensors:
        found = f"{tensors} tensors beside {', '.join(map(str, beside[:3]))}"
        fix = (
            f"save the tensors alone: torch.save({{k: v for k, v in torch.load({path.name!r}).items() if "
            "torch.is_tensor(v)}, 'weights.pth')"
        )
    elif beside:
        found, fix = "no dict of tensors", "save a network's state dict: net.state_dict()"
    else:
        found, fix = "no dict of tensors", "save a network's state dict: torch.save(net.state_dict(), 'weights.pth')"
    raise BadInput(Problem(where, f"{path.name} holds {found}", fix))


def _states(
    content: Any, inside: tuple[str, ...], depth: int
) -> Iterator[tuple[tuple[str, ...], Mapping[str, Tensor]]]:
    """State dicts in what a file holds, by the names that lead to them."""
    if _is_state(content):
        yield inside, content
    elif isinstance(content, Mapping) and depth:
        for name, value in content.items():
            yield from _states(value, (*inside, str(name)), depth - 1)


def _sound(file: WeightFile, path: Path, where: str) -> WeightFile:
    """The file. Raises BadInput where a tensor holds NaN: whatever is trained from it is NaN from its first step on."""
    odd = [name for name, tensor in file.state.items() if _has_nan(tensor)]
    if odd:
        found = f"{path.name} holds NaN in {len(odd)} of {len(file.state)} tensors, first {odd[0]}"
        raise BadInput(Problem(where, found, "its training had diverged: take an earlier one, or download it again"))
    return file


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
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items())
    )


def _has_nan(tensor: Tensor) -> bool:
    if not tensor.is_floating_point() or tensor.is_meta:
        return False
    # Eight bits know no such question.
    return bool((tensor.float() if tensor.element_size() == 1 else tensor).isnan().any())


def _refuse_packed(path: Path, start: bytes, where: str) -> None:
    """Raises BadInput, with what takes it apart, for a file that holds weights as an archive or a program does."""
    shown, as_weights = shlex.quote(str(path)), "and give weights.pth"
    for magic, program in _PACKED:
        if start.startswith(magic):
            fix = f"{program} -dc {shown} > weights.pth {as_weights}"
            raise BadInput(Problem(where, f"{path} is compressed ({program})", fix))
    if start[_TAR_AT:].startswith(_TAR):
        raise BadInput(
            Problem(where, f"{path} is a tar archive", f"tar -xf {shown}, and give the file of weights in it")
        )
    if not start.startswith(_ZIP):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        return  # torch's reader says where it ends
    inside = {name.rpartition("/")[2] for name in names}
    if "data.pkl" not in inside:
        found = f"{path} is a zip archive of {', '.join(names[:3]) or 'nothing'}"
        raise BadInput(Problem(where, found, f"unzip {shown}, and give the file of weights in it"))
    if "constants.pkl" in inside:
        fix = f"where you trust it: torch.save(torch.jit.load({path.name!r}).state_dict(), 'weights.pth'), {as_weights}"
        raise BadInput(Problem(where, f"{path.name} is a TorchScript program, which is not run", fix))


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
