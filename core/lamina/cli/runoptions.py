"""The options of `run` and `create`, which are the same."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from lamina.cli.options import parse_labels
from lamina.cli.session import Session
from lamina.errors import BadRequest, ConfigError

_WHEN = ("missing", "always", "never")
_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option("-i", "--interactive", is_flag=True, help="Our stdin is its stdin."),
    click.option("-t", "--tty", is_flag=True, help="It has a terminal."),
    click.option("--name", help="How it is called; by default something that can be remembered."),
    click.option("--rm", "remove", is_flag=True, help="Remove it when it has ended."),
    click.option("-e", "--env", "environment", metavar="NAME[=VALUE]", multiple=True, help="Set a variable."),
    click.option("--env-file", "env_files", metavar="FILE", multiple=True, help="Set those in a file, one a line."),
    click.option(
        "-v",
        "--volume",
        "volumes",
        metavar="[SOURCE:]TARGET[:ro]",
        multiple=True,
        help="A volume, or a place of this machine.",
    ),
    click.option("-w", "--workdir", default="", help="Where its command runs."),
    click.option("-u", "--user", default="", metavar="USER[:GROUP]", help="Who it is, by name or number."),
    click.option("--entrypoint", help="Instead of the image's; empty for none."),
    click.option("--network", "--net", metavar="none|host", help="None of its own, or the host's.  [none]"),
    click.option("--read-only", is_flag=True, help="Its own tree is read-only."),
    click.option("-h", "--hostname", default="", help="What it is called within."),
    click.option("-m", "--memory", metavar="SIZE", help="A limit of memory, such as 512m."),
    click.option("--cpus", type=float, default=0.0, help="A limit of processors, such as 1.5."),
    click.option("--pids-limit", "pids", type=int, default=0, help="A limit of processes."),
    click.option("--cap-add", metavar="NAME", multiple=True, help="One more privilege of root, or ALL."),
    click.option("--cap-drop", metavar="NAME", multiple=True, help="One less, or ALL."),
    click.option("--privileged", is_flag=True, help="All privileges, all devices, nothing hidden."),
    click.option("--security-opt", "security", metavar="WORD", multiple=True, help="no-new-privileges, seccomp=…"),
    click.option("-l", "--label", "labels", metavar="KEY=VALUE", multiple=True, help="A label."),
    click.option("--platform", metavar="OS/ARCH", help="Which image of an index to take; this machine's by default."),
    click.option("--pull", type=click.Choice(_WHEN), default="missing", show_default=True, help="When to pull IMAGE."),
    click.option("-q", "--quiet", is_flag=True, help="No progress, nothing of a pull."),
    click.argument("image"),
    click.argument("command", nargs=-1, type=click.UNPROCESSED),
)
CONTEXT = {"allow_interspersed_args": False, "help_option_names": ["--help"]}


def run_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give them to a command, in this order."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def read(session: Session, given: dict[str, Any]) -> Any:
    """`Options`, from what click has parsed."""
    from lamina.config import parse_size  # noqa: PLC0415
    from lamina.containers.opening import usual_network  # noqa: PLC0415
    from lamina.containers.options import Options  # noqa: PLC0415

    entrypoint = given["entrypoint"]
    try:
        memory = parse_size(given["memory"], "--memory") if given["memory"] else 0
    except ConfigError as error:
        raise BadRequest(str(error)) from None
    same = ("interactive", "remove", "volumes", "workdir", "user", "read_only", "hostname", "cpus", "pids")
    return Options(
        **{name: given[name] for name in (*same, "cap_add", "cap_drop", "privileged")},
        terminal=given["tty"],
        environment=(*_from_files(given["env_files"]), *given["environment"]),
        entrypoint=None if entrypoint is None else (entrypoint,) if entrypoint else (),
        network=given["network"] or usual_network(session.config().containers),
        memory=memory,
        labels=parse_labels(given["labels"]),
        **_security(given["security"]),
    ).checked()


def _security(words: tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for word in words:
        key, _, value = word.replace(":", "=", 1).partition("=")
        if key == "no-new-privileges" and value in {"", "true", "false"}:
            found["no_new_privileges"] = value != "false"
        elif key == "seccomp" and value:
            found["seccomp"] = value if value == "unconfined" else str(Path(value).absolute())
        else:
            raise BadRequest(f"--security-opt {shlex.quote(word)}: known are no-new-privileges and seccomp=FILE")
    return found


def _from_files(names: tuple[str, ...]) -> list[str]:
    lines = [line for name in names for line in Path(name).read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
