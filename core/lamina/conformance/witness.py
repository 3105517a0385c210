"""What a tree holds, seen by eyes of its own: none of lamina's code takes part."""

from __future__ import annotations

import hashlib
import os
import stat
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import attrs

Manifest = Mapping[bytes, "Seen"]

# The host's security module labels files by itself; such a label is no part of a tree.
_THE_HOSTS_OWN = {"security.selinux", "security.ima", "security.evm", "security.apparmor"}


@attrs.frozen
class Seen:
    """One entry of a tree, as stat(2), read(2), readlink(2) and getxattr(2) tell it."""

    type: int
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    size: int = 0
    rdev: int = 0
    target: bytes = b""
    content: str = ""
    xattrs: Mapping[str, bytes] = attrs.field(factory=dict)
    links: tuple[bytes, ...] = ()  # every name of the same inode, if there are several


def manifest(root: Path | int) -> dict[bytes, Seen]:
    """Every entry below `root` by its relative path, and the root itself as `b""`."""
    top = os.open(root, os.O_RDONLY | os.O_DIRECTORY) if isinstance(root, Path) else os.dup(root)
    found: dict[bytes, Seen] = {}
    names: dict[tuple[int, int], list[bytes]] = defaultdict(list)
    try:
        found[b""] = _see(top, b".", os.stat(top))
        for path, directory, status in walk(top, b""):
            found[path] = _see(directory, os.path.basename(path), status)
            if not stat.S_ISDIR(status.st_mode):
                names[status.st_dev, status.st_ino].append(path)
    finally:
        os.close(top)
    for group in names.values():
        for path in group if len(group) > 1 else ():
            found[path] = attrs.evolve(found[path], links=tuple(sorted(group)))
    return found


def walk(directory: int, prefix: bytes = b"") -> Iterator[tuple[bytes, int, os.stat_result]]:
    """Every entry below the open directory: its path, the open directory it lies in, its lstat. Parents come first."""
    # relative to descriptors, since a tree may be deeper than PATH_MAX
    for name in sorted(os.fsencode(entry) for entry in os.listdir(directory)):
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        yield prefix + name, directory, status
        if stat.S_ISDIR(status.st_mode):
            inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
            try:
                yield from walk(inner, prefix + name + b"/")
            finally:
                os.close(inner)


def _see(directory: int, name: bytes, status: os.stat_result) -> Seen:
    kind = stat.S_IFMT(status.st_mode)
    return Seen(
        type=kind,
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        mtime_ns=status.st_mtime_ns,
        size=status.st_size if kind == stat.S_IFREG else 0,
        rdev=status.st_rdev if kind in (stat.S_IFCHR, stat.S_IFBLK) else 0,
        target=os.readlink(name, dir_fd=directory) if kind == stat.S_IFLNK else b"",
        content=_digest(directory, name) if kind == stat.S_IFREG else "",
        xattrs=_xattrs(directory, name),
    )


def _digest(directory: int, name: bytes) -> str:
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=directory)
    with os.fdopen(fd, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _xattrs(directory: int, name: bytes) -> dict[str, bytes]:
    place = b"/proc/self/fd/%d/%s" % (directory, name)
    listed = sorted(set(os.listxattr(place, follow_symlinks=False)) - _THE_HOSTS_OWN)
    return {key: os.getxattr(place, key, follow_symlinks=False) for key in listed}


def differences(wanted: Manifest, got: Manifest, *, ignoring: Iterable[str] = ()) -> list[str]:
    """One line for each way in which `got` is not what was `wanted`; fields named in `ignoring` may differ."""
    dull = set(ignoring)
    told = [f"{path!r} is missing" for path in sorted(wanted.keys() - got.keys())]
    told += [f"{path!r} should not be there" for path in sorted(got.keys() - wanted.keys())]
    for path in sorted(wanted.keys() & got.keys()):
        told += [
            f"{path!r}: {field.name} is {_short(getattr(got[path], field.name))}, "
            f"not {_short(getattr(wanted[path], field.name))}"
            for field in attrs.fields(Seen)
            if field.name not in dull and getattr(got[path], field.name) != getattr(wanted[path], field.name)
        ]
    return told


def _short(value: object) -> str:
    told = repr(value)
    return told if len(told) <= 200 else f"{told[:160]}… ({len(told)} characters)"


def assert_same(wanted: Manifest, got: Manifest, *, ignoring: Iterable[str] = ()) -> None:
    """The two trees are equal, or an AssertionError says in which ways they are not."""
    told = differences(wanted, got, ignoring=ignoring)
    if told:
        more = f"\n… and {len(told) - 20} more" if len(told) > 20 else ""
        raise AssertionError("the trees differ:\n" + "\n".join(told[:20]) + more)


def undated(tree: Manifest) -> Manifest:
    """The same tree, with directories that all have one time."""
    return {
        path: attrs.evolve(entry, mtime_ns=0) if entry.type == stat.S_IFDIR else entry for path, entry in tree.items()
    }


def in_whole_seconds(tree: Manifest) -> Manifest:
    """The same tree, without the fractions of its times."""
    return {path: attrs.evolve(entry, mtime_ns=entry.mtime_ns // 10**9 * 10**9) for path, entry in tree.items()}


def expected_changes(old: Manifest, new: Manifest) -> list[tuple[str, bytes]]:
    """The canonical diff of two trees by definition: sorted `(letter, path)`, removals without what was inside."""
    kinds: dict[bytes, str] = {}
    for path in old.keys() | new.keys():
        if path in new and (path not in old or not _equal(old[path], new[path])):
            kinds[path] = "C" if path in old else "A"
        elif path not in new and _vanished_by_itself(path, new):
            kinds[path] = "D"
    for path in list(kinds):
        if path in new and kinds[path] != "D":
            # a hard link is kept only if all names of the file travel together
            kinds.update({name: "C" for name in new[path].links if name not in kinds})
    for path in list(kinds):
        for above in _ancestors(path):
            kinds.setdefault(above, "C" if above in old else "A")
    return [(kinds[path], path) for path in sorted(kinds, key=lambda path: path.split(b"/"))]


def _equal(old: Seen, new: Seen) -> bool:
    return attrs.evolve(old, links=()) == attrs.evolve(new, links=())


def _vanished_by_itself(path: bytes, new: Manifest) -> bool:
    # what was inside a vanished directory goes without saying
    above = os.path.dirname(path)
    return above in new and new[above].type == stat.S_IFDIR


def _ancestors(path: bytes) -> Iterator[bytes]:
    while path := os.path.dirname(path):
        yield path
