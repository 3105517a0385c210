"""Layers as aufs has them: one directory of changes each, joined by the kernel."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Final

from lamina import syscalls
from lamina.changes import ChangesTree
from lamina.driver import Ability, Driver, Health, StoresChanges
from lamina.inheritance import adopt_root
from lamina.layer import Kind, Layer
from lamina.layerdirs import layers_in, remove_layer
from lamina.mount import Mount, bind, mount_all
from lamina.syscalls import opened
from lamina.trees import remove_tree
from lamina_aufs.branches import aufs_mounts, to_be_flattened
from lamina_aufs.flattening import dress, flatten
from lamina_aufs.whiteouts import AufsWhiteouts

_FLAT: Final = "flat"
_ALONE: Final = "alone"  # a layer without a parent so far
_RUN: Final = Path("/run")


class AufsDriver(Driver, StoresChanges):
    """`home/<id>/fs` holds what layer <id> changes; the kernel joins it with its parents'."""

    name: ClassVar[str] = "aufs"
    cannot: ClassVar[frozenset[Ability]] = frozenset(
        {
            Ability.RENAME_LOWER_DIRECTORY,  # EXDEV, as on overlay
            Ability.LOWER_HARD_LINKS,  # noplink: see the README
            Ability.LIVE_READERS,  # an open file of a lower layer stays what it was
            Ability.RENAME_FLAGS,  # aufs has no renameat2
            Ability.TMPFILE,  # its own support needs a writable branch of the same kind throughout
        }
    )

    # the host

    def health(self) -> Health:
        """Whether this kernel has aufs at all."""
        if not _has_aufs():
            return Health((f"the kernel (Linux {os.uname().release}) has no aufs; boot one with the aufs patches",))
        if os.geteuid() != 0:
            return Health(("only root may mount aufs",))
        return Health()

    def start(self) -> None:
        """`home` exists; the ways to mounted trees may be passed by others, but not listed."""
        self.home.mkdir(parents=True, exist_ok=True)
        self.home.chmod(0o711)  # whatever the umask says

    def stop(self) -> None:
        """The short name of the home is gone."""
        if self.home.exists():
            self._short_home().unlink(missing_ok=True)

    # a layer's life

    def prepare(self, layer: Layer) -> None:
        """An empty directory for changes, whose own attributes are those of the parent's root."""
        self.remove(layer.id)
        if layer.kind is Kind.VIEW and layer.parent is not None:
            return
        fs = self._fs(layer.id)
        fs.mkdir(parents=True, mode=0o700)
        fs.chmod(0o755)  # whatever the umask says
        if layer.parent is not None:
            dress(fs, self._fs(layer.parent))
        else:
            (fs.parent / _ALONE).touch()

    def commit(self, layer: Layer) -> None:
        """Nothing moves; what aufs kept for itself goes."""
        alone = self._fs(layer.id).parent / _ALONE
        if layer.parent is not None and alone.exists():  # joined to its parent only now
            adopt_root(str(self._fs(layer.parent)), str(self._fs(layer.id)))
        alone.unlink(missing_ok=True)
        for name in os.listdir(self._fs(layer.id)):
            if AufsWhiteouts().is_private_name(os.fsencode(name)) and name != ".wh..wh..opq":
                remove_tree(self._fs(layer.id) / name)

    def remove(self, layer_id: int) -> None:
        """Forget the layer. It loses its name before its files, so that a half of it is never taken for the whole."""
        remove_layer(self.home, layer_id)

    def layers(self) -> set[int]:
        """Every id of which something lies here."""
        return layers_in(self.home)

    # seeing a layer

    def mounts(self, layer: Layer) -> tuple[Mount, ...]:
        """An aufs of the layer and its parents, or a bind mount where there is only one of them."""
        own = (layer.id,) if layer.kind is not Kind.VIEW or layer.parent is None else ()
        ids = (*own, *layer.parents)
        if len(ids) == 1:
            return (bind(self._fs(ids[0]), writable=layer.writable),)
        number = to_be_flattened(len(layer.parents))
        kept, flat = (ids[: len(ids) - number], ids[len(ids) - number :]) if number else (ids, ())
        home = self._linked_home()
        branches = [f"{home}/{each}/fs" for each in kept]
        if flat:
            self._flatten(flat)
            branches.append(f"{home}/{flat[0]}/{_FLAT}")
        return aufs_mounts(branches, self._options(layer.id), writable=layer.writable)

    def _options(self, layer_id: int) -> tuple[str, ...]:
        # the file goes at once, and has to be new; on a tmpfs, since it is read and written for every look-up
        xino = f"xino=/dev/shm/{self._short_home().name}-{layer_id}.xino"
        return ("dio", "noplink", xino, *(("dirperm1",) if _takes_dirperm1(os.fspath(self.home)) else ()))

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
        """The layer's own directory."""
        return ChangesTree(self._fs(layer.id), AufsWhiteouts())

    def _fs(self, layer_id: int) -> Path:
        return self.home / str(layer_id) / "fs"


def _has_aufs() -> bool:
    """Whether the kernel has it, if need be in a module that it loads when it is first asked."""
    with contextlib.suppress(OSError):  # neither it nor the call is there, or we may not ask
        os.close(syscalls.fsopen("aufs"))
        return True
    return "\taufs\n" in Path("/proc/filesystems").read_text(encoding="ascii")


@functools.cache
def _takes_dirperm1(directory: str) -> bool:
    """Whether this aufs can be told to look at the topmost directory's mode only: asked by a mount nobody else sees."""
    answer: list[bool] = []

    def work() -> None:
        try:
            syscalls.unshare(syscalls.CLONE_FS | syscalls.CLONE_NEWNS)
            syscalls.mount(b"none", b"/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
            mount_all([Mount("tmpfs", "none")], Path(directory))
            for name in ("lower", "upper"):
                Path(directory, name).mkdir()
            os.chdir(directory)
            mount_all([Mount("aufs", "none", ("br:upper=rw:lower=ro+wh", "dirperm1"))], Path(directory, "upper"))
            answer.append(True)
        except OSError:
            pass

    thread = threading.Thread(target=work, name="lamina-aufs-trial")
    thread.start()
    thread.join()
    return bool(answer)
