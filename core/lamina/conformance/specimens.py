"""Trees worth keeping: every kind of entry, name and attribute that a layer may hold, made by plain system calls."""

from __future__ import annotations

import errno
import os
import random
import stat
import struct
from pathlib import Path
from typing import Any

import pytest

from lamina.conformance.caller import is_root
from lamina.conformance.harness import Edit
from lamina.conformance.marks import needs, needs_root
from lamina.driver import Ability

MINUTE = 60 * 10**9
NOISE = random.Random(0).randbytes(1 << 20)  # noqa: S311  # not a secret, and the same every time
HUGE = 10_000  # entries of the huge directory
# CAP_NET_RAW, permitted and effective: revision 2, and revision 3 with the root of a user namespace
CAPABILITY_2 = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)
CAPABILITY_3 = struct.pack("<6I", 0x03000001, 1 << 13, 0, 0, 0, 100_000)


def acl(*entries: tuple[int, int, int]) -> bytes:
    """A POSIX access control list as the kernel keeps it: (tag, permissions, id) of each entry."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


NOBODY = 0xFFFFFFFF
# a user namespace may know nobody but its root
SOMEBODY = 1234 if is_root() else os.geteuid()
# owner rwx, somebody r-x, group r-x, mask r-x, others nothing
ACL = acl((0x01, 7, NOBODY), (0x02, 5, SOMEBODY), (0x04, 5, NOBODY), (0x10, 5, NOBODY), (0x20, 0, NOBODY))


def modes(root: Path) -> None:
    """Files and directories of every interesting mode, those without any permission included."""
    for mode in (0o000, 0o111, 0o444, 0o600, 0o644, 0o755, 0o777, 0o4755, 0o2755, 0o6711, 0o1644):
        (root / f"file-{mode:04o}").write_text(f"{mode:o}")
        (root / f"file-{mode:04o}").chmod(mode)
    for mode in (0o000, 0o700, 0o755, 0o1777, 0o2775, 0o6755):
        (root / f"directory-{mode:04o}").mkdir()
        (root / f"directory-{mode:04o}/inside").write_text("inside")
        (root / f"directory-{mode:04o}").chmod(mode)


def owners(root: Path) -> None:
    """Entries of other people, setuid ones and symbolic links among them."""
    for uid, gid in ((0, 0), (0, 42), (1000, 1000), (65534, 65534), (100_000, 165_535), (2**31 - 2, 2**31 - 2)):
        who = f"{uid}-{gid}"
        (root / f"file-{who}").write_text(who)
        (root / f"directory-{who}").mkdir()
        (root / f"link-{who}").symlink_to("nowhere")
        for kind in ("file", "directory", "link"):
            os.chown(root / f"{kind}-{who}", uid, gid, follow_symlinks=False)
        (root / f"file-{who}").chmod(0o4751)  # after chown, which takes setuid away


def times(root: Path) -> None:
    """Times before 1970 and until 2038, in whole seconds."""
    for seconds in (-86_400 * 365, -1, 0, 1, 1_000_000_000, 2**31 - 1):
        _dated(root, str(seconds), seconds * 10**9)


def late_times(root: Path) -> None:
    """Times after 2038, in whole seconds."""
    for seconds in (2**31, 2**32 + 5):
        _dated(root, str(seconds), seconds * 10**9)


def nanoseconds(root: Path) -> None:
    """Times to the nanosecond."""
    for number in (1_000_000_000_000_000_001, 1_234_567_890_123_456_789, 1_600_000_000_999_999_999, -1_500_000_000):
        _dated(root, str(number), number)


def _dated(root: Path, name: str, mtime_ns: int) -> None:
    (root / f"directory{name}").mkdir()
    (root / f"directory{name}/file").write_text(name)
    (root / f"directory{name}/link").symlink_to("file")
    for path in (f"directory{name}/file", f"directory{name}/link", f"directory{name}"):
        os.utime(root / path, ns=(mtime_ns, mtime_ns), follow_symlinks=False)


def user_xattrs(root: Path) -> None:
    """Attributes of users: binary and many."""
    (root / "file").write_text("with attributes")
    (root / "directory").mkdir()
    for path in (root / "file", root / "directory"):
        os.setxattr(path, "user.binary", bytes(range(100)))
        os.setxattr(path, "user.näme with spaces", b"x")
        for number in range(20):
            os.setxattr(path, f"user.number.{number}", str(number).encode())


def empty_xattrs(root: Path) -> None:
    """An attribute that is only there."""
    (root / "file").write_text("with an attribute")
    os.setxattr(root / "file", "user.empty", b"")


def trusted_xattrs(root: Path) -> None:
    """Attributes that only root sees, on every type of entry."""
    (root / "file").write_text("trusted")
    (root / "directory").mkdir()
    (root / "link").symlink_to("file")
    os.mkfifo(root / "fifo")
    os.mknod(root / "device", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    for name in ("file", "directory", "link", "fifo", "device"):
        os.setxattr(root / name, "trusted.lamina", name.encode(), follow_symlinks=False)
        os.setxattr(root / name, "security.lamina", b"\0\1\2", follow_symlinks=False)


def large_xattrs(root: Path) -> None:
    """Attributes of two thousand bytes."""
    (root / "file").write_text("large")
    (root / "directory").mkdir()
    os.setxattr(root / "file", "user.large", NOISE[:2000])
    os.setxattr(root / "directory", "user.large", NOISE[:2000])


def capabilities(root: Path) -> None:
    """Programs that may open raw sockets, as `ping` often is."""
    for name, value in (("ping", CAPABILITY_2), ("ping-in-a-namespace", CAPABILITY_3)):
        (root / name).write_text("#!/bin/true")
        (root / name).chmod(0o755)
        os.setxattr(root / name, "security.capability", value)


def acls(root: Path) -> None:
    """A file and a directory with access control lists, and what a directory hands down."""
    (root / "file").write_text("shared")
    os.setxattr(root / "file", "system.posix_acl_access", ACL)
    (root / "directory").mkdir()
    os.setxattr(root / "directory", "system.posix_acl_access", ACL)
    os.setxattr(root / "directory", "system.posix_acl_default", ACL)
    (root / "directory/heir").write_text("inherits")


def hard_links(root: Path) -> None:
    """One file with names in several directories; a symbolic link and a fifo with two names."""
    (root / "a/b").mkdir(parents=True)
    (root / "z").write_text("many names")
    (root / "soft").symlink_to("a/b")
    os.mkfifo(root / "fifo")
    for old, new in (("z", "a/z"), ("z", "a/b/first"), ("soft", "a/soft"), ("fifo", "a/fifo")):
        os.link(root / old, root / new, follow_symlinks=False)


def symlinks(root: Path) -> None:
    """Links that dangle, loop, point outside, are long, or are not UTF-8."""
    targets = (b"nowhere", b"/etc/passwd", b"../../../..", b"loop", b"x" * 4095, b"\xff\xfe", b"line\nbreak", b".")
    for number, target in enumerate(targets):
        os.symlink(target, os.fsencode(root / f"link{number}"))
    os.symlink("loop", root / "loop")


def specials(root: Path) -> None:
    """A fifo and a socket with modes of their own."""
    os.mknod(root / "fifo", 0o640 | stat.S_IFIFO)
    os.mknod(root / "socket", 0o755 | stat.S_IFSOCK)
    (root / "fifo").chmod(0o622)


def devices(root: Path) -> None:
    """Character and block devices, small and large numbers."""
    os.mknod(root / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    os.mknod(root / "loop", 0o660 | stat.S_IFBLK, os.makedev(7, 0))
    os.mknod(root / "large", 0o600 | stat.S_IFBLK, os.makedev(259, 1_048_575))
    os.mknod(root / "major", 0o600 | stat.S_IFCHR, os.makedev(4095, 1))


def sizes(root: Path) -> None:
    """Empty files and directories, and files about as long as a block, a page and a buffer."""
    (root / "empty-directory").mkdir()
    for size in (0, 1, 511, 512, 513, 4095, 4096, 4097, 65_536, 1_000_003, 1 << 20):
        (root / f"file-{size}").write_bytes(NOISE[:size])


def sparse(root: Path) -> None:
    """Files that are mostly holes: at the start, between, at the end, and nothing else."""
    with (root / "between").open("wb") as file:
        for place in (0, 3 << 20, 9 << 20):
            file.seek(place)
            file.write(b"data" * 1024)
    for name, place, data in (("start", 8 << 20, b"data"), ("end", 0, b"data"), ("nothing-else", 0, b"")):
        with (root / name).open("wb") as file:
            file.seek(place)
            file.write(data)
            file.truncate((8 << 20) + 4)


def names(root: Path) -> None:
    """Names that are not UTF-8, or trip a shell, a mount option, a tar or a parser of lines."""
    place = os.fsencode(root)
    strange = [b"n" * 242, b"\xff\xfe\xfd", "é".encode(), b"e\xcc\x81", "日本".encode() * 40, b"line\nbreak", b"-rf"]
    strange += [b" ", b"...", b"~", b"a:b,c\\d", b"'\"$`*?[]{}", b"tab\there", b"\x01\x1b[31m", b"trailing ", b"#hash"]
    strange += [b"wh.notawhiteout", b"=", b"lowerdir=x", b"NUL", b"\\012"]
    for name in strange:
        os.mkdir(place + b"/directory of " + name[:229])
        for path in (name, b"directory of " + name[:229] + b"/" + name):
            with open(place + b"/" + path, "wb") as file:
                file.write(name)


def long_names(root: Path) -> None:
    """Names as long as Linux takes."""
    for name in ("n" * 255, "é" * 127 + "e"):
        (root / name).write_text(name)
    (root / ("d" * 255)).mkdir()
    (root / ("d" * 255) / ("n" * 255)).symlink_to("n" * 255)


def deep(root: Path) -> None:
    """A path far beyond PATH_MAX, so that nobody can say it in one breath."""
    here = os.open(root, os.O_RDONLY)
    for number in range(30):
        name = f"{number:03}".encode() + b"d" * 200
        os.mkdir(name, 0o755, dir_fd=here)
        below = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    file = os.open("at the bottom", os.O_WRONLY | os.O_CREAT, 0o640, dir_fd=here)
    os.write(file, b"you found me")
    os.close(file)
    os.close(here)


def huge(root: Path) -> None:
    """A directory with ten thousand entries, one in ten of them a directory."""
    (root / "huge").mkdir()
    for number in range(HUGE):
        if number % 10 == 0:
            (root / f"huge/{number}").mkdir()
        else:
            os.close(os.open(root / f"huge/{number}", os.O_WRONLY | os.O_CREAT, 0o644))


def _specimen(make: Edit, *marks: Any) -> Any:
    return pytest.param(make, id=getattr(make, "__name__", "specimen").replace("_", "-"), marks=list(marks))


SPECIMENS = [
    _specimen(modes),
    _specimen(owners, needs_root),
    _specimen(times),
    _specimen(late_times, needs(Ability.LATE_TIMES)),
    _specimen(nanoseconds, needs(Ability.NANOSECOND_TIMES)),
    _specimen(user_xattrs, needs(Ability.XATTRS)),
    _specimen(empty_xattrs, needs(Ability.EMPTY_XATTRS)),
    _specimen(trusted_xattrs, needs_root, needs(Ability.XATTRS)),
    _specimen(large_xattrs, needs(Ability.LARGE_XATTRS)),
    _specimen(capabilities, needs_root, needs(Ability.XATTRS)),
    _specimen(acls, needs(Ability.ACLS)),
    _specimen(hard_links),
    _specimen(symlinks),
    _specimen(specials),
    _specimen(devices, needs_root),
    _specimen(sizes),
    _specimen(sparse),
    _specimen(names),
    _specimen(long_names, needs(Ability.LONG_NAMES)),
    _specimen(deep),
]


def make_or_skip(make: Edit, root: Path) -> None:
    """Make the specimen in a plain directory; if even that is impossible on this host, skip and say so."""
    try:
        make(root)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EPERM):
            pytest.skip(f"a plain directory on this host cannot hold it either: {error}")
        raise
