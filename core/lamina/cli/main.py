"""Arguments, config, and the one place where errors become exit codes."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import click

from lamina.cli import failures
from lamina.cli.lazy import LazyGroup
from lamina.cli.names import HERE, OF_CONTAINERS, OF_IMAGES
from lamina.cli.session import Session

COMPLETION = "_LAMINA_COMPLETE"  # set by the script that `lamina completion` prints
SECTIONS = {
    "Images": {
        "images": f"{HERE}.images:images",
        **OF_IMAGES,
        "rmi": f"{HERE}.images:rmi",
        "login": f"{HERE}.registries:login",
        "logout": f"{HERE}.registries:logout",
        "image": f"{HERE}.groups:image",
    },
    "Containers": {
        "ps": f"{HERE}.containers:ps",
        **OF_CONTAINERS,
        "container": f"{HERE}.groups:container",
        "volume": f"{HERE}.groups:volume",
    },
    "Both": {
        "inspect": f"{HERE}.inspect:inspect",
        "mount": f"{HERE}.mounting:mount",
        "umount": f"{HERE}.mounting:umount",
    },
    "Store": {
        "df": f"{HERE}.space:df",
        "prune": f"{HERE}.space:prune",
        "snapshot": f"{HERE}.snapshots:snapshot",
        "doctor": f"{HERE}.doctor:doctor",
    },
    "Engines": {"serve": f"{HERE}.serve:serve"},
    "Drivers": {
        "drivers": f"{HERE}.drivers:drivers",
        "conformance": f"{HERE}.drivers:conformance",
    },
    "Shell": {"completion": f"{HERE}.completion:completion"},
}


class Lamina(LazyGroup):
    """The outermost group; plugins may add to it."""

    _asked = False

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Ours, then those of plugins."""
        self._ask_plugins()
        return super().list_commands(ctx)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Plugins are asked only for a name that is not ours: they cost an import each."""
        found = super().get_command(ctx, cmd_name)
        if found is None and not self._asked:
            self._ask_plugins()
            return super().get_command(ctx, cmd_name)
        return found

    def _ask_plugins(self) -> None:
        if not self._asked:
            from lamina.cli.extensions import add_commands  # noqa: PLC0415

            self._asked = True
            add_commands(self)


def _show_version(ctx: click.Context, _: click.Parameter, value: bool) -> None:  # noqa: FBT001  # click calls it
    if value and not ctx.resilient_parsing:
        from importlib.metadata import version  # noqa: PLC0415  # takes longer than most commands

        click.echo(f"lamina {version('lamina')}")
        ctx.exit()


def _named(_ctx: click.Context, parameter: click.Parameter, value: str | None) -> Path | None:
    """A variable that was not set must not mean the current directory."""
    if value == "":
        raise click.BadParameter("an empty name", param=parameter)
    return None if value is None else Path(value)


@click.group(cls=Lamina, sections=SECTIONS, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--config", "config_file", type=click.Path(), callback=_named, help="The config file  [LAMINA_CONFIG].")
@click.option("--root", type=click.Path(), callback=_named, help="Where the store lies  [LAMINA_ROOT].")
@click.option("--driver", help="The driver to use, or several with commas between, the best first  [LAMINA_DRIVER].")
@click.option("--debug", is_flag=True, envvar="LAMINA_DEBUG", help="Show where an error comes from  [LAMINA_DEBUG].")
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version, help="The version.")
@click.pass_context
def cli(ctx: click.Context, config_file: Path | None, root: Path | None, driver: str | None, *, debug: bool) -> None:
    """Keep the filesystems of containers: images in and out, layers mounted, changes committed."""
    ctx.obj = Session(config_file, root, driver, debug)


def run(argv: Sequence[str]) -> int:
    """Run one command; its exit code. Never raises."""
    debug = "--debug" in argv or os.environ.get("LAMINA_DEBUG", "") not in {"", "0"}
    try:
        # not cli.main(): that has ideas of its own about interrupts and closed pipes
        with cli.make_context("lamina", list(argv)) as context:
            status = cli.invoke(context)
        sys.stdout.flush()
    except click.exceptions.Exit as done:
        return done.exit_code
    except BaseException as error:  # noqa: BLE001  # the last line of defence, by design
        return failures.report(error, debug=debug)
    return status if isinstance(status, int) else 0


def _terminate(_signum: int, _frame: object) -> NoReturn:
    raise failures.Terminated


def main() -> NoReturn:
    """The program `lamina`."""
    if None in (sys.stdin, sys.stdout, sys.stderr):
        from lamina.cli.stdstreams import reopen_closed  # noqa: PLC0415  # hardly ever needed

        reopen_closed()
    signal.signal(signal.SIGTERM, _terminate)  # a `with` is left as by Ctrl-C, so nothing stays mounted
    if COMPLETION in os.environ:
        cli.main(prog_name="lamina", complete_var=COMPLETION)
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
