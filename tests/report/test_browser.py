"""Reports in a real browser: nothing fails, nothing is asked of the network, all is visible and fits."""

from __future__ import annotations

import re
from pathlib import Path

import browser
import pytest
from reports import evaluation, path_points, search

from loramerge import api
from loramerge.report.make import report

pytestmark = pytest.mark.skipif(browser.installed() is None, reason="no chromium is installed")


@pytest.fixture(scope="module")
def page():
    with browser.page() as page:
        yield page


@pytest.fixture
def make(session, sources, write):
    """make(slides=…) -> a report of a result, evaluations and a search."""

    def make(**options):
        inputs = [api.lego(session, k=2, out=Path("made"), force=True).name]
        inputs += [str(write(f"{n}.json", found)) for n, found in enumerate((evaluation(), path_points()))]
        inputs.append(str(write("tune.json", search(held_out=evaluation()))))
        return report(session, inputs, force=True, **options).path

    return make


INK = "getComputedStyle(document.querySelector('h2')).color"
PAPER = "getComputedStyle(document.documentElement).backgroundColor"
TEXT = "getComputedStyle(document.querySelector('svg.plot text')).fill"


@pytest.mark.parametrize("dark", [False, True])
def test_a_page_opens_without_an_error_and_shows_its_text(page, make, dark):
    page.open(make(), dark=dark)

    assert page.errors == []
    assert [url for url in page.requests if not url.startswith("file:")] == []
    assert page.ask("document.querySelector('main').innerText.length") > 2000
    assert page.ask("[...document.querySelectorAll('svg.plot')].every(s => s.getBoundingClientRect().width > 200)")
    light = "rgb(255, 255, 255)"
    assert (page.ask(PAPER) == light) is not dark
    assert page.ask(INK) == page.ask(TEXT) != page.ask(PAPER)


@pytest.mark.parametrize("width", [400, 1280])
def test_nothing_is_wider_than_the_window(page, make, width):
    page.open(make(), width=width)

    assert page.ask("document.documentElement.scrollWidth") <= width


def test_labels_of_a_plot_lie_inside_it(page, make):
    page.open(make())

    cut = page.ask(
        "[...document.querySelectorAll('svg.plot text')].filter(t => {"
        " const a = t.getBoundingClientRect(), b = t.closest('svg').getBoundingClientRect();"
        " return a.left < b.left - 3 || a.right > b.right + 3 || a.top < b.top - 3 || a.bottom > b.bottom + 3;"
        "}).map(t => t.textContent)"
    )
    assert cut == []


def test_on_paper_it_is_black_on_white_even_where_the_screen_is_dark(page, make):
    page.open(make(), dark=True, media="print")

    assert (page.ask(INK), page.ask(TEXT)) == ("rgb(0, 0, 0)", "rgb(0, 0, 0)")
    assert page.ask("getComputedStyle(document.documentElement).getPropertyValue('--paper')") == "#ffffff"


def test_no_table_is_cut_on_paper(page, make):
    page.open(make(), width=688, media="print")  # A4 without its margins

    widths = page.ask("[...document.querySelectorAll('table')].map(t => t.getBoundingClientRect().right)")
    assert max(widths) <= 688


def test_keys_turn_the_slides_and_show_the_notes(page, make):
    page.open(make(slides=True))
    shown = "[...document.querySelectorAll('.slide')].findIndex(s => Math.abs(s.getBoundingClientRect().top) < 5)"
    notes = "[...document.querySelectorAll('.speaker')].filter(s => s.offsetHeight > 0).length"

    places, counts = [], []
    for key in ("ArrowRight", " ", "PageDown", "ArrowLeft", "Home"):
        page.press(key)
        places.append(page.ask(shown))
    for _ in range(3):
        counts.append(page.ask(notes))
        page.press("n")

    assert page.errors == []
    assert places == [1, 2, 3, 2, 0]
    assert counts[0] == counts[2] == 0
    assert counts[1] > 5


def test_without_scripts_a_deck_is_all_there_with_its_notes(page, make):
    page.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        page.open(make(slides=True))
        read = page.ask("document.querySelector('main').innerText")
    finally:
        page.call("Emulation.setScriptExecutionDisabled", value=False)

    assert "Every trial is one point of the space" in read
    assert "How to reproduce" in read


def test_a_deck_prints_one_slide_a_page(page, make, tmp_path):
    path = make(slides=True)
    page.open(path)

    page.print(tmp_path / "deck.pdf")

    pages = len(re.findall(rb"/Type\s*/Page\b", (tmp_path / "deck.pdf").read_bytes()))
    assert pages == page.ask("document.querySelectorAll('.slide').length")


def test_strangers_scripts_do_not_run(page, session, write):
    found = evaluation(
        notes=["<script>document.title = 'taken'</script><img src=x onerror=\"document.title='taken'\">"]
    )

    page.open(report(session, [str(write("eval.json", found))]).path)

    assert page.ask("document.title") == "eval"
    assert page.errors == []
