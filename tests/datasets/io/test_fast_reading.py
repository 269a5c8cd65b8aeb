"""The fast paths of reading and colour give the very bytes of PIL's."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from PIL import Image, ImageEnhance

from harness.datasets.io import images
from harness.errors import BadInput
from methods.parts.views import colour
from methods.parts.views.augment import hflip
from methods.parts.views.colour import HueTables, Jitter, apply_jitter


def photo(size: tuple[int, int] = (61, 83)) -> np.ndarray:
    """Smooth colours with some noise."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)).resize((size[1], size[0]), 3)
    noise = rng.integers(-9, 10, (*size, 3))
    return np.clip(np.asarray(coarse) + noise, 0, 255).astype(np.uint8)


def plain(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def uses_the_fast_path(path: Path) -> bool:
    return images._fast_jpeg(path) is not None


@pytest.mark.parametrize("size", [(61, 83), (64, 64), (1, 1), (7, 200)])
@pytest.mark.parametrize("quality", [10, 75, 90, 100])
@pytest.mark.parametrize("sampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
def test_colour_jpegs_have_pils_pixels(
    size: tuple[int, int], quality: int, sampling: int, progressive: bool, tmp_path: Path
) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(photo(size)).save(path, quality=quality, subsampling=sampling, progressive=progressive)
    assert uses_the_fast_path(path)
    np.testing.assert_array_equal(images.read_image(path), plain(path))


def test_other_jpegs_are_left_to_pil(tmp_path: Path) -> None:
    """Grey, CMYK and RGB-coded files and one with an orientation: the pixels as stored."""
    pixels = photo()
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = tmp_path / "turned.jpg"
    Image.fromarray(pixels).save(turned, exif=exif)
    assert images.read_image(turned).shape == pixels.shape
    np.testing.assert_array_equal(images.read_image(turned), plain(turned))
    files = {"grey": Image.fromarray(pixels).convert("L"), "cmyk": Image.fromarray(pixels).convert("CMYK")}
    for name, image in files.items():
        image.save(tmp_path / f"{name}.jpg")
    Image.fromarray(pixels).save(tmp_path / "rgb.jpg", keep_rgb=True)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.png").read_bytes())
    for path in sorted(tmp_path.iterdir()):
        if path.name != "turned.jpg":
            assert not uses_the_fast_path(path), path.name
        np.testing.assert_array_equal(images.read_image(path), plain(path))


def test_damaged_jpegs_are_judged_by_pil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(photo()).save(path)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for i in range(60):
        data = bytearray(whole[: int(rng.integers(len(whole)))] if i % 2 else whole)
        for at in rng.integers(20, len(data), size=3) if len(data) > 20 else ():
            data[at] = int(rng.integers(256))
        path.write_bytes(data)
        fast = outcome(path)
        with monkeypatch.context() as patch:
            patch.setattr(images, "_fast_jpeg", lambda path: None)
            assert outcome(path) == fast
    monkeypatch.setattr(images, "MAX_PIXELS", 100)
    path.write_bytes(whole)
    assert not uses_the_fast_path(path)


def outcome(path: Path) -> bytes | str:
    try:
        return images.read_image(path).tobytes()
    except BadInput as error:
        return str(error)


def test_real_photos_have_pils_pixels(real_data: Path) -> None:
    for name in ("msrc21", "camvid11", "pets3"):
        for path in sorted((real_data / name / "JPEGImages").iterdir())[::60]:
            np.testing.assert_array_equal(images.read_image(path), plain(path))


def test_the_library_that_is_locked_scales_nothing() -> None:
    stream = io.BytesIO()
    Image.fromarray(photo()).save(stream, "JPEG")
    assert simplejpeg.decode_jpeg(stream.getvalue(), "RGB").shape == (61, 83, 3)


@pytest.mark.parametrize("factor", [0.0, 0.3, 0.6, 1.0, 1.4, 2.5])
def test_contrast_is_pils(factor: float) -> None:
    for image in (photo(), np.full((3, 3, 3), 7, np.uint8), np.zeros((1, 1, 3), np.uint8)):
        expected = np.asarray(ImageEnhance.Contrast(Image.fromarray(image)).enhance(factor))
        np.testing.assert_array_equal(apply_jitter(image, Jitter((("contrast", factor),))), expected)


def test_mirrored_images_are_whole() -> None:
    image, label = photo(), photo()[..., 0]
    mirrored, label_too = hflip(image, label)
    np.testing.assert_array_equal(mirrored, image[:, ::-1])
    np.testing.assert_array_equal(label_too, label[:, ::-1])
    assert mirrored.flags.c_contiguous


def test_hue_by_tables_is_pils_for_every_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    """65,536 colours spread over all 16.7 million, and a photo; tables come after the break-even."""
    spread = (np.arange(1 << 16, dtype=np.uint32) * np.uint32(40503 * 256 + 77)) & np.uint32(0xFFFFFF)
    every = spread.view(np.uint8).reshape(256, 256, 4)[..., :3].copy()
    tables = HueTables()
    monkeypatch.setattr(HueTables, "BREAK_EVEN", 1 << 17)
    monkeypatch.setattr(colour, "HUES", tables)
    for turns in (0.0, 0.1, -0.1, 0.5, -0.5, 1 / 255):
        steps = Jitter((("hue", turns),))
        fast = {}
        for name, image in (("every", every), ("photo", photo())):
            tables._pixels = 1 << 20
            fast[name] = apply_jitter(image, steps)
            tables._pixels = -(1 << 20)
            np.testing.assert_array_equal(apply_jitter(image, steps), fast[name])
    fresh = HueTables()
    assert not fresh.worth_it(1 << 17)
    assert fresh.worth_it(1)
