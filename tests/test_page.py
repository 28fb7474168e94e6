"""The page of a report: its structure, and how a browser lays it out at a desk and on a phone."""

import re
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pytest
from helpers_browser import looked_at, needs_browser
from PIL import Image

from xpcs_eqx.report.page import LARGEST, Picture, page
from xpcs_eqx.report.sections import (
    APPENDIX,
    FIGURES,
    HEAD,
    Entry,
    Heading,
    Item,
    Section,
    Table,
    items,
    text,
    text_lines,
)

VOID = {"meta", "img", "br", "hr"}
WIDE = Table(
    ("parameter", "value", "error", "unit", ""),
    (
        ("gamma_dot_t_offset[hot <sample>]", "0.000201649", "2.7e-06", "1/s", "on its bound"),
        ("D0", "4022.42", "-", "Å²/s^(1+alpha)", ""),
    ),
)


def picture(name, caption="what to see", size=(1400, 900)):
    stream = BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (size[1], size[0]), np.uint8)
    Image.fromarray(pixels).save(stream, "WEBP", quality=40)
    return Picture(name, caption, stream.getvalue(), "image/webp", size, f"{name}.png")


SECTIONS = (
    (Section(content=["Quality: MARGINAL", "3 angles & 101 frames."], place=HEAD), ()),
    (Section("What was found", [WIDE], place=HEAD), ()),
    (Section("What to doubt", items(["a first reason", "x" * 200]), place=HEAD), ()),
    (
        Section("Time", [Entry("solver", "1 s"), Entry("noise", "2 s"), "3 s"], place=APPENDIX),
        (picture("convergence"),),
    ),
    (Section("Figures of q0", place=FIGURES), (picture("maps", "look at q0"), picture("rates"))),
    (Section("Does it fit?", [Heading("q0"), WIDE, Item("one")]), ()),
    (Section("Nothing", ()), ()),
)


@pytest.fixture(scope="module")
def shown():
    return page("Fit of <maps>", SECTIONS)


class Reader(HTMLParser):
    """Elements in order with what they are in; ill-formed pages fail."""

    def __init__(self):
        super().__init__()
        self.open, self.found, self.said = [], [], []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs), tuple(self.open)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip():
            self.said.append((self.open[-1] if self.open else "", data))

    def texts(self, tag):
        return [data for inside, data in self.said if inside == tag]


def test_a_page_is_well_formed_and_needs_nothing_else(shown):
    read = Reader()
    read.feed(shown)
    assert read.open == []
    tags = [tag for tag, _, _ in read.found]
    assert (tags.count("table"), tags.count("figure"), tags.count("img")) == (2, 3, 4)
    for tag, given, _ in read.found:
        assert tag not in ("link", "iframe", "object")
        for name in ("src", "href"):
            assert given.get(name, "#").startswith(("#", "data:image/"))
    assert "http" not in shown
    assert "@import" not in shown
    assert ("meta", {"charset": "utf-8"}) in [(tag, given) for tag, given, _ in read.found]
    assert any(given.get("name") == "viewport" for _, given, _ in read.found)


def test_tables_are_tables_and_figures_have_captions(shown):
    read = Reader()
    read.feed(shown)
    assert read.texts("th")[:4] == ["parameter", "value", "error", "unit"]
    assert "gamma_dot_t_offset[hot <sample>]" in read.texts("td")
    numbers = [given.get("class") for tag, given, _ in read.found if tag == "th"][:5]
    assert numbers == [None, "n", "n", None, None]
    assert read.texts("figcaption") == ["look at q0", "what to see", "what to see"]
    assert read.texts("h2")[:3] == ["What was found", "What to doubt", "Figures of q0"]
    assert "Nothing" not in read.texts("h2")
    # What was found comes first, how it was done last and folded up.
    assert [inside for inside, said in read.said if said == "Time"] == ["h2"]
    assert [given for tag, given, _ in read.found if tag == "details"] == [{"id": "method"}]
    assert ("p", "Quality: MARGINAL") in read.said


def test_the_text_says_the_same_in_the_same_order(shown):
    said = text("Fit of <maps>", [one for one, _ in SECTIONS])
    order = ("Quality", "What was found", "What to doubt", "Does it fit?", "Appendix", "Time")
    places = [said.index(one) for one in order]
    assert places == sorted(places)
    short = text("Fit", [one for one, _ in SECTIONS], appendix=False)
    assert "Time" not in short
    assert text_lines([WIDE])[2].split() == [
        "gamma_dot_t_offset[hot", "<sample>]", "0.000201649", "2.7e-06", "1/s", "on", "its", "bound"
    ]  # fmt: skip


def test_what_a_page_has_no_room_for_stays_in_its_file():
    large = Picture("maps", "all angles.", bytes(LARGEST - 10), file="q1/maps.png")
    few = Picture("rates", "rates.", bytes(100), file="q1/rates.png")
    shown = page("Fit", [(Section("Figures", place=FIGURES), (large, few))])
    assert shown.count("<figure>") == 1
    assert "in the file q1/rates.png" in shown
    assert len(shown) < 5_000_000


def test_numbers_stay_in_a_line():
    """Browsers break `e-04` behind its hyphen."""
    shown = page("Fit", [(Section("", ["a = (1.3 ± 4.8)e-04, b < 1e-09, age-2"]), ())])
    assert re.findall('<span class="one">([^<]*)', shown) == ["(1.3 ± 4.8)e-04", "1e-09"]


def test_words_of_code_look_like_it():
    shown = page("Fit", [(Section("What to do", items(["write `a < b`, or `c`"])), ())])
    assert "<li>write <code>a &lt; b</code>, or <code>c</code></li>" in shown


LOOK = """
const wide = [...document.querySelectorAll("*")].filter((one) => {
  const box = one.closest(".wide, nav, dialog");
  return !box && one.getBoundingClientRect().right > window.innerWidth + 1;
}).map((one) => one.tagName);
const before = document.querySelector("details").open;
document.querySelector("figure button").click();
const dialog = document.querySelector("dialog"), large = dialog.querySelector("img");
const opened = dialog.open, whole = large.clientWidth;
large.click();
const near = large.clientWidth;
dialog.querySelector("button").click();
return {
  wide, before, opened, whole, near, closed: !dialog.open,
  scroll: document.documentElement.scrollWidth, window: window.innerWidth,
  broken: [...document.querySelectorAll("figure img")].filter((one) => !one.width).length,
  verdict: window.getComputedStyle(document.querySelector(".verdict")).display,
  font: parseFloat(window.getComputedStyle(document.querySelector("td")).fontSize),
};
"""


@needs_browser
def test_a_browser_shows_it_at_a_desk_and_on_a_phone(shown, tmp_path):
    for found, width in zip(
        looked_at(shown, tmp_path, LOOK, (1280, 400)), (1280, 400), strict=True
    ):
        assert found["window"] == width
        # Nothing runs out of the window but what scrolls by itself.
        assert (found["wide"], found["scroll"]) == ([], width)
        assert found["broken"] == 0
        assert (found["opened"], found["closed"], found["before"]) == (True, True, False)
        # A figure fills the window, and then is twice as large.
        assert found["whole"] == pytest.approx(width, abs=20)
        assert found["near"] >= 1.9 * found["whole"] or found["near"] == 1400
        assert found["font"] >= 14
