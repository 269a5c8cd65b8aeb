"""No photo lies in the repository: every raster in its files is one of those that a command here makes."""

from __future__ import annotations

import base64
import gzip
import io
import json
import sqlite3
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import rasters as table
from PIL import Image
from rasters import accepted, bring_up_to_date, digest, found, rasters

TOLD = (
    'python tests/rasters.py <file> "<command that made it>" brings its lines in docs/pictures/rasters.csv up to date'
)
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP")


def picture(form: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(buffer, form)
    return buffer.getvalue()


def test_every_raster_is_in_the_table_and_the_table_names_no_other() -> None:
    here = {(where, one) for where, digests in found().items() for one in digests}
    known = accepted()
    assert here - known.keys() == set(), TOLD
    assert known.keys() - here == set(), TOLD
    assert all(command.startswith("python ") for command in known.values())


@pytest.mark.parametrize("form", FORMATS)
def test_a_picture_is_found_wherever_it_hides(form: str, tmp_path: Path) -> None:
    raster = picture(form)
    text = base64.b64encode(raster).decode()
    address = f"data:image/{form.lower()};base64,{text}"
    hidden = {"plain": raster, "page.html": f'<img src="{address}">'.encode(), "a.css": f"url({address})".encode()}
    cell = {"cell_type": "code", "outputs": [{"data": {"image/png": [text[:40] + "\n", text[40:]]}}]}
    hidden["n.ipynb"] = json.dumps({"cells": [cell]}).encode()
    for column in (pl.Series("x", [raster, b"other"]), pl.Series("x", [address, "other"])):
        file = io.BytesIO()
        pl.DataFrame({"x": column}).write_parquet(file)
        hidden[f"{column.dtype}.parquet"] = file.getvalue()
    base = sqlite3.connect(tmp_path / "x.db")
    base.execute("create table t (a, b)")
    base.execute("insert into t values (?, ?)", (1, raster))
    base.commit()
    base.close()
    hidden["x.db"] = (tmp_path / "x.db").read_bytes()
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as opened:
        opened.writestr("inside/x", raster)
    hidden["x.zip"] = zipped.getvalue()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        member = tarfile.TarInfo("inside/y")
        member.size = len(raster)
        archive.addfile(member, io.BytesIO(raster))
    hidden |= {"x.tar": packed.getvalue(), "x.tgz": gzip.compress(packed.getvalue()), "x.gz": gzip.compress(raster)}
    hidden["b.html"] = f"<img src='data:image/{form.lower()};charset=utf-8;base64,{text}'>".encode()
    if form == "JPEG":
        hidden["x.pdf"] = b"%PDF-1.4 /DCTDecode stream " + raster + b" endstream"
    for name, content in hidden.items():
        assert [digest(r) for r in rasters(content, name)] == [digest(raster)], name


@pytest.mark.parametrize("content", [b"BMW drives " * 9, b"RIFFraff" * 9, b"data:image/png;base64,hello", b""])
def test_what_only_looks_like_one_is_none(content: bytes) -> None:
    assert list(rasters(content, "x.md")) == []


def test_a_file_made_again_renews_its_own_lines_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    png, gif = picture("PNG"), picture("GIF")
    (tmp_path / "a.png").write_bytes(png)
    (tmp_path / "photo.gif").write_bytes(gif)
    (tmp_path / "t.csv").write_text(
        f"digest,file,command\n{'0' * 64},a.png,python old.py\n{'1' * 64},b.html,python b.py\n"
    )
    monkeypatch.setattr(table, "ROOT", tmp_path)
    monkeypatch.setattr(table, "TABLE", tmp_path / "t.csv")
    assert bring_up_to_date("a.png", "python new.py") == (1, 1)
    assert accepted() == {("a.png", digest(png)): "python new.py", ("b.html", "1" * 64): "python b.py"}
    assert bring_up_to_date("a.png", "python new.py") == (0, 0)
