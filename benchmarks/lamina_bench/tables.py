"""Numbers as tables for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lamina_bench.results import Comparison


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown that is also aligned: the first column to the left, numbers to the right."""
    body = [list(row) for row in rows]
    widths = [max(len(row[column]) for row in [list(head), *body]) for column in range(len(head))]
    words = [_is_words(row[column] for row in body) for column in range(len(head))]
    lines = [_line(head, widths, words), _rule(widths, words), *(_line(row, widths, words) for row in body)]
    return "\n".join(lines)


def comparisons(found: Iterable[Comparison]) -> str:
    """The ratios; below 1 we need less."""
    head = ("work", "lamina ÷ …", "time", "CPU", "memory", "scale")
    rows = [
        (
            f"{one.work}, {one.ours}",
            one.other,
            ratio(one.wall),
            ratio(one.cpu),
            ratio(one.memory),
            f"{seconds(one.our_seconds)} ÷ {seconds(one.others_seconds)}",
        )
        for one in found
    ]
    return table(head, rows)


def ratio(value: float) -> str:
    """Two digits that matter."""
    return f"{value:.2f}" if value < 10 else f"{value:.0f}"


def seconds(value: float) -> str:
    """In a unit that fits."""
    if value < 0.001:
        return f"{value * 1e6:.0f} µs"
    return f"{value * 1e3:.0f} ms" if value < 1 else f"{value:.1f} s"


def _is_words(cells: Iterable[str]) -> bool:
    return any(not cell[:1].isdigit() for cell in cells if cell)


def _line(cells: Sequence[str], widths: Sequence[int], words: Sequence[bool]) -> str:
    padded = (
        cell.ljust(width) if left else cell.rjust(width) for cell, width, left in zip(cells, widths, words, strict=True)
    )
    return f"| {' | '.join(padded)} |"


def _rule(widths: Sequence[int], words: Sequence[bool]) -> str:
    rules = ("-" * width if left else "-" * (width - 1) + ":" for width, left in zip(widths, words, strict=True))
    return f"| {' | '.join(rules)} |"
