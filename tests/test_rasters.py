"""No photo lies in the repository: every raster in its files is one of those that a command here makes."""

from __future__ import annotations

import base64
import io
import json
import sqlite3
import zipfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image
from rasters import accepted, digest, found, rasters

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP")


def picture(form: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(buffer, form)
    return buffer.getvalue()


def test_every_raster_is_in_the_table_and_the_table_names_no_other() -> None:
    here = {(where, one) for where, digests in found().items() for one in digests}
    known = accepted()
    assert here - known.keys() == set(), "python tests/rasters.py <command> prints what docs/pictures/rasters.csv lacks"
    assert known.keys() - here == set()
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
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("inside/x", raster)
    hidden["x.zip"] = archive.getvalue()
    for name, content in hidden.items():
        assert [digest(r) for r in rasters(content, name)] == [digest(raster)], name


@pytest.mark.parametrize("content", [b"BMW drives " * 9, b"RIFFraff" * 9, b"data:image/png;base64,hello", b""])
def test_what_only_looks_like_one_is_none(content: bytes) -> None:
    assert list(rasters(content, "x.md")) == []
