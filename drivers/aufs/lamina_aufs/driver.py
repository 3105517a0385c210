"""Layers as aufs has them: one directory of changes each, joined by the kernel."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Final

from lamina import syscalls
from lamina.changes import ChangesTree
from lamina.driver import Ability, Driver, Health, StoresChanges
from lamina.inheritance import adopt_root, inherit_root
from lamina.layer import Kind, Layer
from lamina.layerdirs import layers_in, remove_layer
from lamina.mount import Mount, bind
from lamina.syscalls import opened
from lamina.trees import nearest_existing, remove_tree
from lamina_aufs import joint
from lamina_aufs.branches import aufs_mounts, to_be_flattened
from lamina_aufs.flattening import flatten
from lamina_aufs.marks import spell_out
from lamina_aufs.trial import forget_interrupted, try_out
from lamina_aufs.whiteouts import AufsWhiteouts

_FLAT: Final = "flat"
_ALONE: Final = "alone"  # beside a layer that was prepared without a parent, and may get one when it is committed
_RUN: Final = Path("/run")


class AufsDriver(Driver, StoresChanges):
    """`home/<id>/fs` holds what layer <id> changes; the kernel joins it with its parents'."""

    name: ClassVar[str] = "aufs"
    cannot: ClassVar[frozenset[Ability]] = frozenset(
        {
            Ability.RENAME_LOWER_DIRECTORY,  # EXDEV, as on overlay
            Ability.LIVE_READERS,  # an open file of a lower layer stays what it was
            Ability.LONG_NAMES,  # room is kept for its prefixes
        }
    )

    # the host

    def health(self) -> Health:
        """Whether this kernel has aufs, and mounts it on the file system of our home: tried out."""
        if not _has_aufs():
            return Health((f"the kernel (Linux {os.uname().release}) has no aufs; boot one with the aufs patches",))
        if os.geteuid() != 0:
            return Health(("only root may mount aufs",))
        trial = try_out(os.fspath(nearest_existing(self.home)))
        if trial.problem:
            return Health((f"aufs cannot be mounted in {self.home}: {trial.problem}; choose another root",))
        lacking = ", ".join(sorted(ability.name for ability in trial.lacking)) or "nothing"
        return Health(notes=(f"aufs {_version()}; tried out, and lacking here: {lacking}",))

    def lacking(self) -> frozenset[Ability]:
        """Beside what no aufs can, what this kernel's was found to lack."""
        return self.cannot | try_out(os.fspath(nearest_existing(self.home))).lacking

    def start(self) -> None:
        """`home` exists; the ways to mounted trees may be passed by others, but not listed."""
        self.home.mkdir(parents=True, exist_ok=True)
        self.home.chmod(0o711)  # whatever the umask says
        forget_interrupted(self.home)

    def stop(self) -> None:
        """No layer is joined, and the short name of the home is gone. Core asks only when nothing is mounted."""
        if self.home.exists():
            for layer_id in self.layers():
                self.release(layer_id)
            self._short_home().unlink(missing_ok=True)

    # a layer's life

    def prepare(self, layer: Layer) -> None:
        """An empty directory for changes, whose own attributes are those of the parent's root."""
        self.remove(layer.id)
        if layer.kind is Kind.VIEW and layer.parent is not None:
            return
        fs = self._fs(layer.id)
        fs.mkdir(parents=True, mode=0o700)
        if layer.parent is None:
            fs.chmod(0o755)  # whatever the umask says
            os.utime(fs, ns=(0, 0))  # the time of a root that nobody has touched
            (self._place(layer.id) / _ALONE).touch()
        else:
            inherit_root(os.fspath(self._fs(layer.parent)), os.fspath(fs), times=True)

    def commit(self, layer: Layer) -> None:
        """What aufs kept for itself goes, and so do marks of opaque directories, which hide too little from below."""
        fs, alone = self._fs(layer.id), self._place(layer.id) / _ALONE
        joint.take_down(self._place(layer.id))
        if layer.parent is not None and alone.exists():
            adopt_root(os.fspath(self._fs(layer.parent)), os.fspath(fs))
        spell_out(fs, [self._fs(each) for each in layer.parents], AufsWhiteouts())
        alone.unlink(missing_ok=True)

    def remove(self, layer_id: int) -> None:
        """Forget the layer. It loses its name before its files, so that a half of it is never taken for the whole."""
        joint.take_down(self._place(layer_id), wanted=False)
        remove_layer(self.home, layer_id)

    def layers(self) -> set[int]:
        """Every id of which something lies here."""
        return layers_in(self.home)

    # seeing a layer

    def mounts(self, layer: Layer) -> tuple[Mount, ...]:
        """A bind mount of the place where a layer that is written to is joined with its parents, which it is now.

        What is only read is joined where it is wanted, or bound there if it is one directory.
        """
        if layer.writable:
            place = self._place(layer.id)
            mounts = () if joint.is_up(place) else self._union(layer, (layer.id, *self._shown_below(layer)))
            return (bind(joint.bring_up(place, mounts), writable=True),)
        ids = layer.parents if layer.kind is Kind.VIEW and layer.parent is not None else (layer.id, *layer.parents)
        if len(ids) == 1:
            return (bind(self._fs(ids[0]), writable=False),)
        return self._union(layer, ids)

    def _shown_below(self, layer: Layer) -> tuple[int, ...]:
        """aufs does not look for the mark at the top of a branch."""
        with opened(self._fs(layer.id), os.O_RDONLY | os.O_DIRECTORY) as root:
            return () if AufsWhiteouts().is_opaque(root) else layer.parents

    def _union(self, layer: Layer, ids: tuple[int, ...]) -> tuple[Mount, ...]:
        number = to_be_flattened(len(ids) - 1 if layer.writable else len(ids))
        kept, flat = (ids[: len(ids) - number], ids[len(ids) - number :]) if number else (ids, ())
        home = self._linked_home()
        branches = [f"{home}/{each}/fs" for each in kept]
        if flat:
            self._flatten(flat)
            branches.append(f"{home}/{flat[0]}/{_FLAT}")
        return aufs_mounts(branches, self._options(layer), writable=layer.writable)

    def _options(self, layer: Layer) -> tuple[str, ...]:
        # the file goes at once, and has to be new; on a tmpfs, since it is read and written for every look-up
        xino = f"xino=/dev/shm/{self._short_home().name}-{layer.id}.xino"
        return ("dio", *(() if layer.writable else ("noplink",)), xino, *try_out(os.fspath(self.home)).options)

    def release(self, layer_id: int) -> None:
        """The layer is joined nowhere, and its own directory holds all that was to be seen.

        On a full disk it may stay joined: then `commit` fails, and `remove` works.
        """
        try:
            joint.take_down(self._place(layer_id))
        except OSError as error:
            if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
                raise

    def _flatten(self, ids: tuple[int, ...]) -> None:
        """The layers, the topmost first, lie as one directory inside the topmost."""
        place = self.home / str(ids[0])
        with self._locked():
            if (place / _FLAT).exists():
                return
            unfinished = place / f"{_FLAT}.new"
            remove_tree(unfinished)
            flatten((self._fs(each) for each in reversed(ids)), unfinished, AufsWhiteouts())
            unfinished.rename(place / _FLAT)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with opened(self.home, os.O_RDONLY | os.O_DIRECTORY) as home:
            fcntl.flock(home, fcntl.LOCK_EX)
            yield

    def _linked_home(self) -> Path:
        """A name of the home that is short, and holds nothing that aufs takes for a separator."""
        link = self._short_home()
        if not link.is_symlink() or Path(os.readlink(link)) != self.home.absolute():
            fresh = link.with_name(f"{link.name}.{os.getpid()}.{threading.get_ident()}")
            fresh.symlink_to(self.home.absolute())
            fresh.rename(link)
        return link

    def _short_home(self) -> Path:
        status = self.home.stat()
        return _RUN / f"lamina-aufs-{status.st_dev:x}-{status.st_ino:x}"

    # changes

    def changes(self, layer: Layer) -> ChangesTree:
        """The layer's own directory, which tells also of names that aufs until now only remembered."""
        joint.settle_up(self._place(layer.id))
        return ChangesTree(self._fs(layer.id), AufsWhiteouts())

    def _place(self, layer_id: int) -> Path:
        return self.home / str(layer_id)

    def _fs(self, layer_id: int) -> Path:
        return self._place(layer_id) / "fs"


def _has_aufs() -> bool:
    """Whether the kernel has it, if need be in a module that it loads when it is first asked."""
    with contextlib.suppress(OSError):  # neither it nor the call is there, or we may not ask
        os.close(syscalls.fsopen("aufs"))
        return True
    return "\taufs\n" in Path("/proc/filesystems").read_text(encoding="ascii")


def _version() -> str:
    try:
        return Path("/sys/module/aufs/version").read_text(encoding="ascii").strip()
    except OSError:
        return "of an unknown version"
