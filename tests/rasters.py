"""Every raster in the tracked files, wherever it hides. When a file of them was made again,
`python tests/rasters.py <file> "<command that made it>"` brings its lines in docs/pictures/rasters.csv up to date,
those of that file and of no other.

Looked into: files of any name by their first bytes, `data:` addresses in text, outputs of notebooks, cells of Parquet
files and of SQLite databases, members of zip (npz too) and tar archives, whatever gzip packs, JPEGs in PDF files.
"""

from __future__ import annotations

import base64
import binascii
import csv
import gzip
import hashlib
import io
import json
import re
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "docs" / "pictures" / "rasters.csv"
"""digest (SHA-256), file, command: each raster that may be here, and what makes it from `shapes` or from numbers."""
MAGIC = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"BM", b"II*\x00", b"MM\x00*", b"RIFF")
ADDRESS = re.compile(rb"data:image/(?!svg)[\w.+-]+(?:;[\w.=-]+)*;base64,([A-Za-z0-9+/=\s]+?)(?=[\"'\\)<&\s]|$)")
JPEG = re.compile(rb"\xff\xd8\xff.+?\xff\xd9", re.DOTALL)
LEAST = 32
"""Bytes of the smallest raster."""


def tracked() -> list[Path]:
    """The files under version control that are there."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    return [path for name in names.decode().split("\0") if name and (path := ROOT / name).is_file()]


def rasters(content: bytes, name: str) -> Iterator[bytes]:
    """The rasters in a file's bytes; `name` tells formats apart that share their first bytes."""
    if is_raster(content):
        yield content
    elif content.startswith(b"PAR1"):
        for cell in _cells(pl.read_parquet(io.BytesIO(content))):
            yield from rasters(cell, "")
    elif content.startswith(b"SQLite format 3\0"):
        for cell in _rows(content):
            yield from rasters(cell, "")
    elif content.startswith(b"PK\x03\x04"):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for member in archive.namelist():
                yield from rasters(archive.read(member), member)
    elif content.startswith(b"\x1f\x8b"):
        yield from rasters(gzip.decompress(content), name.removesuffix(".gz"))
    elif content[257:262] == b"ustar":
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            for file in (archive.extractfile(member) for member in archive if member.isfile()):
                yield from rasters(file.read() if file else b"", "")
    elif content.startswith(b"%PDF"):
        yield from (match[0] for match in JPEG.finditer(content))
    else:
        for match in ADDRESS.finditer(content):
            yield from _decoded(match[1])
        if name.endswith(".ipynb"):
            yield from _of_notebook(json.loads(content))


def is_raster(content: bytes) -> bool:
    """Whether bytes are a picture of pixels."""
    if len(content) < LEAST or not content.startswith(MAGIC):
        return False
    if content.startswith(b"RIFF"):
        return content[8:12] == b"WEBP"
    # Two letters begin many a text: a bitmap says its own length.
    return not content.startswith(b"BM") or int.from_bytes(content[2:6], "little") == len(content)


def digest(raster: bytes) -> str:
    """What the table calls it."""
    return hashlib.sha256(raster).hexdigest()


def found() -> dict[str, set[str]]:
    """Digests of the rasters of each tracked file that has any, by its path from the root."""
    out: dict[str, set[str]] = {}
    for path in tracked():
        for raster in rasters(path.read_bytes(), path.name):
            out.setdefault(str(path.relative_to(ROOT)), set()).add(digest(raster))
    return out


def accepted() -> dict[tuple[str, str], str]:
    """The command of each raster that the table names, by file and digest."""
    with TABLE.open(newline="", encoding="utf-8") as file:
        return {(row["file"], row["digest"]): row["command"] for row in csv.DictReader(file)}


def _decoded(text: bytes) -> Iterator[bytes]:
    try:
        raster = base64.b64decode(b"".join(text.split()))
    except binascii.Error:
        return  # no picture: an address in a text about addresses
    if is_raster(raster):
        yield raster


def _of_notebook(value: Any) -> Iterator[bytes]:
    """Outputs of cells, and attachments: texts under `image/...`."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if isinstance(key, str) and key.startswith("image/"):
                yield from _decoded(("".join(inner) if isinstance(inner, list) else str(inner)).encode())
            yield from _of_notebook(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _of_notebook(inner)


def _cells(frame: pl.DataFrame) -> Iterator[bytes]:
    for column in frame.select(pl.col(pl.Utf8, pl.Binary)).iter_columns():
        for value in column.drop_nulls().unique():
            yield value.encode() if isinstance(value, str) else value


def _rows(content: bytes) -> Iterator[bytes]:
    with tempfile.NamedTemporaryFile(suffix=".db") as file:
        file.write(content)
        file.flush()
        base = sqlite3.connect(f"file:{file.name}?mode=ro", uri=True)
        try:
            names = [n for (n,) in base.execute("select name from sqlite_master where type = 'table'")]
            for name in names:
                quoted = name.replace('"', '""')
                for row in base.execute(f'select * from "{quoted}"'):
                    yield from (v.encode() if isinstance(v, str) else v for v in row if isinstance(v, str | bytes))
        finally:
            base.close()


def bring_up_to_date(file: str, command: str) -> tuple[int, int]:
    """Write the table anew with the rasters that `file` has now, made by `command`; how many came and went."""
    known = accepted()
    old = {one for where, one in known if where == file}
    new = {digest(raster) for raster in rasters((ROOT / file).read_bytes(), Path(file).name)}
    rest = {(where, one): made for (where, one), made in known.items() if where != file}
    with TABLE.open("w", newline="", encoding="utf-8") as table:
        lines = csv.writer(table, lineterminator="\n")
        lines.writerow(("digest", "file", "command"))
        for (where, one), made in sorted([*rest.items(), *(((file, one), command) for one in new)]):
            lines.writerow((one, where, made))
    return len(new - old), len(old - new)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit('python tests/rasters.py <file, from the root> "<command that made it>"')
    came, went = bring_up_to_date(*sys.argv[1:])
    print(f"{TABLE.relative_to(ROOT)}: {came} new, {went} gone")
