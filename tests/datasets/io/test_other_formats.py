"""Pictures under the names of others, and one fault of many files: told as what they are, once."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.datasets.io.images import image_size, merged, read_image, read_mask
from harness.errors import BadInput, Problem


def bytes_of(name: str) -> bytes:
    held = BytesIO()
    Image.fromarray(np.zeros((4, 6), np.uint8)).save(held, name)
    return held.getvalue()


CONTENT = {
    "a WebP picture": bytes_of("WEBP"),
    "a GIF": bytes_of("GIF"),
    "a BMP": bytes_of("BMP"),
    "a TIFF": bytes_of("TIFF"),
    "a HEIC or AVIF picture": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
}


@pytest.mark.parametrize("kind", CONTENT)
@pytest.mark.parametrize("reader", [read_image, read_mask, image_size])
def test_another_format_is_not_a_damaged_file(tmp_path: Path, kind: str, reader) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(CONTENT[kind])
    with pytest.raises(BadInput) as caught:
        reader(path)
    (problem,) = caught.value.problems
    assert problem.found == f"{kind}, neither JPEG nor PNG"
    assert problem.fix.startswith("save it as an 8-bit PNG")


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"<!DOCTYPE html><html>", "text, neither JPEG nor PNG: what a failed download leaves"),
        (b"version https://git-lfs.github.com/spec/v1\n", "text, neither JPEG nor PNG: what a failed download leaves"),
        (b"\x89PN not", "neither JPEG nor PNG, or its header is damaged"),
        (b"", "empty file"),
    ],
)
def test_what_is_no_picture_is_downloaded_again(tmp_path: Path, content: bytes, found: str) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    with pytest.raises(BadInput) as caught:
        read_image(path)
    assert caught.value.problems[0].found == found
    assert "download" in caught.value.problems[0].fix


def test_one_file_with_the_same_fault_many_times_is_not_named_again() -> None:
    many = [Problem("/x/own.json", f"image {n}: a polygon", "correct it") for n in range(4)]
    (problem,) = merged(many)
    assert problem.found == "image 0: a polygon; likewise 3 more"
    (problem,) = merged([*many, Problem("/x/other.json", "image 9: a polygon", "correct it")])
    assert problem.found == "image 0: a polygon; likewise 4 more: other.json"


def test_what_stands_in_quotes_is_a_detail() -> None:
    found = [Problem(f"{n}.npy", f"keys {names}, numbers expected", "x") for n, names in enumerate(("'a'", "'b', 'c'"))]
    assert [p.found for p in merged(found)] == ["keys 'a', numbers expected; likewise 1 more: 1.npy"]
