"""What containerd's own suite for snapshotters asks of everybody, asked through the socket; mount(8) does the mounts.

One rule of it has no call on the wire: closing twice. An engine's client only lets go of its connection.
"""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pytest
from grounds import Ground
from lane import Client, Lane, refused
from mounting import Mounter

from lamina.containerd.api import snapshots_pb2 as api

pytestmark = [pytest.mark.needs_root, pytest.mark.on("all")]

Step = Callable[[Path], object]
DEEP: Final = 128
# each layer on zfs is a dozen runs of zfs, a fifth of a second; it mounts a clone however deep that lies, so what a
# chain could do to it shows in these, too
DEEP_IF_SLOW: Final = 24


@pytest.fixture
def ask(common: Lane) -> Iterator[Client]:
    with common.client() as client:
        yield client


@pytest.fixture
def there(standing: Ground) -> Mounter:
    """Mounts where the driver's own mounts are."""
    return Mounter(standing)


# small steps that fill a layer


def file(name: str, text: str = "", mode: int = 0o644) -> Step:
    def work(root: Path) -> None:
        (root / name).write_text(text)
        (root / name).chmod(mode)

    return work


def folder(name: str, mode: int = 0o700) -> Step:
    def work(root: Path) -> None:
        (root / name).mkdir()
        (root / name).chmod(mode)

    return work


def gone(name: str) -> Step:
    return lambda root: subprocess.run(["rm", "-r", root / name], check=True)


def owned(name: str, owner: int) -> Step:
    return lambda root: os.chown(root / name, owner, owner)


def moved(name: str, to: str) -> Step:
    # what comes from a lower directory is renamed where the driver can, and else copied, which mv does by itself
    return lambda root: subprocess.run(["mv", "-T", root / name, root / to], check=True)


def linked(name: str, to: str) -> Step:
    return lambda root: os.link(root / name, root / to)


def all_of(*steps: Step) -> Step:
    def work(root: Path) -> None:
        for step in steps:
            step(root)

    return work


def shape(root: Path) -> dict[str, tuple[Any, ...]]:
    """All that can be seen of a tree but its times."""
    found = {}
    for path in [root, *root.rglob("*")]:
        status = path.lstat()
        text = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        links = status.st_nlink if text else 0
        found[str(path.relative_to(root))] = (oct(status.st_mode), status.st_uid, status.st_gid, links, text)
    return found


HOSTS = all_of(
    folder("etc"), file("etc/hosts", "mydomain 10.0.0.1"), file("etc/profile", "PATH=/usr/bin"), file("old", "old")
)
OWNED = [step for name in ("opt", "opt/a", "opt/a/b", "opt/a/b/file") for step in (owned(name, 1),)]
RECIPES: dict[str, Sequence[Step]] = {
    "files are updated": [
        HOSTS,
        all_of(
            file("etc/hosts", "mydomain 10.0.0.2"),
            file("etc/profile", "PATH=/usr/bin", 0o666),
            folder("root"),
            file("root/.bashrc", "PATH=/usr/sbin:/usr/bin"),
        ),
    ],
    "a directory is removed and made again": [
        all_of(folder("lib"), file("lib/hidden")),
        all_of(gone("lib"), folder("lib"), file("lib/not-hidden")),
        file("lib/newfile"),
    ],
    "owners change": [
        all_of(folder("opt"), folder("opt/a"), folder("opt/a/b"), file("opt/a/b/file", "hello")),
        all_of(*OWNED),
    ],
    "owners of directories are committed": [
        all_of(
            *(all_of(folder(f"dir{number}"), owned(f"dir{number}", 1)) for number in (1, 2, 3, 5)),
            all_of(folder("dir4"), file("dir4/f1", "..."), file("dir5/f1", "..."), owned("dir5/f1", 1)),
        ),
        all_of(owned("dir2", 0), gone("dir3"), owned("dir4", 1), owned("dir4/f1", 1)),
        all_of(folder("dir3"), owned("dir3", 1), gone("dir5"), folder("dir5"), owned("dir5", 1)),
    ],
    "files are deleted": [all_of(file("foo", "foo\n"), file("foobar", "foobar\n")), gone("foobar"), all_of()],
    "files of a lower layer are moved": [
        all_of(folder("dir1"), file("dir1/f1", "Hello"), folder("dir2"), file("dir2/f2", "...")),
        all_of(folder("dir3"), file("dir3/f1", "Hello"), gone("dir1"), linked("dir2/f2", "dir3/f2"), gone("dir2/f2")),
    ],
    "files and directories are renamed": [
        all_of(folder("dir1"), folder("some"), file("some/f1", "was here first!"), file("some/f2", "of no interest")),
        all_of(
            moved("dir1", "dir2"),
            file("some/f1-new", "new content 1"),
            moved("some/f1-new", "some/f1"),
            moved("some/f2", "some/f3"),
        ),
    ],
}


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_layer_shows_what_a_plain_directory_would(
    ask: Client, there: Mounter, prefix: str, tmp_path: Path, recipe: str
) -> None:
    flat, parent = tmp_path / "flat", ""
    flat.mkdir(mode=0o755)
    for number, step in enumerate(RECIPES[recipe]):
        name = f"{prefix}{number}"
        there.grow(ask, name, parent, tmp_path / "place", step)
        step(flat)
        with there.mounted(ask("View", key=f"{name}-look", parent=name), tmp_path / "look") as root:
            assert shape(root) == shape(flat)
        parent = name


def test_a_layer_grows_is_committed_and_removed(ask: Client, there: Mounter, prefix: str, tmp_path: Path) -> None:
    one, two, look = (f"{prefix}{name}" for name in ("one", "two", "look"))
    there.grow(ask, one, "", tmp_path / "place", all_of(file("foo", "foo\n", 0o777), folder("a"), folder("a/b")))
    there.grow(ask, two, one, tmp_path / "place", all_of(file("bar", "bar\n"), file("foo", "bar\n"), gone("a/b")))

    told = {info.name: info for info in ask.list() if info.name.startswith(prefix)}

    assert told == {name: ask("Stat", key=name).info for name in (one, two)}
    assert [(info.kind, info.parent) for info in told.values()] == [(api.COMMITTED, ""), (api.COMMITTED, one)]
    refused("NOT_FOUND", ask, "Stat", key=f"{one}-key")
    with there.mounted(ask("View", key=look, parent=two), tmp_path / "look") as root:
        assert {path.name for path in root.iterdir()} == {"foo", "bar", "a"}
        with pytest.raises(OSError, match="Read-only"):
            (root / "three").touch()
    ask("Remove", key=look)
    assert "remove" in refused("FAILED_PRECONDITION", ask, "Remove", key=one)
    for name in (two, one):
        ask("Remove", key=name)


def test_a_snapshot_is_known_and_committed_also_while_it_is_mounted(
    ask: Client, there: Mounter, prefix: str, tmp_path: Path
) -> None:
    key, name = f"{prefix}key", f"{prefix}name"
    place = tmp_path / "place"
    root = there.mount(ask("Prepare", key=key), place)
    try:
        file("foo", "foo\n")(root)
        assert ask("Stat", key=key).info.kind == api.ACTIVE
        ask("Commit", name=name, key=key)
        assert ask("Stat", key=name).info.kind == api.COMMITTED
    finally:
        there.unmount(place)

    with there.mounted(ask("View", key=f"{prefix}look", parent=name), place) as root:
        assert (root / "foo").read_text() == "foo\n"


def test_a_child_is_committed_also_while_it_is_mounted(
    ask: Client, there: Mounter, prefix: str, tmp_path: Path
) -> None:
    base, key, name = (f"{prefix}{word}" for word in ("base", "key", "name"))
    there.grow(ask, base, "", tmp_path / "place", file("foo", "foo\n"))
    place = tmp_path / "place"
    root = there.mount(ask("Prepare", key=key, parent=base), place)
    try:
        file("foo", "changed\n")(root)
        ask("Commit", name=name, key=key)
    finally:
        there.unmount(place)

    with there.mounted(ask("View", key=f"{prefix}look", parent=name), place) as root:
        assert (root / "foo").read_text() == "changed\n"


def test_a_key_is_one_snapshots_alone_and_free_again_when_that_is_gone(ask: Client, prefix: str) -> None:
    base, key = f"{prefix}base", f"{prefix}key"
    ask("Prepare", key=key)
    ask("Commit", name=base, key=key)
    for first in ("Prepare", "View"):
        ask(first, key=key, parent=base)
        for second in ("Prepare", "View"):
            refused("ALREADY_EXISTS", ask, second, key=key, parent=base)
        ask("Remove", key=key)

    ask("Prepare", key=key)
    ask("Remove", key=base)
    ask("Commit", name=base, key=key)


def test_a_snapshot_in_the_middle_is_not_removed(ask: Client, prefix: str) -> None:
    names = [f"{prefix}{number}" for number in range(3)]
    parent = ""
    for name in names[:2]:
        ask("Prepare", key=f"{name}-key", parent=parent)
        ask("Commit", name=name, key=f"{name}-key")
        parent = name
    ask("Prepare", key=names[2], parent=parent)

    refused("FAILED_PRECONDITION", ask, "Remove", key=names[1])

    for name in reversed(names):
        ask("Remove", key=name)


def test_the_root_of_a_new_snapshot_can_be_entered_by_all(
    ask: Client, there: Mounter, prefix: str, tmp_path: Path
) -> None:
    with there.mounted(ask("Prepare", key=f"{prefix}key"), tmp_path / "place") as root:
        assert stat.S_IMODE(root.stat().st_mode) == 0o755


def deep(number: int) -> Step:
    if not number:
        return all_of(
            file("bottom", "way at the bottom\n"), folder("addhere"), folder("onlyme"), file("onlyme/bottom", "bye!\n")
        )
    return all_of(
        file("overwriteme", f"{number} was here\n"),
        file(f"addhere/file-{number}", "same\n"),
        gone("onlyme"),
        folder("onlyme"),
        file(f"onlyme/file-{number}", "only me!\n"),
    )


@pytest.mark.timeout(600)
def test_128_layers_are_mounted(ask: Client, there: Mounter, driver: str, prefix: str, tmp_path: Path) -> None:
    flat, parent = tmp_path / "flat", ""
    flat.mkdir(mode=0o755)
    for number in range(DEEP_IF_SLOW if driver == "zfs" else DEEP):
        there.grow(ask, f"{prefix}{number}", parent, tmp_path / "place", deep(number))
        deep(number)(flat)
        parent = f"{prefix}{number}"

    with there.mounted(ask("View", key=f"{prefix}look", parent=parent), tmp_path / "look") as root:
        assert shape(root) == shape(flat)
