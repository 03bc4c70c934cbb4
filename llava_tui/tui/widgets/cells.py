"""Lines of styled cells: what every widget draws, and how two drawings differ.

A *line* is a list of (text, style name) runs. Drawing functions return lines of exactly the width that they were given;
they know nothing of Textual. Style names are those of :mod:`llava_tui.tui.theme`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.cells import cell_len, get_character_cell_size

Run = tuple[str, str]
Line = list[Run]

TEXT = "text"
"""The style of ordinary text."""


def width_of(line: Iterable[Run]) -> int:
    """Cells that a line takes."""
    return sum(len(text) if text.isascii() else cell_len(text) for text, _ in line)


def plain(text: str) -> str:
    """``text`` without what moves a cursor or changes a width after the fact: control characters become spaces;
    joiners, direction marks and variation selectors, on whose width terminals disagree, are dropped."""
    if text.isprintable() and (text.isascii() or "\ufe0f" not in text):
        return text
    import unicodedata  # only foreign text needs it

    return "".join(
        char if char.isprintable() else "" if unicodedata.category(char) in ("Cf", "Cs") else " "
        for char in text
        if char != "\ufe0f"
    )


def clip(text: str, width: int) -> str:
    """As much of ``text`` as fits ``width`` cells, :func:`plain`, with ``…`` where something is missing.

    A wide character that would straddle the edge is left out.
    """
    if width <= 0:
        return ""
    text = plain(text)
    if text.isascii():
        return text if len(text) <= width else text[: width - 1] + "…"
    if cell_len(text) <= width:
        return text
    kept: list[str] = []
    room = width - 1
    for char in text:
        size = get_character_cell_size(char)
        if size > room:
            break
        kept.append(char)
        room -= size
    return "".join(kept) + "…"


def left(text: str, width: int) -> str:
    """``text`` in exactly ``width`` cells, aligned left, clipped where too long."""
    text = clip(text, width)
    return text + " " * (width - cell_len(text))


def right(text: str, width: int) -> str:
    """``text`` in exactly ``width`` cells, aligned right, clipped where too long."""
    text = clip(text, width)
    return " " * (width - cell_len(text)) + text


def fit(line: Iterable[Run], width: int, style: str = TEXT) -> Line:
    """A line of exactly ``width`` cells: clipped, or filled up with spaces of ``style``; runs of one style joined."""
    fitted: Line = []
    room = max(width, 0)
    for text, name in line:
        if text.isascii():
            size = len(text)
            good = text.isprintable()
        else:
            size = cell_len(text)
            good = text.isprintable() and "\ufe0f" not in text
        if size > room or not good:
            text = clip(text, room)
            size = cell_len(text)
        if not text:
            continue
        if fitted and fitted[-1][1] == name:
            fitted[-1] = (fitted[-1][0] + text, name)
        else:
            fitted.append((text, name))
        room -= size
        if not room:
            break
    if room > 0:
        if fitted and fitted[-1][1] == style:
            fitted[-1] = (fitted[-1][0] + " " * room, style)
        else:
            fitted.append((" " * room, style))
    return fitted


def runs(glyphs: Sequence[str], styles: Sequence[str]) -> Line:
    """A line of single glyphs, one a style, as runs."""
    line: Line = []
    start = 0
    for index in range(1, len(glyphs) + 1):
        if index == len(glyphs) or styles[index] != styles[start]:
            line.append(("".join(glyphs[start:index]), styles[start]))
            start = index
    return line


def join(parts: Sequence[Line], gap: int, width: int) -> Line:
    """As many whole parts as fit ``width``, ``gap`` spaces apart, in order; a part that does not fit is left out.

    What matters most comes first, so that a narrow screen loses the least.
    """
    line: Line = []
    used = 0
    for part in parts:
        size = width_of(part)
        if not size:
            continue
        needed = size + (gap if used else 0)
        if used + needed > width:
            continue
        if used:
            line.append((" " * gap, TEXT))
        line.extend(part)
        used += needed
    return fit(line, width)


def wrap(text: str, width: int) -> list[str]:
    """``text`` broken into lines of at most ``width`` cells: at newlines, else at spaces, else anywhere."""
    if width <= 0:
        return []
    lines: list[str] = []
    for paragraph in text.split("\n"):
        line = ""
        used = 0
        for word in _words(paragraph):
            size = cell_len(word)
            if used + size <= width:
                line += word
                used += size
                continue
            if line.strip():
                lines.append(line.rstrip())
                line, used = "", 0
                word = word.lstrip(" ")
                size = cell_len(word)
            for char in word:
                step = get_character_cell_size(char)
                if step > width:
                    continue
                if used + step > width:
                    lines.append(line)
                    line, used = "", 0
                line += char
                used += step
        lines.append(line.rstrip())
    return lines


def _words(paragraph: str) -> list[str]:
    """Words, each with the spaces before it, control characters as spaces."""
    clean = plain(paragraph)
    words: list[str] = []
    start = 0
    for index in range(1, len(clean)):
        if clean[index] == " " and clean[index - 1] != " ":
            words.append(clean[start:index])
            start = index
    if clean:
        words.append(clean[start:])
    return words


# --- what changed ---------------------------------------------------------------------------------------------------

MERGE_GAP = 10
"""Two changes nearer than this are written as one: moving the cursor and setting a style again costs about as much."""


def changed_ranges(old: Line | None, new: Line) -> list[tuple[int, int]]:
    """Half-open ranges of cells where ``new`` differs from ``old``; whole characters only, near ones merged."""
    if old == new:
        return []
    if old is None:
        return [(0, width_of(new))] if new else []
    # Runs that both begin with are the same cells.
    same = 0
    while same < len(old) and same < len(new) and old[same] == new[same]:
        same += 1
    offset = width_of(new[:same])
    before, after = _cells(old[same:]), _cells(new[same:])
    if len(before) != len(after):
        return [(0, offset + len(after))] if new else []
    ranges: list[tuple[int, int]] = []
    for index, cell in enumerate(after):
        if cell == before[index]:
            continue
        start, end = index, index + 1
        # The second half of a wide character is "": never begin or end a range within one.
        while start > 0 and ("" in (before[start][0], after[start][0])):
            start -= 1
        while end < len(after) and ("" in (before[end][0], after[end][0])):
            end += 1
        if ranges and start + offset - ranges[-1][1] < MERGE_GAP:
            ranges[-1] = (ranges[-1][0], max(end + offset, ranges[-1][1]))
        else:
            ranges.append((start + offset, end + offset))
    return ranges


def cut(line: Line, start: int, end: int) -> Line:
    """The runs within cells ``start`` to ``end``; neither may be within a wide character."""
    piece: Line = []
    at = 0
    for text, style in line:
        size = len(text) if text.isascii() else cell_len(text)
        first, last = max(start - at, 0), min(end - at, size)
        if first < last:
            if last - first < size:
                # Without wide or combining characters a cell is a character.
                whole = size == len(text)
                text = text[first:last] if whole else "".join(char for char, _ in _cells([(text, style)])[first:last])
            piece.append((text, style))
        at += size
        if at >= end:
            break
    return piece


def _cells(line: Line) -> list[Run]:
    """One entry a cell; combining characters go with the cell before them."""
    cells: list[Run] = []
    for text, style in line:
        if text.isascii():
            cells += [(char, style) for char in text]
            continue
        for char in text:
            size = get_character_cell_size(char)
            if size == 0:
                if cells:
                    at = len(cells) - 1
                    while at and not cells[at][0]:
                        at -= 1
                    cells[at] = (cells[at][0] + char, cells[at][1])
                continue
            cells.append((char, style))
            if size == 2:
                cells.append(("", style))
    return cells


# --- ASCII ----------------------------------------------------------------------------------------------------------

_ASCII = {
    "●": "*", "■": "#", "▲": "^", "✗": "x", "‖": "=", "▸": ">", "▶": ">", "·": ".", "…": "~", "—": "-", "–": "-",
    "━": "=", "─": "-", "╸": "-", "╴": "-", "├": "|", "└": "`", "│": "|", "▕": "|", "▏": "|", "▎": "|", "▍": "|",
    "▌": "#", "▋": "#", "▊": "#", "▉": "#", "█": "#", "┆": ":", "░": ".", "▒": ":", "▓": "#", "°": "'", "µ": "u",
    "μ": "u", "×": "x", "⚠": "!", "✓": "+", "≥": ">", "≤": "<", "±": "~", "→": ">", "←": "<", "↑": "^", "↓": "v",
    "−": "-", "↻": "@", "⏎": "<", "╵": "|", "‹": "<", "›": ">",
}  # fmt: skip
_SHADES = " .:-=+*%#"
"""Braille by the number of its dots."""


def ascii_text(text: str) -> str:
    """``text`` in ASCII alone, cell for cell: our own glyphs by their nearest, everything else as ``?``."""
    if text.isascii():
        return text
    return "".join(_ascii_char(char) for char in text)


def _ascii_char(char: str) -> str:
    if char < "\x80":
        return char
    known = _ASCII.get(char)
    if known is not None:
        return known
    code = ord(char)
    if 0x2800 <= code <= 0x28FF:
        return _SHADES[(code - 0x2800).bit_count()]
    return "?" * get_character_cell_size(char)
