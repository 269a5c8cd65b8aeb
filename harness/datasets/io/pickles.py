"""Reading pickles of arrays without running anything that they name.

Numpy arrays, torch tensors, numbers, text and containers of them pass; anything else is refused. A pickle is a
program: this reader runs it on an allow-list of instructions, and every object that it names is a stand-in of ours,
so that no constructor of another library sees bytes that were not checked.
"""

from __future__ import annotations

import io
import pickle
import warnings
from collections.abc import Callable
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

MAX_BYTES = 1 << 30
"""Files are never longer; a CAM folder has one per image, tags of all COCO take 100 MB."""
MAX_DEPTH = 8
"""Containers inside containers."""
PLAIN_KINDS = "biufUS"


class Refused(Exception):
    """The file holds something that is neither array, number nor text, or is damaged."""


class _Dtype:
    """Stands for `numpy.dtype(text, align, copy)`; only plain numbers, text and the object type have one."""

    def __init__(self, text: Any, *_: Any):
        if not isinstance(text, str) or len(text) > 16:
            raise Refused(f"an array of type {text!r:.40}")
        self.text = text

    def set(self, state: Any) -> None:
        # (version, byte order, subtype, names, fields, itemsize, alignment, flags): all but the order must be plain.
        if not isinstance(state, tuple) or len(state) < 5 or any(part is not None for part in state[2:5]):
            raise Refused("an array of records")
        if state[1] not in ("<", ">", "|", "="):
            raise Refused("an array of unknown byte order")
        if self.text[:1] not in "<>|=":
            self.text = state[1] + self.text

    @property
    def is_object(self) -> bool:
        return self.text.lstrip("<>|=") in ("O", "O8", "O4")

    def real(self) -> np.dtype[Any]:
        try:
            found = np.dtype(self.text)
        except Exception as error:
            raise Refused(f"an array of type {self.text!r}") from error
        if found.kind not in PLAIN_KINDS or found.itemsize == 0 or found.names is not None:
            raise Refused(f"an array of type {self.text!r}")
        return found


class _Array:
    """Stands for a numpy array while its pickle is read."""

    def __init__(self) -> None:
        self.value: Any = self

    def set(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise Refused("an array without its parts")
        _, shape, dtype, fortran, data = state
        if not isinstance(dtype, _Dtype):
            raise Refused("an array without a type")
        self.value = data if dtype.is_object else _filled(data, dtype, shape, "F" if fortran else "C")
        if dtype.is_object:
            if not isinstance(data, list) or len(data) != elements(shape):
                raise Refused("an array of objects without its items")
            self.value = data[0] if shape == () else data


def elements(shape: Any) -> int:
    """How many elements an array of this shape has. Raises Refused for what no file of `MAX_BYTES` holds."""
    whole = isinstance(shape, tuple) and len(shape) <= 8
    if not whole or not all(type(n) is int and 0 <= n <= MAX_BYTES for n in shape):
        raise Refused("an array of impossible shape")
    count = 1
    for n in shape:
        count *= n
    if count > MAX_BYTES:
        raise Refused("an array of impossible shape")
    return count


def _filled(data: Any, dtype: _Dtype, shape: Any, order: str) -> NDArray[Any]:
    data = data.encode("latin1") if isinstance(data, str) else data
    real = dtype.real()
    if not isinstance(data, bytes | bytearray) or len(data) != elements(shape) * real.itemsize:
        raise Refused("an array whose bytes do not fill its shape")
    return np.frombuffer(bytes(data), real).reshape(shape, order=cast(Any, order)).copy()


def _scalar(dtype: Any, data: Any = None) -> Any:
    if not isinstance(dtype, _Dtype) or dtype.is_object:
        raise Refused("a scalar of unknown type")
    return _filled(data, dtype, (), "C").item()


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> NDArray[Any]:
    if not isinstance(dtype, _Dtype) or dtype.is_object or order not in ("C", "F"):
        raise Refused("an array of unknown type")
    return _filled(data, dtype, shape, order)


def _encoded(text: Any, codec: Any) -> bytes:
    if not isinstance(text, str) or codec not in ("latin1", "latin-1"):
        raise Refused("text in another encoding than latin1")
    return text.encode("latin1")


def _storage(data: Any) -> Any:
    """A torch storage from its own file format, by torch's reader of weights alone."""
    import torch

    if not isinstance(data, bytes):
        raise Refused("a tensor without its bytes")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of damaged headers before it refuses them
            found = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:
        raise Refused("a tensor that torch does not read as weights") from error
    if not isinstance(found, torch.storage.TypedStorage):
        raise Refused("a tensor without storage")
    return found


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> NDArray[Any]:
    import torch

    if not isinstance(storage, torch.storage.TypedStorage) or type(offset) is not int or offset < 0:
        raise Refused("a tensor without storage")
    if not isinstance(stride, tuple) or len(stride) != len(size if isinstance(size, tuple) else ()):
        raise Refused("a tensor of impossible shape")
    count = elements(size)
    elements(stride)
    reach = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True)) + 1 if count else 0
    bare = storage._untyped_storage  # the public ways to it warn, and warn of themselves
    kind = storage.dtype
    if kind not in _torch_types() or reach * kind.itemsize > bare.nbytes():
        raise Refused("a tensor of impossible shape or type")
    whole = torch.tensor([], dtype=kind).set_(cast(Any, bare))
    return whole.as_strided(size, stride, offset).contiguous().numpy().copy() if count else np.zeros(size, np.float32)


def _torch_types() -> tuple[Any, ...]:
    import torch

    return torch.float16, torch.float32, torch.float64, torch.int32, torch.int64, torch.uint8, torch.bool


class _Named:
    """A name that a pickle may call, and what it then gets."""

    def __init__(self, call: Callable[..., Any]):
        self.call = call


_NDARRAY = _Named(lambda *_: _refuse("an array made by hand"))
_NAMES: dict[tuple[str, str], _Named] = {
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _Named(_Dtype),
    ("_codecs", "encode"): _Named(_encoded),
    ("collections", "OrderedDict"): _Named(lambda *items: {} if not items else _refuse("a filled OrderedDict")),
    ("__builtin__", "bytes"): _Named(lambda *items: b"" if not items else _refuse("bytes made by hand")),
    ("torch._utils", "_rebuild_tensor_v2"): _Named(_tensor),
    ("torch.storage", "_load_from_bytes"): _Named(_storage),
}
for _core in ("numpy.core", "numpy._core"):
    _NAMES[f"{_core}.multiarray", "_reconstruct"] = _Named(lambda *_: _Array())
    _NAMES[f"{_core}.multiarray", "scalar"] = _Named(_scalar)
    _NAMES[f"{_core}.numeric", "_frombuffer"] = _Named(_from_buffer)


def _refuse(what: str) -> Any:
    raise Refused(what)


_OPCODES = (
    *("PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK", "DUP", "NONE", "NEWTRUE", "NEWFALSE"),
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("TUPLE", "EMPTY_TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_LIST", "LIST", "APPEND", "APPENDS"),
    *("EMPTY_DICT", "DICT", "SETITEM", "SETITEMS"),
    *("GET", "BINGET", "LONG_BINGET", "PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE", "GLOBAL", "STACK_GLOBAL"),
)
_UNPICKLER: Any = pickle._Unpickler
"""The one written in Python: its instructions can be chosen, and a huge memo index costs it no memory."""


class _Reader(_UNPICKLER):
    """An unpickler whose instructions make containers, numbers and text, and call the names above; nothing else."""

    dispatch = {getattr(pickle, name)[0]: _UNPICKLER.dispatch[getattr(pickle, name)[0]] for name in _OPCODES}

    def find_class(self, module: str, name: str) -> _Named:
        found = _NAMES.get((module, name))
        return found if found is not None else _refuse(f"the object {module}.{name}"[:80])

    def load_reduce(self) -> None:
        arguments, named = self.stack.pop(), self.stack[-1]
        if not isinstance(named, _Named) or not isinstance(arguments, tuple):
            raise Refused("a call of something that is no function")
        self.stack[-1] = named.call(*arguments)

    def load_build(self) -> None:
        state, made = self.stack.pop(), self.stack[-1]
        if not isinstance(made, _Array | _Dtype):
            raise Refused("an object with a state of its own")
        made.set(state)

    dispatch[pickle.REDUCE[0]] = load_reduce
    dispatch[pickle.BUILD[0]] = load_build


def loads(data: bytes) -> Any:
    """The content of a pickle: arrays, numbers, text, and dicts, lists and tuples of them. Raises Refused."""
    try:
        made = _Reader(io.BytesIO(data), fix_imports=False, encoding="latin1").load()
    except Refused:
        raise
    # A damaged program fails in any way that Python has (KeyError for an instruction that is not allowed).
    except (Exception, RecursionError) as error:
        raise Refused(
            f"instructions that are damaged or not allowed ({type(error).__name__}: {error})"[:160]
        ) from error
    return _plain(made, 0)


def _plain(value: Any, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise Refused("containers nested too deeply")
    if isinstance(value, _Array) and value.value is not value:
        return _plain(value.value, depth + 1)
    if isinstance(value, dict):
        return {_plain_key(k): _plain(v, depth + 1) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v, depth + 1) for v in value]
    if value is None or isinstance(value, bool | int | float | str | np.ndarray):
        return value
    raise Refused(f"an object of type {type(value).__name__.lstrip('_')}")


def _plain_key(key: Any) -> int | str:
    if isinstance(key, bytes):
        return key.decode("latin1")
    if isinstance(key, int | str):
        return key
    raise Refused(f"a key of type {type(key).__name__.lstrip('_')}")
