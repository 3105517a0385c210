"""The writable layer on disk: its directory of changes, and the work directory beside it."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from lamina import syscalls
from lamina.descent import DIRECTORY
from lamina.trees import remove_tree
from lamina.xattrs import at
from lamina_fuse.dialect import UnionWhiteouts

_MISSING: Final = frozenset({errno.ENODATA, errno.ENOTSUP, errno.EPERM, errno.EACCES})
_NO_RENAME_WHITEOUT: Final = frozenset({errno.EINVAL, errno.EPERM, errno.ENOTSUP})


class Upper:
    """Where changes go. Whatever is made of several steps is made in `work` first and then put in its place at once."""

    def __init__(self, root: Path, work: Path, prefix: str) -> None:
        """Both are on one file system; what a killed server left in `work` is removed."""
        remove_tree(work / "work")
        (work / "work").mkdir(mode=0o700, parents=True)
        self.root = os.open(root, DIRECTORY)
        self.work = os.open(work / "work", DIRECTORY)
        self.prefix = prefix
        self.dialect = UnionWhiteouts(prefix)
        self._origin = prefix + "lamina.origin"
        self._number = 0

    def temporary(self) -> bytes:
        """A name in `work` that is free."""
        self._number += 1
        return b"#%x" % self._number

    # whiteouts

    def whiteout(self, directory: int, name: bytes) -> None:
        """`name`, of which nothing is there, is gone for good."""
        self.dialect.write_whiteout(directory, name)

    def replace_by_whiteout(self, directory: int, name: bytes) -> None:
        """What is there vanishes, and nothing from below comes to light: not even if we are killed meanwhile."""
        temporary = self.temporary()
        self.dialect.write_whiteout(self.work, temporary)
        os.rename(temporary, name, src_dir_fd=self.work, dst_dir_fd=directory)

    def replace_directory_by_whiteout(self, directory: int, name: bytes) -> None:
        """Likewise for a directory that holds whiteouts only."""
        temporary = self.temporary()
        self.dialect.write_whiteout(self.work, temporary)
        syscalls.renameat2(self.work, temporary, directory, name, syscalls.RENAME_EXCHANGE)
        self.discard(temporary)

    def rename_leaving_whiteout(self, source: int, name: bytes, target: int, new: bytes) -> None:
        """Rename; what lower layers have at the old place stays hidden."""
        try:
            syscalls.renameat2(source, name, target, new, syscalls.RENAME_WHITEOUT)
        except OSError as error:
            if error.errno not in _NO_RENAME_WHITEOUT:
                raise
            os.rename(name, new, src_dir_fd=source, dst_dir_fd=target)
            self.whiteout(source, name)

    def remove_directory(self, directory: int, name: bytes) -> None:
        """A directory that shows nothing: it may hold whiteouts."""
        try:
            os.rmdir(name, dir_fd=directory)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            temporary = self.temporary()
            os.rename(name, temporary, src_dir_fd=directory, dst_dir_fd=self.work)
            self.discard(temporary)

    def discard(self, temporary: bytes) -> None:
        """Nothing of that name is in `work` any more."""
        self.discard_in(self.work, temporary)

    def discard_in(self, directory: int, temporary: bytes) -> None:
        """Likewise for a directory inside `work`."""
        remove_tree(Path(os.fsdecode(at(directory, temporary))))

    @contextlib.contextmanager
    def made(self, temporary: bytes) -> Iterator[None]:
        """What is made in `work` under this name does not stay when the body raises."""
        try:
            yield
        except BaseException:
            self.discard(temporary)
            raise

    # bookkeeping attributes

    def set_opaque(self, directory: int) -> None:
        """Nothing from below shows in an open directory; O_PATH will do."""
        os.setxattr(at(directory, b"."), self.prefix + "opaque", b"y")

    def set_opaque_at(self, directory: int, name: bytes) -> None:
        """Likewise for a directory inside an open one."""
        os.setxattr(at(directory, name), self.prefix + "opaque", b"y")

    def is_opaque(self, directory: int) -> bool:
        """Whether it hides what is below."""
        with syscalls.opened(b".", DIRECTORY, dir_fd=directory) as readable:
            return self.dialect.is_opaque(readable)

    def set_origin(self, place: int | bytes, ino: int) -> None:
        """Remember the inode number for later mounts, where the file system and its kind allow it."""
        with contextlib.suppress(OSError):
            if isinstance(place, int):
                os.setxattr(place, self._origin, b"%d" % ino)
            else:
                os.setxattr(place, self._origin, b"%d" % ino, follow_symlinks=False)

    def origin(self, directory: int, name: bytes) -> int | None:
        """The inode number that was remembered."""
        try:
            value = os.getxattr(at(directory, name), self._origin, follow_symlinks=False)
        except OSError as error:
            if error.errno in _MISSING:
                return None
            raise
        return int(value) if value.isdigit() else None


def shown_name(name: str, prefix: str) -> str | None:
    """How an attribute that is stored is called by users; None for our own."""
    if not name.startswith(prefix):
        return name
    inner = name.removeprefix(prefix)
    return prefix + inner.removeprefix("overlay.") if inner.startswith("overlay.") else None


def is_whiteout_device(mode: int, rdev: int) -> bool:
    """Whether a node would be taken for a whiteout."""
    return stat.S_ISCHR(mode) and rdev == 0
