"""Steps done to a real tree by system calls, as `model.ModelTree` does them to the model."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path
from typing import Any

from lamina.conformance.caller import is_root
from lamina.conformance.model import Step
from lamina.driver import Ability


def _above(step: Step) -> set[bytes]:
    """The directories in which something may be changed for the first time by this step."""
    paths = {step.path, step.args.get("to", step.path)}
    return {b""} | {path.rsplit(b"/", times)[0] for path in paths for times in range(1, path.count(b"/") + 1)}


class RealTree:
    """The verbs of a step, done below a mounted directory.

    Every verb sets the times of what it touched, so that two trees that went through the same steps are equal.
    """

    def __init__(self, root: Path, cannot: frozenset[Ability] = frozenset()) -> None:
        self.root = os.fsencode(root)
        self.cannot = cannot

    def do(self, step: Step) -> None:
        """The tree is what the step makes of it."""
        if Ability.DIRECTORY_TIMES not in self.cannot:
            getattr(self, step.verb)(step.path, step.time, **step.args)
            return
        before = {path: os.stat(self._at(path)).st_mtime_ns for path in _above(step)}
        getattr(self, step.verb)(step.path, step.time, **step.args)
        for path in sorted(before, reverse=True):  # what lies deepest first: setting its times touches those above
            if os.path.isdir(self._at(path)) and os.stat(self._at(path)).st_mtime_ns != step.time:
                self._date(before[path], path)

    def _at(self, path: bytes) -> bytes:
        return self.root + b"/" + path if path else self.root

    def _date(self, time: int, *paths: bytes) -> None:
        for path in paths:
            os.utime(self._at(path), ns=(time, time), follow_symlinks=False)

    def make(self, path: bytes, time: int, **node: Any) -> None:
        """A new entry, of any type."""
        kind, place = node["type"], self._at(path)
        content, rdev = node.get("content", b""), node.get("rdev", 0)
        if kind == stat.S_IFDIR:
            os.mkdir(place)
        elif kind == stat.S_IFLNK:
            os.symlink(content, place)
        elif kind == stat.S_IFREG:
            with open(place, "xb") as file:
                file.write(content)
        else:
            os.mknod(place, kind | 0o600, rdev)
        self._attribute(place, kind, node.get("uid", 0), node.get("gid", 0), node.get("mode", 0o755))
        self._date(time, path, os.path.dirname(path))

    def _attribute(self, place: bytes, kind: int, uid: int, gid: int, mode: int) -> None:
        if is_root():
            os.chown(place, uid, gid, follow_symlinks=False)
        if kind != stat.S_IFLNK:
            os.chmod(place, mode)  # after chown, which takes setuid away

    def write(self, path: bytes, time: int, *, offset: int, data: bytes) -> None:
        """Overwrite a part of a file, or lengthen it."""
        with open(self._at(path), "r+b") as file:
            file.seek(offset)
            file.write(data)
        self._date(time, path)

    def truncate(self, path: bytes, time: int, *, size: int) -> None:
        """The file has this length."""
        os.truncate(self._at(path), size)
        self._date(time, path)

    def attributes(self, path: bytes, time: int, *, uid: int, gid: int, mode: int) -> None:
        """Owner and mode."""
        place = self._at(path)
        self._attribute(place, stat.S_IFMT(os.lstat(place).st_mode), uid, gid, mode)
        self._date(time, path)

    def set_xattr(self, path: bytes, time: int, *, name: str, value: bytes) -> None:
        """The attribute has this value."""
        os.setxattr(self._at(path), name, value, follow_symlinks=False)
        self._date(time, path)

    def remove_xattr(self, path: bytes, time: int, *, name: str) -> None:
        """There is no such attribute."""
        os.removexattr(self._at(path), name, follow_symlinks=False)
        self._date(time, path)

    def link(self, path: bytes, time: int, *, to: bytes) -> None:
        """One more name, `to`."""
        os.link(self._at(path), self._at(to), follow_symlinks=False)
        self._date(time, to, os.path.dirname(to))

    def remove(self, path: bytes, time: int) -> None:
        """Gone, with everything below it."""
        place = self._at(path)
        if stat.S_ISDIR(os.lstat(place).st_mode):
            shutil.rmtree(place)
        else:
            os.unlink(place)
        self._date(time, os.path.dirname(path))

    def rename(self, path: bytes, time: int, *, to: bytes) -> None:
        """Now called `to`; a file or an empty directory of that name is replaced."""
        os.rename(self._at(path), self._at(to))
        self._date(time, to, os.path.dirname(path), os.path.dirname(to))
