"""Scripts that teach a shell to complete our commands."""

from __future__ import annotations

import click


@click.command
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script for SHELL; for bash: `. <(lamina completion bash)`."""
    from click.shell_completion import get_completion_class  # noqa: PLC0415

    from lamina.cli.main import COMPLETION, cli  # noqa: PLC0415  # main imports us by name

    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101  # click has all three
    click.echo(kind(cli, {}, "lamina", COMPLETION).source())
