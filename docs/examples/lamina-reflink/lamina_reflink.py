"""Layers as copies that share their blocks until they are written: a complete storage driver for lamina."""

from pathlib import Path

import attrs

from lamina.driver import Ability, Driver, Health, hookimpl
from lamina.layer import Layer
from lamina.mount import Mount, bind
from lamina.trees import copy_tree, remove_tree, shares_blocks


@attrs.frozen
class Options:
    """The table [drivers.reflink] of the config."""

    require: bool = False  # rather not work than copy the bytes


class ReflinkDriver(Driver):
    """`home/<id>` is the whole tree of layer <id>."""

    name = "reflink"
    Options = Options
    cannot = frozenset({Ability.REBASE})

    def health(self) -> Health:
        if shares_blocks(self.home):
            return Health(notes=(f"copies below {self.home} share their blocks",))
        poor = f"{self.home} cannot share blocks; put the store on btrfs, or on xfs made with reflink=1"
        return Health(problems=(poor,)) if self.options.require else Health(notes=(poor,))

    def start(self) -> None:
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)

    def prepare(self, layer: Layer) -> None:
        self.remove(layer.id)  # what an interrupted try may have left
        self._tree(layer.id).mkdir()
        self._tree(layer.id).chmod(0o755)  # whatever the umask says
        if layer.parent is not None:
            copy_tree(self._tree(layer.parent), self._tree(layer.id))

    def remove(self, layer_id: int) -> None:
        remove_tree(self._tree(layer_id))

    def layers(self) -> set[int]:
        return {int(path.name) for path in self.home.iterdir()}

    def mounts(self, layer: Layer) -> tuple[Mount, ...]:
        return (bind(self._tree(layer.id), writable=layer.writable),)

    def _tree(self, layer_id: int) -> Path:
        return self.home / str(layer_id)


@hookimpl
def lamina_driver() -> type[Driver]:
    return ReflinkDriver
