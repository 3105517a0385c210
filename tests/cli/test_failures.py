"""Every way to fail ends in one line on stderr and a number that a script can rely on."""

from __future__ import annotations

import errno
import sqlite3
from pathlib import Path

import click
import pytest
from desk import Desk

from lamina import errors
from lamina.cli import failures


def _all_errors(kind: type[errors.LaminaError] = errors.LaminaError) -> list[type[errors.LaminaError]]:
    return [kind, *(each for below in kind.__subclasses__() for each in _all_errors(below))]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.NotFound("no image 'x'"), 4),
        (errors.InUse("busy"), 6),
        (click.UsageError("no such option"), 2),
        (OSError(errno.ENOSPC, "No space left on device"), 14),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), 1),
        (sqlite3.DatabaseError("file is not a database"), 13),
        (KeyboardInterrupt(), 130),
        (click.Abort(), 130),
        (failures.Terminated(), 143),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 141),
        (ZeroDivisionError("division by zero"), 70),
    ],
)
def test_each_error_has_its_exit_code(error: BaseException, code: int) -> None:
    assert failures.exit_code(error) == code


def test_every_error_of_ours_has_a_code_that_no_shell_uses_but_for_commands_that_never_ran() -> None:
    codes = {kind: kind.exit_code for kind in _all_errors()}

    assert {kind for kind, code in codes.items() if not 0 < code < 125} == {
        errors.CannotRun,
        errors.CommandRefused,
        errors.CommandNotFound,
    }


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (errors.NotFound("no image 'x'"), "lamina: no image 'x'\n"),
        (errors.ProgramFailed(["zfs", "list"], 1, "first\nsecond\n"), "lamina: zfs list: status 1: first; second\n"),
        (errors.NotFound("\x1b[31m"), "lamina: \\x1b[31m\n"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), "lamina: /x: Permission denied\n"),
        (
            OSError(errno.EXDEV, "Invalid cross-device link", b"/\xff", None, "/b"),
            "lamina: /\\xff: /b: Invalid cross-device link\n",
        ),
        (KeyboardInterrupt(), "lamina: interrupted\n"),
    ],
)
def test_each_error_is_one_line_on_stderr(error: BaseException, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    failures.report(error, debug=False)

    told = capsys.readouterr()
    assert told.err == line
    assert told.out == ""


def test_debug_shows_where_it_comes_from(capsys: pytest.CaptureFixture[str]) -> None:
    failures.report(errors.NotFound("no image 'x'"), debug=True)

    assert "lamina.errors.NotFound: no image 'x'" in capsys.readouterr().err


def test_one_name_that_fails_does_not_keep_the_others_from_their_turn(capsys: pytest.CaptureFixture[str]) -> None:
    done: list[str] = []

    def act(name: str) -> None:
        if name == "bad":
            raise errors.InUse("bad is busy")
        done.append(name)

    with pytest.raises(click.exceptions.Exit) as ended:
        failures.each(["one", "bad", "two"], act, debug=False)

    assert done == ["one", "two"]
    assert ended.value.exit_code == errors.InUse.exit_code
    assert capsys.readouterr().err == "lamina: bad is busy\n"


@pytest.mark.parametrize("argv", [["--root", "", "images"], ["--config", "", "images"], ["cp", "", "box:/"]], ids=str)
def test_a_name_that_is_empty_does_not_mean_the_current_directory(busy_desk: Desk, argv: list[str]) -> None:
    code, why = busy_desk.fails(*argv)

    assert code == 2
    assert "an empty name" in why


@pytest.mark.parametrize("argv", [["images"], ["ps"], ["load", "-i", "ARCHIVE"]], ids=str)
def test_a_root_that_is_no_directory_is_no_empty_store(desk: Desk, archive: Path, argv: list[str]) -> None:
    (desk.path / "file").write_text("mine")

    code, why = desk.fails("--root", "file", *(str(archive) if word == "ARCHIVE" else word for word in argv))

    assert code in {2, 8}
    assert why.endswith("choose another root")
    assert (desk.path / "file").read_text() == "mine"
