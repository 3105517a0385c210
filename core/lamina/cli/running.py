"""Containers that are made and run: run, create, start."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any

import click

from lamina.cli import complete, failures
from lamina.cli.output import escape
from lamina.cli.progress import shown
from lamina.cli.registries import bring
from lamina.cli.runoptions import CONTEXT, read, run_options
from lamina.cli.session import Session, pass_session
from lamina.errors import CannotRun, LaminaError, NotFound
from lamina.images.platforms import fits
from lamina.images.reference import is_digest, parse

if TYPE_CHECKING:
    from lamina.containers.container import Container
    from lamina.containers.engine import Engine
    from lamina.images.store import Images

detach_keys = click.option("--detach-keys", "keys", metavar="KEYS", help="To let go of it.  [ctrl-p,ctrl-q]")
proxy = click.option("--sig-proxy/--no-sig-proxy", default=True, help="Hand our signals on to it.")


@click.command(context_settings=CONTEXT)
@click.option("-d", "--detach", is_flag=True, help="Leave it running, and print its ID.")
@detach_keys
@proxy
@run_options
@pass_session
def run(session: Session, /, keys: str | None, *, detach: bool, sig_proxy: bool, **given: Any) -> None:
    """Run a command in a new container. Exits as the command does; 125, 126 and 127 mean that it was never run."""
    from lamina.containers.terminals import USUAL_KEYS, parse_keys  # noqa: PLC0415

    with as_docker(session), session.both_and_engine() as (images, engine):
        taken = parse_keys(USUAL_KEYS if keys is None else keys)
        _refuse_no_terminal(given, detach=detach)
        container = _create(session, images, engine, given)
        with _attended(engine, container, attached=not detach):
            try:
                line = engine.start(container.id, attached=not detach)
            except LaminaError:
                if container.options.remove:
                    engine.remove(container.id)
                raise
            if line is None:
                click.echo(container.id)
                return
            with line:
                code = stay(engine, container, line, keys=taken, proxy=sig_proxy)
    raise click.exceptions.Exit(code)


def _attended(engine: Engine, container: Container, *, attached: bool) -> contextlib.AbstractContextManager[None]:
    return engine.room(container).attended() if attached else contextlib.nullcontext()


@click.command(context_settings=CONTEXT)
@run_options
@pass_session
def create(session: Session, /, **given: Any) -> None:
    """Make a container: a writable layer on top of IMAGE. Nothing runs. Prints its ID."""
    with session.both_and_engine() as (images, engine):
        click.echo(_create(session, images, engine, given).id)


@click.command
@click.argument("names", nargs=-1, required=True, shell_complete=complete.containers)
@click.option("-a", "--attach", is_flag=True, help="Show what it writes, and hand our signals on.")
@click.option("-i", "--interactive", is_flag=True, help="Our stdin is its stdin.")
@detach_keys
@pass_session
def start(session: Session, names: tuple[str, ...], keys: str | None, *, attach: bool, interactive: bool) -> None:
    """Run containers that were created, or have ended. Prints each name as it was given."""
    if attach or interactive:
        _start_attached(session, names, keys)
    with session.engine() as engine:

        def begin(name: str) -> None:
            engine.start(name)
            click.echo(escape(name))

        failures.each(names, begin, debug=session.debug)


def _start_attached(session: Session, names: tuple[str, ...], keys: str | None) -> None:
    from lamina.containers.terminals import USUAL_KEYS, parse_keys  # noqa: PLC0415

    if len(names) != 1:
        raise click.UsageError("only one container can be attached to")
    with session.engine() as engine:
        taken = parse_keys(USUAL_KEYS if keys is None else keys)
        container = engine.find(names[0])
        with engine.room(container).attended():
            line = engine.start(container.id, attached=True)
            assert line is not None  # noqa: S101  # we asked for it
            with line:
                code = stay(engine, container, line, keys=taken, proxy=True)
    raise click.exceptions.Exit(code)


def stay(engine: Engine, container: Container, line: Any, *, keys: bytes, proxy: bool) -> int:
    """Until it ends, or the keys are typed; the exit code."""
    from lamina.containers.attaching import join  # noqa: PLC0415
    from lamina.containers.joints import streams  # noqa: PLC0415

    joined = streams(engine, container, interactive=True, keys=keys, proxy=proxy)
    with engine.room(container).watched():
        if not join(line, joined):
            return 0
        code = engine.wait(container.id)
    with contextlib.suppress(NotFound):  # its monitor may have been quicker, with --rm
        engine.finish(container.id)
    return code


def _create(session: Session, images: Images, engine: Engine, given: dict[str, Any]) -> Container:
    options = read(session, given)
    image = _at_hand(images, given["image"], given["pull"], given["platform"], quiet=given["quiet"])
    with shown(quiet=given["quiet"]) as progress:
        return engine.containers.create(
            image, name=given["name"], command=given["command"], options=options, progress=progress
        )


def _at_hand(images: Images, name: str, pull: str, platform: str | None, *, quiet: bool) -> str:
    """The name of an image that is here: what is missing or for another platform is pulled, with `always` anything."""
    if pull != "always":
        try:
            return _known(images, name, platform)
        except NotFound:
            if pull == "never" or _is_id(name):
                raise
        if not quiet:
            click.echo(f"Unable to find image '{escape(parse(name).tagged().familiar)}' locally", err=True)
    pulled = bring(images, name, platform=platform, quiet=quiet, err=True)[0].name
    _refuse_other(images, pulled, platform)  # a manifest that is in no index is for whatever it is for
    return name if parse(name).tagged().familiar == pulled else pulled  # `ps` shows what was typed, if it means that


def _refuse_other(images: Images, name: str, platform: str | None) -> None:
    image = images.find(name)
    if platform is not None and not fits(image.platform, platform):
        raise NotFound(f"{name}: the image is for {image.platform}, not for {platform}")


def _known(images: Images, name: str, platform: str | None) -> str:
    try:
        _refuse_other(images, name, platform)
    except NotFound:
        if _is_id(name):
            raise
        meant = images.full_name(name)  # reads the rules for short names, which most names need not
        _refuse_other(images, meant, platform)
        return meant
    return name


def _is_id(name: str) -> bool:
    """No registry knows images by their IDs."""
    return is_digest(name) or is_digest(f"sha256:{name}")


def _refuse_no_terminal(given: dict[str, Any], *, detach: bool) -> None:
    if given["tty"] and given["interactive"] and not detach and not sys.stdin.isatty():
        raise CannotRun("the input device is not a TTY")


@contextlib.contextmanager
def as_docker(session: Session) -> Any:
    """Our own failures have docker's code, so that they are not taken for the command's."""
    try:
        yield
    except LaminaError as error:
        code = failures.report(error, debug=session.debug)
        raise click.exceptions.Exit(code if isinstance(error, CannotRun) else CannotRun.exit_code) from error
