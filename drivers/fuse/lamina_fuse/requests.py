"""What every handler of a request shares: the tree, the reply, and that no exception ends the server."""

from __future__ import annotations

import errno
import functools
import logging
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Concatenate, Final, ParamSpec, TypeVar, cast

import pyfuse3
from pyfuse3 import EntryAttributes, FUSEError

from lamina_fuse.copyup import CopyUp
from lamina_fuse.files import Files
from lamina_fuse.metadata import Metadata
from lamina_fuse.naming import Naming
from lamina_fuse.record import Record
from lamina_fuse.renaming import Renaming
from lamina_fuse.tree import Tree

log: Final = logging.getLogger("lamina_fuse")
P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R", bound="Requests")
FOREVER: Final = 1e9  # seconds; only we change what is shown


def handler(
    sync: Callable[Concatenate[R, P], T],
) -> Callable[Concatenate[R, P], Coroutine[Any, Any, T]]:
    """A handler that never waits; whatever goes wrong in it becomes an errno, and what is not expected a traceback."""

    @functools.wraps(sync)
    async def handle(self: R, *arguments: P.args, **named: P.kwargs) -> T:
        self.counts[sync.__name__] = self.counts.get(sync.__name__, 0) + 1
        try:
            return sync(self, *arguments, **named)
        except FUSEError:
            raise
        except OSError as error:
            if error.errno is None:
                log.exception("%s%r", sync.__name__, arguments)
            raise FUSEError(error.errno or errno.EIO) from None
        except Exception:
            log.exception("%s%r", sync.__name__, arguments)
            raise FUSEError(errno.EIO) from None

    return cast("Callable[Concatenate[R, P], Coroutine[Any, Any, T]]", handle)


class Requests(pyfuse3.Operations):
    """One task serves all requests, so the tree needs no locks, and replies may be made in one object."""

    supports_dot_lookup = False
    enable_writeback_cache = False
    enable_acl = True

    def __init__(self, tree: Tree, prefix: str, secret: bytes = b"", *, stateless_directories: bool = False) -> None:
        super().__init__()
        self.counts: dict[str, int] = {}
        self._tree = tree
        self._copies = CopyUp(tree)
        self._naming = Naming(tree, self._copies)
        self._renaming = Renaming(tree, self._copies, self._naming)
        self._files = Files(tree, self._copies)
        self._metadata = Metadata(tree, self._copies, prefix)
        self._secret = secret
        self._stateless = stateless_directories
        self._entry = EntryAttributes()
        self._entry.attr_timeout = self._entry.entry_timeout = FOREVER
        self._nothing = EntryAttributes()
        self._nothing.entry_timeout = FOREVER
        self._nothing.st_ino = 0

    def asked(self) -> dict[str, int]:
        """How many requests of each kind were answered, here and by the accelerator."""
        both = Counter(self.counts)
        both.update(self._tree.hints.served())
        return dict(both)

    def remembered(self) -> int:
        """Of how many inodes something is remembered."""
        self.free_some(lambda: False)
        return len(self._tree.known.keys() | self._tree.nodes.keys())

    def _found(self, ino: int) -> EntryAttributes:
        entry = self._fill(ino, self._tree.record(ino))
        known = self._tree.known
        known[ino] = known.get(ino, 0) + 1
        return entry

    def _fill(self, ino: int, record: Record) -> EntryAttributes:
        entry = self._entry
        entry.st_ino = ino
        (
            entry.st_mode,
            entry.st_nlink,
            entry.st_uid,
            entry.st_gid,
            entry.st_rdev,
            entry.st_size,
            entry.st_blocks,
            entry.st_atime_ns,
            entry.st_mtime_ns,
            entry.st_ctime_ns,
        ) = record
        return entry

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        """The kernel holds fewer references."""
        self.counts["forget"] = self.counts.get("forget", 0) + 1
        try:
            self._tree.forget(inode_list)
        except Exception:
            log.exception("forget")

    def free_some(self, hurried: Callable[[], object]) -> None:
        """Forget what the kernel has forgotten, until all is done or somebody is in a hurry."""
        tree = self._tree
        while tree.forgotten and not hurried():
            try:
                tree.free_one()
            except Exception:
                log.exception("forget")
