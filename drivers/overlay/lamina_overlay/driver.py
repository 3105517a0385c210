"""Layers as overlayfs has them: one directory of changes each, joined by the kernel."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any, ClassVar, Final

from lamina.changes import ChangesTree, Whiteouts
from lamina.driver import Ability, Driver, Health, StoresChanges
from lamina.inheritance import adopt_root, inherit_root
from lamina.layer import Kind, Layer
from lamina.mount import Mount, bind
from lamina.overlaydialect import OverlayWhiteouts
from lamina.overlaymount import overlay_options
from lamina.trees import remove_tree
from lamina_overlay import volatile
from lamina_overlay.joining import Joints
from lamina_overlay.options import OverlayOptions
from lamina_overlay.pinned import attribute_prefix, pinned_options
from lamina_overlay.probes import examine, forget_interrupted

_DOOMED: Final = ".gone"
_TAKEN: Final = frozenset({errno.EEXIST, errno.ENOTEMPTY})


class OverlayDriver(Driver, StoresChanges):
    """`home/<id>/fs` holds what layer <id> changes; the kernel joins it with its parents'."""

    name: ClassVar[str] = "overlay"
    Options: ClassVar[type] = OverlayOptions
    cannot: ClassVar[frozenset[Ability]] = frozenset(
        {
            Ability.RENAME_LOWER_DIRECTORY,  # redirect_dir=nofollow
            Ability.LOWER_HARD_LINKS,  # index=off
            Ability.LIVE_READERS,  # an open file or mapping of a lower layer stays what it was
        }
    )

    def __init__(self, home: Path, options: Any = None) -> None:
        """Remember; touch nothing."""
        super().__init__(home, options)
        self._root = os.fspath(home)
        self._joints = Joints(home)

    # the host

    def health(self) -> Health:
        """Ask the kernel by a real mount, once per boot."""
        return examine(self.home, volatile=self.options.volatile).health

    def lacking(self) -> frozenset[Ability]:
        """What overlay lacks everywhere, and what the kernel did not do when it was asked."""
        return self.cannot | examine(self.home, volatile=self.options.volatile).lacking

    def start(self) -> None:
        """`home` exists; the ways to mounted trees may be passed by others, but not listed."""
        self.home.mkdir(parents=True, exist_ok=True)
        self.home.chmod(0o711)  # whatever the umask says
        forget_interrupted(self.home)

    # a layer's life

    def prepare(self, layer: Layer) -> None:
        """An empty directory for changes, whose own attributes are those of the parent's root.

        A view of a parent needs nothing: it has no changes.
        """
        if layer.kind is Kind.VIEW and layer.parent is not None:
            self.remove(layer.id)
            return
        place = self._place(layer.id)
        try:
            os.mkdir(place, 0o700)
        except FileExistsError:
            self.remove(layer.id)
            os.mkdir(place, 0o700)
        os.mkdir(f"{place}/fs", 0o700)
        if layer.parent is None:
            os.chmod(f"{place}/fs", 0o755)  # noqa: S103  # as any root directory, whatever the umask says
            os.utime(f"{place}/fs", ns=(0, 0))  # the time of a root that nobody has touched
            return
        inherit_root(self._fs(layer.parent), f"{place}/fs", times=True)
        os.mkdir(f"{place}/work", 0o700)

    def commit(self, layer: Layer) -> None:
        """Nothing moves. What was written without flushing is flushed now, or refused if the machine stopped since."""
        place = self._place(layer.id)
        volatile.settle(place)
        if layer.parent is None:
            return
        if not os.path.exists(f"{place}/work"):  # prepared without a parent, and joined to one only now
            adopt_root(self._fs(layer.parent), f"{place}/fs")
            return
        remove_tree(Path(place, "work", "work"))  # unfinished copies of a container that was killed

    def remove(self, layer_id: int) -> None:
        """Forget the layer. It loses its name before its files, so that a half of it is never taken for the whole."""
        self.release(layer_id)
        place = self._place(layer_id)
        doomed = place + _DOOMED
        if not _was_empty(place):
            self._doom(place, doomed)
        if os.path.lexists(doomed):  # just now, or by a removal that was cut short
            self._joints.unmount(Path(doomed))
            remove_tree(Path(doomed))

    def _doom(self, place: str, doomed: str) -> None:
        try:
            os.rename(place, doomed)
        except OSError as error:
            if error.errno not in _TAKEN:
                raise
            remove_tree(Path(doomed))  # the rest of a layer of that id that was removed before
            os.rename(place, doomed)

    def layers(self) -> set[int]:
        """Every id of which something lies here."""
        names = (name.removesuffix(_DOOMED) for name in os.listdir(self.home))
        return {int(name) for name in names if name.isdecimal()}

    # seeing a layer

    def mounts(self, layer: Layer) -> tuple[Mount, ...]:
        """An overlay of the layer and its parents, or a bind mount where there is only one of them."""
        below = self._below(layer)
        if layer.writable and not below:
            return (self._bind(layer.id, writable=True),)
        if not layer.writable and len(below) == 1:
            return (self._bind(below[0], writable=False),)
        joined = self._joints.needed(below)
        lowers = self._joints.bring_up(layer.id, below) if joined else [self._fs(each) for each in below]
        extra = self._options_of(layer, joined=joined)
        if not layer.writable:
            return (Mount("overlay", "overlay", overlay_options(lowers, extra=extra)),)
        place = self._place(layer.id)
        return (Mount("overlay", "overlay", overlay_options(lowers, f"{place}/fs", f"{place}/work", extra)),)

    def _below(self, layer: Layer) -> tuple[int, ...]:
        """The layers that are shown read-only, the nearest first."""
        if layer.writable or (layer.kind is Kind.VIEW and layer.parent is not None):
            return layer.parents
        return (layer.id, *layer.parents)

    def _options_of(self, layer: Layer, *, joined: bool) -> tuple[str, ...]:
        return (
            "rw" if layer.writable else "ro",
            *pinned_options(),
            *(("xino=on",) if joined else ()),  # several file systems: keeps inode numbers apart and stable
            *self._volatile(layer),
            *self.options.mount_options,
        )

    def _volatile(self, layer: Layer) -> tuple[str, ...]:
        if not layer.writable:
            return ()
        place = self._place(layer.id)
        volatile.check(place)
        if not self.options.volatile:
            return ()
        volatile.begin(place)
        return ("volatile",)

    def _bind(self, layer_id: int, *, writable: bool) -> Mount:
        plain = bind(self._fs(layer_id), writable=writable)
        return Mount(plain.type, plain.source, plain.options + self.options.of_the_mount)

    def release(self, layer_id: int) -> None:
        """Let go of joined layers that nobody else stands on; only stacks too deep for one mount have any."""
        self._joints.let_go(layer_id)

    # changes

    def changes(self, layer: Layer) -> ChangesTree:
        """The layer's own directory."""
        return ChangesTree(Path(self._fs(layer.id)), self._dialect())

    def _dialect(self) -> Whiteouts:
        return OverlayWhiteouts(attribute_prefix())

    # strings, not paths: a mount of 500 layers names each of them
    def _place(self, layer_id: int) -> str:
        return f"{self._root}/{layer_id}"

    def _fs(self, layer_id: int) -> str:
        return f"{self._root}/{layer_id}/fs"


def _was_empty(place: str) -> bool:
    """Remove a layer that nobody has written to, which takes no look into it; False if something is left."""
    for name in ("/fs", "/work/work", "/work", ""):  # what has content is refused by the first call
        try:
            os.rmdir(place + name)
        except FileNotFoundError:
            continue
        except OSError:
            return False
    return True
