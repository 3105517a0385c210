"""Being with a container that runs: exec, attach, logs."""

from __future__ import annotations

import sys
from typing import Any

import click

from lamina.cli import complete
from lamina.cli.running import as_docker, detach_keys, proxy, stay
from lamina.cli.session import Session, pass_session
from lamina.errors import CannotRun


@click.command("exec", context_settings={"allow_interspersed_args": False})
@click.option("-i", "--interactive", is_flag=True, help="Our stdin is its stdin.")
@click.option("-t", "--tty", is_flag=True, help="It has a terminal.")
@click.option("-d", "--detach", is_flag=True, help="Leave it running.")
@click.option("-e", "--env", "environment", metavar="NAME[=VALUE]", multiple=True, help="Set a variable.")
@click.option("-w", "--workdir", default="", help="Where it runs.")
@click.option("-u", "--user", default="", metavar="USER[:GROUP]", help="Who it is, by name or number.")
@click.option("--privileged", is_flag=True, help="With all privileges.")
@detach_keys
@click.argument("container", shell_complete=complete.containers)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@pass_session
def exec_(session: Session, /, container: str, keys: str | None, *, detach: bool, **given: Any) -> None:
    """Run another command in a container that runs. Exits as the command does."""
    from lamina.containers.executing import Command, execute, execute_detached  # noqa: PLC0415
    from lamina.containers.terminals import USUAL_KEYS, parse_keys  # noqa: PLC0415

    with as_docker(session), session.engine() as engine:
        if given["tty"] and given["interactive"] and not detach and not sys.stdin.isatty():
            raise CannotRun("the input device is not a TTY")
        command = Command(
            given.pop("command"),
            terminal=given.pop("tty"),
            keys=parse_keys(USUAL_KEYS if keys is None else keys),
            **given,
        )
        if detach:
            execute_detached(engine, container, command)
            return
        code = execute(engine, container, command)
    raise click.exceptions.Exit(code or 0)


@click.command
@click.argument("container", shell_complete=complete.containers)
@detach_keys
@proxy
@pass_session
def attach(session: Session, container: str, keys: str | None, *, sig_proxy: bool) -> None:
    """Join a container that runs: see what it writes from now on, and type to it. Exits as it does."""
    from lamina.containers.terminals import USUAL_KEYS, parse_keys  # noqa: PLC0415

    with session.engine() as engine:
        taken = parse_keys(USUAL_KEYS if keys is None else keys)
        found = engine.running(container)
        with engine.attach(container) as line:
            code = stay(engine, found, line, keys=taken, proxy=sig_proxy)
    raise click.exceptions.Exit(code)


@click.command
@click.argument("container", shell_complete=complete.containers)
@click.option("-f", "--follow", is_flag=True, help="Go on until it ends.")
@click.option("-n", "--tail", default="all", metavar="LINES", help="Only so many from the end.")
@click.option("-t", "--timestamps", is_flag=True, help="When each line was written.")
@pass_session
def logs(session: Session, container: str, tail: str, *, follow: bool, timestamps: bool) -> None:
    """Show what a container has written."""
    from lamina.containers.joints import ended  # noqa: PLC0415
    from lamina.containers.logs import follow_log, read_log  # noqa: PLC0415

    if tail != "all" and not tail.isdecimal():
        raise click.UsageError(f"--tail {tail!r} is neither a number nor all")
    count = None if tail == "all" else int(tail)
    with session.engine() as engine:
        found = engine.find(container)
        log = engine.room(found).log
        if not log.exists():
            return
        lines = follow_log(log, ended(engine, found.id), tail=count) if follow else read_log(log, tail=count)
        begun = False
        for line in lines:
            stream = sys.stderr if line.error else sys.stdout
            if timestamps and not begun:
                stream.buffer.write(line.time.encode() + b" ")
            stream.buffer.write(line.text)
            stream.flush()
            begun = not line.text.endswith(b"\n")
