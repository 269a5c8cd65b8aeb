"""The page of a store, opened in a browser: sorting, filter, metrics, phone, dark, print, silence."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import Page, needs_chromium, page

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
    tab.wait("document.readyState === 'complete'")


def test_it_asks_nobody_and_complains_of_nothing(file: Path, tab: Page) -> None:
    show(tab, file)
    tab.run("window.scrollTo(0, document.body.scrollHeight)")
    assert [r for r in tab.requests if not r.startswith(("file:", "data:", "blob:"))] == []
    assert tab.problems == []


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


def test_it_prints(file: Path, tab: Page) -> None:
    show(tab, file)
    assert len(tab.send("Page.printToPDF")["data"]) > 10_000
    assert tab.problems == []
