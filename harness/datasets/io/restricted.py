"""The `.npy` files of others: arrays, and the pickled dicts that the field saves in them (`pickles`)."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from harness.datasets.io.opening import plain_bytes
from harness.datasets.io.pickles import MAX_BYTES, PLAIN_KINDS, Refused, elements, loads
from harness.errors import BadInput, Problem

FIX = "save it anew as arrays, for instance np.savez(path, keys=..., cam=...)"


class Pickled(Refused):
    """The file holds objects where arrays alone are read."""


def read_npy(path: str | Path) -> Any:
    """The content of an `.npy` file: an array, or the plain value that was pickled into it.

    Raises BadInput naming the file for anything else, for damaged files and for those above 1 GiB.
    """
    return read_with(Path(path), parse_npy)


def read_with(path: Path, parse: Callable[[bytes], Any], fix: str = FIX, what: str = "refused") -> Any:
    """What `parse` makes of a file of at most 1 GiB. Raises BadInput naming the file where it raises Refused."""
    try:
        data = plain_bytes(path, MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise Refused("more than 1 GiB")
        return parse(data)
    except Pickled as error:
        fix = "python -m harness.data import-cams converts the field's pickled folders"
        raise BadInput(Problem(str(path), "holds pickled objects", fix)) from error
    except Refused as error:
        raise BadInput(Problem(str(path), f"{what}: {error}", fix)) from error
    except OSError as error:
        raise BadInput(
            Problem(str(path), f"cannot be read ({error.strerror})", "check path and permissions")
        ) from error


def parse_npy(data: bytes, *, pickles: bool = True) -> Any:
    """The content of an `.npy` file's bytes. Raises Refused, and Pickled for objects where `pickles` are not read."""
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        shape, fortran, dtype = read(stream)
    except Exception as error:
        raise Refused(f"no .npy header ({type(error).__name__})") from error
    rest = data[stream.tell() :]
    if dtype.hasobject:
        if not pickles:
            raise Pickled("pickled objects")
        if dtype != np.dtype(object):
            raise Refused("an array of records")
        return loads(rest)
    if dtype.kind not in PLAIN_KINDS or dtype.itemsize == 0:
        raise Refused(f"an array of type {dtype.str!r}")
    if len(rest) != elements(tuple(int(n) for n in shape)) * dtype.itemsize:
        raise Refused("an array whose bytes do not fill its shape")
    return np.frombuffer(rest, dtype).reshape(shape, order="F" if fortran else "C").copy()
