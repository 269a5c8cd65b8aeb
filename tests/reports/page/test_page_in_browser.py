"""The page of a store, opened in a browser: sorting, filter, metrics, phone, dark, print, silence."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import Page, needs_chromium, page
from PIL import Image

from benchmarks.many_runs import many_runs
from reports.format.html import Chapter, Gallery, Picture, page_html
from reports.format.html import Page as HtmlPage
from reports.page.__main__ import run

METHODS = '[...document.querySelector("table.board").tBodies[0].rows].map(r => r.cells[1].textContent.trim())'
SHOWN = f"{METHODS}.filter((_, i) => !document.querySelector('table.board').tBodies[0].rows[i].hidden)"
BOUND = "full (masks, upper bound)"


pytestmark = needs_chromium


@pytest.fixture(scope="module")
def file(toy_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("page") / "board.html"
    assert run([f"store={toy_root}", f"out={out}"]) == 0
    return out


@pytest.fixture(scope="module")
def tab() -> Iterator[Page]:
    with page() as opened:
        yield opened


def show(tab: Page, file: Path, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
    tab.problems.clear()
    tab.size(width, height, dark=dark, phone=width < 600)
    tab.open(file.as_uri())
    tab.wait("document.readyState === 'complete'", 120)


def test_it_asks_nobody_and_complains_of_nothing(file: Path, tab: Page) -> None:
    show(tab, file)
    tab.run("window.scrollTo(0, document.body.scrollHeight)")
    assert [r for r in tab.requests if not r.startswith(("file:", "data:", "blob:"))] == []
    assert tab.problems == []


def test_charts_are_drawn_when_they_come_into_sight(file: Path, tab: Page) -> None:
    show(tab, file)
    chart = "document.querySelector('#time .chart')"
    assert tab.run(f"{chart}.querySelector('svg') === null")
    tab.run(f"{chart}.scrollIntoView()")
    tab.wait(f"{chart}.querySelector('svg.main-svg') !== null", 120)
    assert tab.problems == []


def test_charts_take_the_colours_of_the_page(file: Path, tab: Page) -> None:
    show(tab, file, dark=True)
    chart = "document.querySelector('#time .chart')"
    tab.run(f"{chart}.scrollIntoView()")
    tab.wait(f"{chart}.querySelector('.xtick text') !== null", 120)
    ink = f"getComputedStyle({chart}.querySelector('.xtick text')).fill"
    assert tab.run(ink) == "rgb(228, 231, 234)"
    tab.size(1280, 900, dark=False)
    tab.wait(f"{ink} === 'rgb(27, 31, 36)'")


def test_a_click_on_a_head_sorts_and_shows_which_way(file: Path, tab: Page) -> None:
    show(tab, file)
    assert tab.run(METHODS) == [BOUND, "fsr", "twin", "cam", "all background"]
    head = 'document.querySelector("table.board th[data-id=method]")'
    tab.run(f"{head}.click()")
    assert tab.run(f"{head}.getAttribute('aria-sort')") == "ascending"
    assert tab.run(METHODS) == ["all background", "cam", "fsr", BOUND, "twin"]
    tab.run(f"{head}.click()")
    assert tab.run(METHODS) == ["twin", BOUND, "fsr", "cam", "all background"]


def test_the_chosen_metric_ranks_and_sorts(file: Path, tab: Page) -> None:
    show(tab, file)
    ranks = METHODS.replace("cells[1]", "cells[0]")
    assert tab.run(ranks) == ["–", "1=", "1=", "3", "–"]
    tab.run('document.querySelector("[data-choose=pseudo]").click()')
    assert tab.run(METHODS)[:2] == ["fsr", "twin"]
    assert tab.run(ranks) == ["1=", "1=", "–", "–", "–"], "cam and full have no pseudo masks"
    chosen = 'document.querySelector("table.board th.chosen").dataset.id'
    assert tab.run(chosen) == "pseudo"


def test_the_filter_hides_rows_and_says_how_many(file: Path, tab: Page) -> None:
    show(tab, file)
    box = 'document.getElementById("filter")'
    tab.run(f'{box}.value = "tw shapes"; {box}.oninput()')
    assert tab.run(SHOWN) == ["twin"]
    assert tab.run('document.getElementById("found").textContent').endswith("rows")
    tab.run(f'{box}.value = ""; {box}.oninput()')
    assert len(tab.run(SHOWN)) == 5


def test_a_phone_shows_rank_method_and_score_without_scrolling(file: Path, tab: Page) -> None:
    show(tab, file, width=390, height=844)
    cell = 'document.querySelector("table.board td.chosen").getBoundingClientRect()'
    assert tab.run("document.documentElement.scrollWidth") <= 390
    assert 0 < tab.run(f"{cell}.left") < tab.run(f"{cell}.right") <= 390
    iterations = 'getComputedStyle(document.querySelector("table.board th[data-id=iterations]")).display'
    assert tab.run(iterations) == "none"
    tab.run('document.getElementById("all").click()')
    assert tab.run(iterations) != "none"


def test_it_is_dark_where_the_reader_prefers_that(file: Path, tab: Page) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    show(tab, file, dark=True)
    assert tab.run(ground) == "rgb(19, 22, 26)"
    tab.size(1280, 900, dark=False)
    assert tab.run(ground) == "rgb(255, 255, 255)"


def test_a_picture_of_several_places_is_seen_in_each(tab: Page, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (1, 1)).save(buffer, "PNG")
    dot = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    lines = tuple((name, (Picture(dot, "image"), Picture("", ""))) for name in "ab")
    file = tmp_path / "gallery.html"
    file.write_text(page_html(HtmlPage("t", (Chapter("c", "C", (Gallery("g", ("image", "CAM"), lines),)),))))
    show(tab, file)
    tab.wait("[...document.images].length === 2 && [...document.images].every(i => i.naturalWidth === 1)")
    assert tab.problems == []


def test_it_prints(file: Path, tab: Page) -> None:
    show(tab, file)
    assert len(tab.send("Page.printToPDF")["data"]) > 10_000
    assert tab.problems == []


@pytest.mark.slow
def test_a_thousand_runs(tab: Page, tmp_path: Path) -> None:
    """Made in 20 s of one core, opened in 3 s, at most 15 MB; sorted and filtered at once."""
    many_runs(tmp_path / "store")
    out = tmp_path / "board.html"
    begun = time.process_time()
    assert run([f"store={tmp_path / 'store'}", f"out={out}"]) == 0
    assert time.process_time() - begun < 20.0
    assert out.stat().st_size < 15e6
    begun = time.monotonic()
    show(tab, out)
    assert time.monotonic() - begun < 3.0
    assert tab.run("document.querySelectorAll('.chart').length") > 90
    assert tab.problems == []
