from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from llava_tui.tui.widgets import cells
from llava_tui.tui.widgets.cells import Line

# Everything that a model, a file name or an attacker may write: controls, wide, combining, joiners, bidi, surrogates.
HOSTILE = st.text(
    st.one_of(
        st.sampled_from("a é漢字👩‍👩‍👧️⃣\u200d\u0301\x1b[31m\x9b\r\n\t\x00\u202e\u2066\ud800…█⣿"),
        st.characters(),
    ),
    max_size=40,
)
STYLES = st.sampled_from(["text", "dim", "bad"])
LINES = st.lists(st.tuples(HOSTILE, STYLES), max_size=6)


def text_of(line: Line) -> str:
    return "".join(text for text, _ in line)


@given(LINES, st.integers(0, 60))
def test_a_fitted_line_has_exactly_its_width_and_nothing_that_moves_a_cursor(line: Line, width: int) -> None:
    fitted = cells.fit(line, width)
    assert cells.width_of(fitted) == width
    assert cell_len(text_of(fitted)) == width
    assert text_of(fitted).isprintable()


@given(HOSTILE, st.integers(0, 40))
def test_aligned_text_has_exactly_its_width(text: str, width: int) -> None:
    assert cell_len(cells.left(text, width)) == width
    assert cell_len(cells.right(text, width)) == width


@given(HOSTILE, st.integers(0, 40))
def test_wrapped_text_fits_and_loses_no_letter(text: str, width: int) -> None:
    lines = cells.wrap(text, width)
    assert all(cell_len(line) <= width for line in lines)
    if width >= 2:
        kept = "".join("".join(lines).split())
        assert kept == "".join("".join(cells.plain(part) for part in text.split("\n")).split())


def test_text_is_wrapped_between_words() -> None:
    assert cells.wrap("a quiet street\nand a dog", 8) == ["a quiet", "street", "and a", "dog"]
    assert cells.wrap("漢字漢字", 5) == ["漢字", "漢字"]


def test_a_wide_character_does_not_straddle_the_edge() -> None:
    assert cells.clip("漢字漢字", 5) == "漢字…"
    assert cells.clip("漢字漢字", 4) == "漢…"


def test_parts_that_do_not_fit_are_left_out_whole() -> None:
    parts: list[Line] = [[("first", "text")], [("a long second", "dim")], [("third", "bad")]]
    assert text_of(cells.join(parts, 2, 14)) == "first  third  "
    assert text_of(cells.join(parts, 2, 27)) == "first  a long second  third"


@given(LINES, LINES, st.integers(1, 40))
def test_repainting_the_changed_ranges_alone_gives_the_new_line(old: Line, new: Line, width: int) -> None:
    before, after = cells.fit(old, width), cells.fit(new, width)
    screen = cells._cells(before)
    wanted = cells._cells(after)
    for start, end in cells.changed_ranges(before, after):
        assert 0 <= start < end <= width
        # Neither end cuts a wide character of what is written or of what stays.
        assert wanted[start][0] != ""
        assert end == width or wanted[end][0] != ""
        screen[start:end] = wanted[start:end]
    assert screen == wanted


def test_only_what_changed_is_a_range() -> None:
    old, new = cells.fit([("run 7/20, ETA 1:10", "text")], 60), cells.fit([("run 8/20, ETA 1:09", "text")], 60)
    assert cells.changed_ranges(old, new) == [(4, 5), (16, 18)]
    assert cells.changed_ranges(new, list(new)) == []
    assert cells.changed_ranges(None, new) == [(0, 60)]
    assert cells.changed_ranges([("ab", "text")], [("ab", "dim")]) == [(0, 2)]


def test_near_changes_are_one_range() -> None:
    assert cells.changed_ranges([("a....a", "text")], [("b....b", "text")]) == [(0, 6)]


@given(HOSTILE, st.integers(0, 30))
def test_ascii_is_ascii_and_as_wide(text: str, width: int) -> None:
    shown = cells.left(text, width)
    assert cells.ascii_text(shown).isascii()
    assert len(cells.ascii_text(shown)) == width


def test_our_own_glyphs_have_an_ascii_form() -> None:
    assert cells.ascii_text("● ├ █▏ ⣿⣀ …") == "* | #| #: ~"
