# ruff: noqa: E501  (rows of data stay rows)
from __future__ import annotations

import time
from html.parser import HTMLParser

import pages
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.workbench.pages import sanitise
from labkit.workbench.pages.nesting import MAX_DEPTH

MARKUP = st.lists(
    st.one_of(
        st.sampled_from([*"<>/\"'=&;! \n", "<script>", "</script>", "<svg>", "<math>", "<style>", "<!--", "-->", "<![CDATA["]),
        st.sampled_from(["<p>", "<b ", "onerror=", "href=", "javascript:", "<table><tr><td>", "&lt;", "&#60;", "\0", "<img src="]),
        st.sampled_from(pages.ATTACKS),
        st.text(max_size=8),
    ),
    max_size=25,
).map("".join)  # fmt: skip


class Tags(HTMLParser):
    """Every tag of a page with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def assert_allowed(text: str) -> None:
    for tag, attributes in Tags(text).found:
        assert tag in sanitise.TEXT_TAGS | sanitise.MATH_TAGS
        for name, value in attributes.items():
            assert name in sanitise.ATTRIBUTES.get(tag, set()) | {"rel", "class"}
            if name == "href":
                assert (value or "").startswith(("http://", "https://", "mailto:", "#nb-")), value
            if name == "src":
                assert (value or "").startswith("data:image/"), value
            if name == "id":
                assert (value or "").startswith(sanitise.PREFIX)


@given(MARKUP)
def test_only_what_the_lists_name_comes_out_of_any_text(text: str) -> None:
    clean = sanitise.html(text)
    assert clean is not None
    assert_allowed(clean)


@given(MARKUP)
def test_sanitising_twice_is_sanitising_once(text: str) -> None:
    once = sanitise.html(text)
    assert once is not None
    assert sanitise.html(once) == once


@pytest.mark.parametrize("attack", pages.ATTACKS)
def test_an_attack_leaves_nothing_active(attack: str) -> None:
    clean = sanitise.html(attack)
    assert clean is not None
    assert_allowed(clean)


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        "<p>" + "</p><b>" * 100_000,
        "<b></x>" * 100_000,
        "<b><!--</b>-->" * 60_000,
        "<div>" * 150_000,
        "<b " + "a1 " * 300_000 + ">",
        "<p>" + "".join(f"<b id={i}>" for i in range(400)) + "</p>" + "<p>x</p>" * 50_000,
        "<svg>" * 180_000,
        "<!a" * 300_000,
        "<script>" * 100_000,
        "<a b='" * 100_000,
    ],
    ids=lambda text: text[:16],
)
def test_hostile_nesting_takes_no_longer_than_its_length(text: str) -> None:
    started = time.monotonic()
    sanitise.html(text)
    assert time.monotonic() - started < 15  # a parser left to itself needs minutes


def test_nesting_is_bounded() -> None:
    assert str(sanitise.html("<div>" * 1000 + "x")).count("<div>") == MAX_DEPTH


def test_what_readers_need_stays() -> None:
    text = (
        '<table class="dataframe"><thead><tr><th>a</th></tr></thead><tbody><tr><td>1</td></tr></tbody></table>'
        '<p>x <b>b</b> <a href="https://example.org/?a=1&amp;b=2">l</a></p>'
    )
    clean = str(sanitise.html(text))
    assert '<table class="dataframe">' in clean
    assert '<a href="https://example.org/?a=1&amp;b=2" rel="noopener noreferrer nofollow">l</a>' in clean


def test_unclosed_cells_and_items_are_closed_like_a_browser_does() -> None:
    clean = str(sanitise.html("<table><tr><td>1<td>2<tr><td>3</table><ul><li>a<li>b</ul>"))
    assert clean.count("<tr>") == 2
    assert "<td>1</td><td>2</td>" in clean
    assert "<li>a</li><li>b</li>" in clean


def test_classes_and_ids_of_the_page_cannot_be_taken() -> None:
    clean = str(sanitise.html('<p class="band bad" id="body">x</p><h2 id="body">y</h2><span class="k band">v</span>'))
    assert clean == '<p>x</p><h2 id="nb-body">y</h2><span class="k">v</span>'


def test_an_image_that_would_be_fetched_becomes_a_note() -> None:
    clean = str(sanitise.html('<img src="https://example.invalid/x.png" alt="a > b">'))
    assert clean == '<span class="not-shown">[image not in this page: a &gt; b]</span>'


def test_a_drawing_becomes_a_picture_which_cannot_act() -> None:
    clean = str(sanitise.html('<p><svg viewBox="0 0 1 1" onload="x()"><rect/></svg></p>'))
    assert clean.startswith('<p><img src="data:image/svg+xml;base64,')


def test_a_picture_must_be_what_its_type_says() -> None:
    assert sanitise.image("image/png", pages.png(), "grey") is not None
    assert sanitise.image("image/jpeg", pages.png(), "grey") is None
    assert sanitise.image("image/png", '" onerror="x()', "grey") is None
    assert sanitise.image("text/html", pages.png(), "grey") is None
    assert sanitise.image("image/png", {"a": 1}, "grey") is None


def test_html_beyond_the_limit_is_refused_rather_than_read() -> None:
    assert sanitise.html("x" * (sanitise.MAX_HTML + 1)) is None
