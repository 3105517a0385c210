"""Volumes and the containers that have them: made and filled for a new one, let go of with the last."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from lamina.containers.options import Options
from lamina.containers.places import inside, means_contents
from lamina.containers.volumes import Volume, target_of
from lamina.containers.volumestore import Volumes
from lamina.errors import InUse, NotFound
from lamina.trees import measure_tree

if TYPE_CHECKING:
    from lamina.containers.container import Container
    from lamina.containers.store import Containers


def wanted(settings: Mapping[str, Any], options: Options) -> tuple[Volume, ...]:
    """The volumes of a container: those that were asked for, and for each `VOLUME` of its image one without a name."""
    asked = options.mounts()
    taken = {volume.target for volume in asked}
    of_image = dict.fromkeys(target_of(path, "VOLUME of the image") for path in settings.get("Volumes") or ())
    ours = [Volume("", target, anonymous=True) for target in of_image if target not in taken]
    return (*(volume for volume in asked if not volume.source), *ours)


@contextlib.contextmanager
def added(containers: Containers, container: Container) -> Iterator[Container]:
    """It has its volumes; nobody takes them away until the block has noted it; if that fails, no nameless ones stay."""
    asked = wanted(container.settings, container.options)
    if not asked:
        yield container
        return
    volumes = containers.volumes
    with volumes.held():
        used = {volume.name for other in containers.list() for volume in other.volumes}
        attached = _made(volumes, asked)
        try:
            with containers.snapshots.look(container.snapshot) as root:
                for volume in attached:
                    if volume.copied and volume.name not in used:
                        _fill(volumes, volume, root)
            yield attrs.evolve(container, volumes=attached)
        except BaseException:
            _forget(volumes, attached)
            raise


def remove(containers: Containers, name: str, *, force: bool = False) -> None:
    """The volume is gone with all that is in it. InUse while a container has it; NotFound, unless `force`."""
    with containers.volumes.held(alone=True):
        try:
            containers.volumes.find(name)
        except NotFound:
            if force:
                return
            raise
        users = [each for each in containers.list() if any(volume.name == name for volume in each.volumes)]
        if users:
            named = ", ".join(f"{each.short_id} ({each.name})" for each in users)
            raise InUse(f"volume {name!r} is used by container {named}; remove that first")
        containers.volumes.remove(name)


def prune(containers: Containers, *, everything: bool = False) -> tuple[tuple[str, ...], int]:
    """Volumes without a name that no container has are gone, with `everything` also those with one.

    Which they were, and the bytes that this freed.
    """
    gone, freed = [], 0
    with containers.volumes.held(alone=True):
        used = {volume.name for container in containers.list() for volume in container.volumes}
        for known in containers.volumes.list():
            if known.name not in used and (known.anonymous or everything):
                freed += measure_tree(containers.volumes.data(known.name)).size
                containers.volumes.remove(known.name)
                gone.append(known.name)
    return tuple(gone), freed


def _made(volumes: Volumes, asked: Sequence[Volume]) -> tuple[Volume, ...]:
    done: list[Volume] = []
    try:
        for volume in asked:
            done.append(attrs.evolve(volume, name=volumes.make(volume.name or None).name))  # noqa: PERF401  # half of it counts
    except BaseException:
        _forget(volumes, done)
        raise
    return tuple(done)


def _forget(volumes: Volumes, attached: Iterable[Volume]) -> None:
    for volume in attached:
        if volume.anonymous:
            volumes.remove(volume.name)


def _fill(volumes: Volumes, volume: Volume, root: Path) -> None:
    """What the tree at `root` has where an empty volume will be is in that volume."""
    from lamina.copying import copy_tree  # noqa: PLC0415  # most containers have no volume

    if (source := _directory(root, volume.target)) is not None:
        volumes.fill(volume.name, lambda part: copy_tree(source, part))


def _directory(root: Path, path: str) -> Path | None:
    """Where a directory of the tree lies. It stays there, since nobody but us sees this tree."""
    flags = os.O_PATH | os.O_DIRECTORY
    try:
        with inside(root) as tree, tree.opened(os.fsencode(path), flags) as directory:
            return Path(os.readlink(f"/proc/self/fd/{directory}"))
    except (FileNotFoundError, NotADirectoryError):
        return None


def bound(volumes: Volumes, container: Container) -> tuple[Volume, ...]:
    """All that is mounted in it, each with its place on this machine. NotFound if a volume was taken away."""
    return (
        *(volume for volume in container.options.mounts() if volume.source),
        *(attrs.evolve(volume, source=str(_data(volumes, volume.name))) for volume in container.volumes),
    )


def _data(volumes: Volumes, name: str) -> Path:
    volumes.find(name)
    return volumes.data(name)


def within(bounds: Iterable[Volume], path: bytes) -> tuple[Volume, bytes] | None:
    """In which of them a path of the container lies, as it is written, and its path in that; None: in none."""
    whole = os.path.normpath(b"/" + path.lstrip(b"/"))
    directories = (each for each in bounds if os.path.isdir(each.source))
    for volume in sorted(directories, key=lambda each: -each.target.count("/")):
        top = os.fsencode(volume.target)
        if whole == top:
            return volume, b"/"
        if whole.startswith(top + b"/"):
            return volume, whole[len(top) :] + (b"/." if means_contents(path) else b"/" if path.endswith(b"/") else b"")
    return None


def mounts_document(volumes: Volumes, container: Container) -> list[dict[str, Any]]:
    """As docker's inspect tells them."""
    binds = [
        {"Type": "bind", "Source": each.source, "Propagation": each.propagation, **_common(each)}
        for each in container.options.mounts()
        if each.source
    ]
    ours = []
    for each in container.volumes:
        place = {"Type": "volume", "Name": each.name, "Source": str(volumes.data(each.name)), "Driver": "local"}
        ours.append({**place, "Propagation": "", **_common(each)})
    return [*binds, *ours]


def _common(volume: Volume) -> dict[str, Any]:
    return {"Destination": volume.target, "Mode": "" if volume.writable else "ro", "RW": volume.writable}
