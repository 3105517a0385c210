"""What a shell offers after TAB: names of images, containers, snapshots, drivers."""

from __future__ import annotations

from collections.abc import Iterable

import click

from lamina.cli.session import Session


def images(ctx: click.Context, _: click.Parameter, typed: str) -> list[str]:
    """Names of images that begin so."""
    try:
        from lamina.images.listing import list_images  # noqa: PLC0415

        return _beginning(typed, (name for image in list_images(_session(ctx).place()) for name in image.names))
    except Exception:  # noqa: BLE001  # a traceback on the prompt helps nobody
        return []


def containers(ctx: click.Context, _: click.Parameter, typed: str) -> list[str]:
    """Names of containers that begin so."""
    try:
        from lamina.containers.listing import list_containers  # noqa: PLC0415

        return _beginning(typed, (container.name for container in list_containers(_session(ctx).place())))
    except Exception:  # noqa: BLE001
        return []


def volumes(ctx: click.Context, _: click.Parameter, typed: str) -> list[str]:
    """Names of volumes that begin so."""
    try:
        from lamina.containers.volumestore import Volumes  # noqa: PLC0415

        return _beginning(typed, (known.name for known in Volumes(_session(ctx).place() / "volumes").list()))
    except Exception:  # noqa: BLE001
        return []


def either(ctx: click.Context, parameter: click.Parameter, typed: str) -> list[str]:
    """Names of containers and images."""
    return [*containers(ctx, parameter, typed), *images(ctx, parameter, typed)]


def snapshots(ctx: click.Context, _: click.Parameter, typed: str) -> list[str]:
    """Names of snapshots that begin so."""
    try:
        with _session(ctx).snapshots() as store:
            return _beginning(typed, (snapshot.name for snapshot in store.list()))
    except Exception:  # noqa: BLE001
        return []


def drivers(_ctx: click.Context, _: click.Parameter, typed: str) -> list[str]:
    """Names of installed drivers that begin so."""
    from lamina.plugins import installed  # noqa: PLC0415

    return _beginning(typed, installed())


def _session(ctx: click.Context) -> Session:
    """The global options as far as they are typed already."""
    values = ctx.find_root().params
    return Session(values.get("config_file"), values.get("root"), values.get("driver"))


def _beginning(typed: str, names: Iterable[str]) -> list[str]:
    return sorted({name for name in names if name.startswith(typed)})
