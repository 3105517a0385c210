"""Bars as SVG: one small chart for each work, one bar in it for each driver."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final
from xml.sax.saxutils import escape

_COLUMNS: Final = 2
_WIDTH, _BAR, _GAP, _HEAD, _MARGIN = 420, 16, 6, 30, 16
_NAMES, _VALUES = 80, 70  # room for the name before a bar, and for the value behind it
_INK, _BARS = "#24292f", ("#4c78a8", "#f58518", "#54a24b", "#b279a2", "#e45756", "#72b7b2", "#9d755d")


def chart(title: str, panels: Mapping[str, Mapping[str, float]], word: Callable[[str, float], str]) -> str:
    """An SVG document. Within a panel the longest bar is the largest value; `word` tells a panel's values."""
    names = list(dict.fromkeys(name for values in panels.values() for name in values))
    colours = {name: _BARS[number % len(_BARS)] for number, name in enumerate(names)}
    height = _HEAD + len(names) * (_BAR + _GAP) + _MARGIN
    rows = -(-len(panels) // _COLUMNS)
    size = (_COLUMNS * _WIDTH + _MARGIN, rows * height + _HEAD + _MARGIN)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size[0]} {size[1]}"',
        f'  font-family="sans-serif" font-size="12" fill="{_INK}">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{size[0]}" height="{size[1]}" fill="#ffffff"/>',
        f'<text x="{_MARGIN}" y="22" font-size="14">{escape(title)}</text>',
    ]
    for number, (panel, values) in enumerate(panels.items()):
        left, top = number % _COLUMNS * _WIDTH + _MARGIN, number // _COLUMNS * height + _HEAD + _MARGIN
        lines += [f'<g transform="translate({left},{top})">', *_panel(panel, values, colours, word), "</g>"]
    return "\n".join([*lines, "</svg>", ""])


def _panel(
    panel: str, values: Mapping[str, float], colours: Mapping[str, str], word: Callable[[str, float], str]
) -> Iterator[str]:
    yield f'<text y="14" font-weight="bold">{escape(panel)}</text>'
    longest = _WIDTH - _NAMES - _VALUES - _MARGIN
    for number, (name, value) in enumerate(values.items()):
        top = _HEAD - 8 + number * (_BAR + _GAP)
        width = max(1.0, longest * value / (max(values.values()) or 1))
        yield f'<text x="{_NAMES - 6}" y="{top + 12}" text-anchor="end">{escape(name)}</text>'
        yield f'<rect x="{_NAMES}" y="{top}" width="{width:.1f}" height="{_BAR}" fill="{colours[name]}"/>'
        yield f'<text x="{_NAMES + width + 5:.1f}" y="{top + 12}">{escape(word(panel, value))}</text>'
