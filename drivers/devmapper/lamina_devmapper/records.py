"""What the driver writes down in its home: the pool's name, each layer's device number, the change in progress.

Each file is replaced as a whole and flushed, so that it is there, old or new, after a power cut. No path is in them.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import attrs

from lamina.errors import StoreBroken
from lamina.syscalls import opened

_DOOMED: Final = ".gone"


@attrs.frozen
class PoolRecord:
    """The pool: its name, what was decided when it was made, and by which UUID its base device is known again."""

    name: str
    filesystem: str
    block_size: int
    base_size: int
    base_uuid: str | None = None  # not yet made


@attrs.frozen
class LayerRecord:
    """A layer's number in the pool, and its size in bytes."""

    thin: int
    size: int


@attrs.frozen
class Intent:
    """The change of the pool that was begun last; `number` is the pool's transaction id when it is done."""

    number: int = 0
    verb: str = "create"
    layer: int = 0
    thin: int = 0


class Records:
    """The files below one home."""

    def __init__(self, home: Path) -> None:
        """Remember the home."""
        self.home = home
        self._layers = home / "layers"

    def start(self) -> None:
        """The directories are there, and closed to others."""
        self._layers.mkdir(parents=True, exist_ok=True)
        self.home.chmod(0o700)  # whatever the umask says

    @property
    def pool(self) -> PoolRecord | None:
        """What is known of the pool; None in a new home."""
        told = _read(self.home / "pool.json")
        return None if told is None else PoolRecord(**told)

    def write_pool(self, record: PoolRecord) -> None:
        """Remember it."""
        self._write(self.home / "pool.json", attrs.asdict(record))

    @property
    def intent(self) -> Intent:
        """The last change that was begun."""
        return Intent(**(_read(self.home / "transaction.json") or {}))

    def write_intent(self, intent: Intent) -> None:
        """Say what is going to be done, before it is done."""
        self._write(self.home / "transaction.json", attrs.asdict(intent))

    def layer(self, layer_id: int) -> LayerRecord | None:
        """What is known of a layer."""
        told = _read(self._layers / str(layer_id))
        return None if told is None else LayerRecord(**told)

    def write_layer(self, layer_id: int, record: LayerRecord) -> None:
        """The layer is there from now on."""
        self._write(self._layers / str(layer_id), attrs.asdict(record))

    def doom(self, layer_id: int) -> None:
        """The layer is not there any more, though its device still is; repeating it is harmless."""
        with suppress(FileNotFoundError):
            os.rename(self._layers / str(layer_id), self._layers / f"{layer_id}{_DOOMED}")
            _sync_directory(self._layers)

    def doomed(self) -> dict[int, LayerRecord]:
        """Layers whose devices somebody still had open when they were removed."""
        ids = [int(name.removesuffix(_DOOMED)) for name in self._names() if name.endswith(_DOOMED)]
        told = {layer_id: _read(self._layers / f"{layer_id}{_DOOMED}") for layer_id in ids}
        return {layer_id: LayerRecord(**record) for layer_id, record in told.items() if record is not None}

    def forget(self, layer_id: int) -> None:
        """Nothing is known of the layer."""
        for name in (str(layer_id), f"{layer_id}{_DOOMED}"):
            with suppress(FileNotFoundError):
                os.unlink(self._layers / name)

    def layers(self) -> set[int]:
        """Every layer of which something is known."""
        return {int(name) for name in (each.partition(".")[0] for each in self._names()) if name.isdecimal()}

    def _write(self, path: Path, content: dict[str, Any]) -> None:
        """Replace a file. The lock is held: there is one unfinished file, which the next one replaces."""
        fresh = self.home / "new"
        with opened(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as file:
            os.write(file, json.dumps(content).encode())
            os.fsync(file)
        os.rename(fresh, path)
        _sync_directory(path.parent)

    def _names(self) -> list[str]:
        try:
            return os.listdir(self._layers)
        except FileNotFoundError:
            return []


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise StoreBroken(f"{path} is damaged ({error})") from error


def _sync_directory(path: Path) -> None:
    with opened(path, os.O_RDONLY | os.O_DIRECTORY) as directory:
        os.fsync(directory)
