"""Galleries of examples: from the photo over each row's targets to the truth, the same images for all rows."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
from fixture_store import IMAGES, ToyStore, frame, swapped_miou, toy_store
from PIL import Image

from harness.evaluation.picture_files import IMAGE, KIND, TRUTH, picture_path
from reports.format.html import Chapter, Gallery, Page, Words, page_html
from reports.page import examples
from reports.page.build import view_of
from reports.rows.row import Filters

CHOSEN = {IMAGES[0]: "best", IMAGES[2]: "median", IMAGES[5]: "worst", IMAGES[1]: "largest spread"}
MADE = {"cam0": ("cam", "segmentation"), "fsr0": ("cam", "pseudo", "segmentation"), "full0": ("segmentation",)}
"""By run what it makes; `twin0` has no picture."""


def keep(toy: ToyStore, key: str, what: str, image: str, value: int) -> None:
    """A picture of one colour."""
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 6, 3), value, np.uint8)).save(buffer, "PNG")
    path = picture_path(key, what, image)
    (toy.root / path).parent.mkdir(parents=True, exist_ok=True)
    (toy.root / path).write_bytes(buffer.getvalue())
    row = {"key": key, "kind": KIND, "path": path, "digest": "d"}
    toy.store.write("artifacts", f"{key}-{what}-{image}", frame("artifacts", [row]))


def blocks_of(root: Path) -> list[Words | Gallery]:
    return examples.galleries(view_of(root, Filters()))  # type: ignore[return-value]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    toy = toy_store(tmp_path_factory.mktemp("pictures"))
    value = 0
    for image in CHOSEN:
        for what in (IMAGE, TRUTH):
            keep(toy, "cam0", what, image, value := value + 1)
        for key, targets in MADE.items():
            for target in targets:
                keep(toy, key, target, image, value := value + 1)
    return toy.root


def test_a_gallery_for_each_chosen_image_reads_from_the_photo_to_the_truth(root: Path) -> None:
    told, *galleries = blocks_of(root)
    assert isinstance(told, Words)
    assert [g.title for g in galleries] == [f"{why}: {image}" for image, why in CHOSEN.items()]
    assert {g.columns for g in galleries} == {("image", "CAM", "pseudo mask", "segmentation", "truth")}
    assert [name for name, _ in galleries[0].rows] == ["fsr · tags", "twin · tags", "cam · tags", "full · masks"]


def test_every_row_shows_what_it_makes_with_its_score_and_nothing_else(root: Path) -> None:
    _, best, *_ = blocks_of(root)
    rows = dict(best.rows)
    scores = {name: [p.sub for p in pictures] for name, pictures in rows.items()}
    assert scores["fsr · tags"] == ["", *(f"{swapped_miou(n):.1f}" for n in (16, 14, 10)), ""]
    assert scores["cam · tags"] == ["", f"{swapped_miou(20):.1f}", "", f"{swapped_miou(20):.1f}", ""]
    assert scores["full · masks"] == ["", "", "", f"{swapped_miou(4):.1f}", ""]
    # A target that a row lacks is a free place; a picture that the store lacks has a name and no source.
    assert [bool(p.title) for p in rows["full · masks"]] == [True, False, False, True, True]
    assert [bool(p.source) for p in rows["twin · tags"]] == [True, False, False, False, True]
    assert all(p.source for p in rows["fsr · tags"])


def test_what_the_store_lacks_is_counted_once_and_named_with_its_command(root: Path) -> None:
    text = " ".join(blocks_of(root)[0].paragraphs)
    # 4 images: photo, truth, cam's 2, fsr's and twin's 3 each, full's 1; the twin has none of its 3.
    assert "12 of 44 pictures are not in the store" in text
    assert f"python -m reports.page store={root} pictures=true" in text
    assert f"best {IMAGES[0]} (" in text


def test_a_store_without_pictures_has_words_and_no_empty_frames(toy_root: Path) -> None:
    (told,) = blocks_of(toy_root)
    assert "44 of 44 pictures are not in the store" in " ".join(told.paragraphs)


def test_a_picture_of_several_places_is_held_once(root: Path) -> None:
    text = page_html(Page("t", (Chapter("examples", "Examples", tuple(blocks_of(root))),)))
    sources = re.findall(r'src="(data:image/png;base64,[^"]+)"', text)
    assert len(sources) == len(set(sources)) == 32
    places = {f'id="{number}"' for number in re.findall(r'data-of="([^"]+)"', text)}
    assert len(places) == 8, "photo and truth of four images stand in the lines of all rows"
    assert all(place in text for place in places)
