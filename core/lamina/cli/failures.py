"""The one place where errors become a line on stderr and an exit code."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import sys
import traceback
from collections.abc import Callable, Iterable

import click

from lamina.cli.output import escape
from lamina.errors import LaminaError, NoSpace, StoreBroken

INTERRUPTED = 130  # as a shell reports SIGINT
PIPE_CLOSED = 141  # SIGPIPE
TERMINATED = 143  # SIGTERM
BUG = 70  # EX_SOFTWARE of sysexits.h

_FULL = {errno.ENOSPC, errno.EDQUOT}


class Terminated(BaseException):
    """Somebody sent SIGTERM. Not a KeyboardInterrupt, which click would turn into something else."""


_CODES: dict[type[BaseException], int] = {  # the first that fits
    Terminated: TERMINATED,
    KeyboardInterrupt: INTERRUPTED,
    click.Abort: INTERRUPTED,
    BrokenPipeError: PIPE_CLOSED,
    sqlite3.Error: StoreBroken.exit_code,
    OSError: LaminaError.exit_code,
}


def exit_code(error: BaseException) -> int:
    """The number that this error ends the command with."""
    if isinstance(error, (LaminaError, click.ClickException)):
        return error.exit_code
    if isinstance(error, OSError) and error.errno in _FULL:
        return NoSpace.exit_code
    return next((code for kind, code in _CODES.items() if isinstance(error, kind)), BUG)


def report(error: BaseException, *, debug: bool) -> int:
    """Say it on stderr, in one line, or with the whole traceback under `debug`; the exit code."""
    if debug and not isinstance(error, click.ClickException):
        traceback.print_exception(error)
    elif line := _line(error):
        with contextlib.suppress(OSError):  # stderr may be gone as well
            sys.stderr.write(f"lamina: {line}\n")
    if isinstance(error, BrokenPipeError) or _is_closed(error):
        _forget_stdout()
    return exit_code(error)


def each(names: Iterable[str], action: Callable[[str], None], *, debug: bool) -> None:
    """Do it for every name; one that fails is reported, and the others still get their turn.

    Ends the command with the code of the first that failed.
    """
    codes = []
    for name in names:
        try:
            action(name)
        except (LaminaError, OSError) as error:
            if isinstance(error, BrokenPipeError):
                raise
            codes.append(report(error, debug=debug))
    if codes:
        raise click.exceptions.Exit(codes[0])


def _line(error: BaseException) -> str | None:
    if isinstance(error, BrokenPipeError):
        return None  # whoever read us has seen enough
    if isinstance(error, Terminated):
        return "terminated"
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        return "interrupted"
    return escape("; ".join(line.strip() for line in _message(error).splitlines() if line.strip()))


def _message(error: BaseException) -> str:
    if isinstance(error, click.UsageError) and error.ctx is not None:
        return f"{error.format_message()} (see `{error.ctx.command_path} --help`)"
    if isinstance(error, click.ClickException):
        return error.format_message()
    if isinstance(error, LaminaError):
        return str(error) or type(error).__name__
    if isinstance(error, sqlite3.Error):
        return f"the database of the store: {error}"
    if isinstance(error, OSError):
        names = (
            ["stdout"]
            if _is_closed(error)
            else [os.fsdecode(name) for name in (error.filename, error.filename2) if name is not None]
        )
        return ": ".join([*names, error.strerror or str(error)])
    return f"a bug in lamina: {type(error).__name__}: {error}; run again with --debug for where"


def _is_closed(error: BaseException) -> bool:
    """Whether there is no stdout to write to (see stdstreams.py): nothing else of ours meets a closed descriptor."""
    return isinstance(error, OSError) and error.errno == errno.EBADF and error.filename is None


def _forget_stdout() -> None:
    """Nothing that is still buffered is written into the closed pipe when the interpreter ends."""
    with contextlib.suppress(OSError, ValueError):
        void = os.open(os.devnull, os.O_WRONLY)
        os.dup2(void, sys.stdout.fileno())
