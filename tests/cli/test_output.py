"""What people see cannot be misread, by eye or by terminal."""

from __future__ import annotations

import json

import pytest

from lamina.cli.output import Column, escape, show_json, show_path, show_table
from lamina.cli.wording import duration, size


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0B"),
        (999, "999B"),
        (1000, "1kB"),
        (1_234, "1.23kB"),
        (999_499, "999kB"),
        (999_600, "1MB"),
        (4_270_000, "4.27MB"),
        (415_000_000, "415MB"),
        (3 * 10**18, "3EB"),
    ],
)
def test_a_size_has_three_digits_and_a_decimal_unit(count: int, words: str) -> None:
    assert size(count) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "Less than a second"),
        (1.5, "1 second"),
        (59, "59 seconds"),
        (60, "About a minute"),
        (150, "2 minutes"),
        (3600, "About an hour"),
        (7200, "2 hours"),
        (47 * 3600, "47 hours"),
        (3 * 86400, "3 days"),
        (20 * 86400, "2 weeks"),
        (90 * 86400, "3 months"),
        (3 * 365 * 86400, "3 years"),
        (-5, "Less than a second"),
    ],
)
def test_an_age_is_told_in_one_unit(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_a_name_cannot_play_tricks_on_a_terminal() -> None:
    assert escape("\x1b[31mred\x07\nnext\u202etxt.exe") == r"\x1b[31mred\x07\nnext\u202etxt.exe"


def test_text_in_any_language_is_left_alone() -> None:
    assert escape("Grüße, 世界 🐚") == "Grüße, 世界 🐚"


def test_every_path_is_shown_and_no_two_alike() -> None:
    paths = [b"/a", b"/\xff", rb"/\xff", b"/\n", rb"/\n", "/é".encode(), b"/\xe9"]

    shown = [show_path(path) for path in paths]

    assert shown == ["/a", r"/\xff", r"/\\xff", r"/\n", r"/\\n", "/é", r"/\xe9"]


def test_a_table_is_aligned_under_its_titles_as_docker_does_it(capsys: pytest.CaptureFixture[str]) -> None:
    columns: list[Column[tuple[str, str]]] = [Column("NAME", lambda row: row[0]), Column("X", lambda row: row[1])]

    show_table(columns, [("a", "1"), ("longer", "2")])

    assert capsys.readouterr().out == "NAME      X\na         1\nlonger    2\n"


def test_an_empty_table_still_has_its_titles(capsys: pytest.CaptureFixture[str]) -> None:
    columns: list[Column[str]] = [Column("NAME", str), Column("X", str)]

    show_table(columns, [])

    assert capsys.readouterr().out == "NAME      X\n"


def test_json_is_one_line_whatever_is_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    show_json({"name": "two\nlines\x1b"})

    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert json.loads(out) == {"name": "two\nlines\x1b"}
