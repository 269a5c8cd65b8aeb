"""Arrays of `.npz` archives that others wrote, read without running or unpacking more than they hold."""

from __future__ import annotations

import io
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from harness.datasets.io.images import some_of
from harness.datasets.io.pickles import MAX_BYTES, Refused
from harness.datasets.io.restricted import FIX, parse_npy, read_with


def read_plain_npy(path: str | Path) -> NDArray[Any]:
    """The array of an `.npy` file. Raises BadInput naming the file as `read_npy` does, and where it was pickled."""
    return read_with(Path(path), partial(parse_npy, pickles=False), what="cannot be read")


def read_npz(path: str | Path, names: tuple[str, ...], fix: str = FIX) -> dict[str, NDArray[Any]]:
    """These arrays of an `.npz` archive, nothing of it unpickled.

    Raises BadInput naming the file for what is no archive, cut off, encrypted, larger than 1 GiB once unpacked, or
    lacks one of the arrays.
    """
    return read_with(Path(path), partial(_npz, names=names), fix, "cannot be read")


def _npz(data: bytes, names: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {info.filename: info for info in archive.infolist()}
            lacking = [name for name in names if f"{name}.npy" not in members]
            if lacking:
                raise Refused(
                    f"no {' and no '.join(lacking)} in the archive: it holds {some_of(members, 4) or 'nothing'}"
                )
            wanted = [members[f"{name}.npy"] for name in names]
            if any(info.flag_bits & 1 for info in wanted):
                raise Refused("an encrypted archive")
            # The sizes are the archive's word; no more than they say is ever unpacked.
            if sum(info.file_size for info in wanted) > MAX_BYTES:
                raise Refused("more than 1 GiB once it is unpacked")
            parts = []
            for info in wanted:
                with archive.open(info) as member:
                    parts.append(member.read(info.file_size))
            return {name: parse_npy(part, pickles=False) for name, part in zip(names, parts, strict=True)}
    except Refused:
        raise
    # Damaged archives raise almost any class (BadZipFile, zlib.error, struct.error, NotImplementedError, ...).
    except Exception as error:
        raise Refused(f"no whole archive ({type(error).__name__}: {error})"[:160]) from error
