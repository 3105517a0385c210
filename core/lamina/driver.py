"""The contract between lamina and a storage driver. Read this first; it is one page.

Rules told once:

1. *Sync.* Verbs block. Different layers may be asked for from different threads and processes; one layer never from
   two at once.
2. *Order.* A layer is prepared once, then shown any number of times, then committed or removed. Core calls `release`
   before `commit` and before `remove`; a parent is always committed; a layer with children is never removed.
3. *Repeat.* Power can fail inside any verb. Core will call it again, or call `remove`; so every verb is repeatable, and
   `remove` and `release` accept a layer that is half made, gone, or unknown (they get only its id).
4. *Errors.* Raise what you like; core adds verb and layer and chains the cause.
5. *Home.* Everything you write lies under `self.home` (or in the pool or dataset named in your options), keyed by
   layer id. Store no absolute path: the home may have moved when you are asked next.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import attrs
import pluggy

from lamina.changes import Change, ChangesTree
from lamina.layer import Layer, Usage
from lamina.mount import Mount

hookimpl = pluggy.HookimplMarker("lamina")


class Ability(enum.Enum):
    """Something that a file system for containers should do and that some backends cannot.

    A driver lists in `cannot` what it lacks; the suite then checks that it is *named*, and users are told.
    """

    REBASE = "commit onto a parent that was chosen only then"
    RENAME_LOWER_DIRECTORY = "rename a directory that comes from a lower layer"
    LOWER_HARD_LINKS = "keep hard links to a file of a lower layer together when one of them is written"
    LOWER_LINK_NUMBERS = "give a new hard link to a file of a lower layer the file's inode number before the next mount"
    LIVE_READERS = "let a file opened or mapped for reading before its first write see later writes"
    NANOSECOND_TIMES = "keep times to the nanosecond"
    LATE_TIMES = "keep times after January 2038"
    DIRECTORY_TIMES = "leave a directory's times alone when something in it is first changed"
    XATTRS = "keep extended attributes"
    REMOVE_XATTRS = "remove extended attributes"
    EMPTY_XATTRS = "keep extended attributes without a value"
    LARGE_XATTRS = "keep extended attributes of more than 128 bytes"
    SETID_WRITES = "keep setuid and setgid of a file that root writes to"
    ACLS = "keep POSIX access control lists"
    RENAME_FLAGS = "rename with EXCHANGE and NOREPLACE"
    FALLOCATE = "preallocate and punch holes"
    SPARSE_FILES = "keep holes in files"
    LONG_NAMES = "keep names of more than 242 bytes"
    TMPFILE = "open unnamed files with O_TMPFILE"


class Limit(enum.Enum):
    """What becomes of a limit in bytes for writable layers (the option `size`) on this host."""

    ENFORCED = "whoever wants to write more is stopped by the kernel: ENOSPC or EDQUOT"
    ACCOUNTED = "more can be written; usage tells how much it is"
    REFUSED = "it is not taken: an error says so before anything is written"


@attrs.frozen
class Health:
    """Whether a driver can be used on this machine.

    `problems` stop us, one sentence each, with what to do about it; `notes` inform: what was probed and found.
    """

    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """No problems."""
        return not self.problems


@attrs.frozen
class NoOptions:
    """For drivers that have none."""


class Driver(ABC):
    """A backend: it stores layers and says how to mount them. Core does everything else.

    Subclass it, give it a `name`, and offer the class through a hook `lamina_driver` in the entry point group
    `lamina.drivers`. Opt into more by also inheriting `StoresChanges`, `NativeDiff` or `NativeUsage`.
    """

    name: ClassVar[str]
    Options: ClassVar[type] = NoOptions  # a frozen attrs class; core builds it from the table [drivers.NAME]
    cannot: ClassVar[frozenset[Ability]] = frozenset()

    def __init__(self, home: Path, options: Any = None) -> None:
        """Remember; touch nothing. `home` need not exist yet."""
        self.home = home
        self.options = self.Options() if options is None else options

    # the host

    def health(self) -> Health:
        """Look whether this driver would work here, without leaving a trace. Never raises for a poor host."""
        return Health()

    def lacking(self) -> frozenset[Ability]:
        """What this driver cannot here: `cannot`, and what was probed. Asked after `health`; leaves no trace."""
        return self.cannot

    def limit(self) -> Limit:
        """What becomes of the option `size` here, whether it is set or not. Leaves no trace, and never raises.

        A driver without such an option refuses it: core does not know the key. One with the option, on a host where it
        cannot be honoured, names a problem in `health` and raises in `prepare`. What counts is said in its README.
        """
        return Limit.REFUSED

    def start(self) -> None:
        """Get ready: `home` exists, is a directory, and is ours. Called once, before any other verb of a layer."""

    def stop(self) -> None:
        """Let go of servers and devices. Layers stay. Repeating it is harmless."""

    # a layer's life

    @abstractmethod
    def prepare(self, layer: Layer) -> None:
        """Make room for a new layer on top of its parents: afterwards `mounts` shows what the parent shows.

        `layer.writable` tells an active layer from a view. What an earlier, interrupted try left is replaced.
        """

    def commit(self, layer: Layer) -> None:
        """From now on the layer never changes. `layer.kind` is COMMITTED and `layer.parents` are the final ones.

        Nothing is mounted. When this returns, the layer's bytes may still be in the page cache: core flushes.
        """

    @abstractmethod
    def remove(self, layer_id: int) -> None:
        """Forget this layer and free its space.

        Repeating it is harmless, and so is an id that was never stored or is only half there.
        """

    @abstractmethod
    def layers(self) -> set[int]:
        """The ids of everything stored, the half made included; core compares them with what it knows."""

    # seeing a layer

    @abstractmethod
    def mounts(self, layer: Layer) -> tuple[Mount, ...]:
        """Make the layer reachable and say how to mount it; repeatable, also after a reboot or a killed server.

        The mounts are done in order on one target. They are data: core, containerd or a shim executes them.
        """

    def release(self, layer_id: int) -> None:
        """Undo what `mounts` set up, if anything. The caller has unmounted; repeating it is harmless."""


class StoresChanges(ABC):
    """For union drivers: a layer's own changes lie in one directory, so diff, usage and unpacking skip the mount."""

    @abstractmethod
    def changes(self, layer: Layer) -> ChangesTree:
        """The directory with only this layer's changes. Core writes into it while the layer is active and unmounted."""


class NativeDiff(ABC):
    """For drivers whose backend knows what changed, without walking both trees."""

    @abstractmethod
    def diff(self, layer: Layer) -> Iterator[Change] | None:
        """The paths that may differ from the parent, each once, in any order; core compares the two and sorts them.

        Too many is slow, too few is wrong. A path that is gone is listed once, without what was inside. None where the
        backend cannot tell (an older version, or it tells only root): core walks both trees.
        """


class NativeUsage(ABC):
    """For drivers whose backend accounts for space, so that nobody has to walk."""

    @abstractmethod
    def usage(self, layer: Layer) -> Usage:
        """What this layer alone occupies."""
