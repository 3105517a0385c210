"""What a user may set in the table [drivers.devmapper]."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import attrs

from lamina.errors import ConfigError

_SMALLEST_BLOCK = 64 << 10  # of a thin pool, and the step in which it grows
_LARGEST_BLOCK = 1 << 30
_SMALLEST_FILE_SYSTEM = 32 << 20


@attrs.frozen
class DevmapperOptions:
    """Options of the devmapper driver. Sizes are bytes; the config also takes "10GiB"."""

    # block devices for the pool, both or none; without them it lies in files below the root, for trying out
    data_device: Path | None = None
    metadata_device: Path | None = None
    # how large the files may become; they take room only as it is written to. Raising them enlarges the pool
    loop_data_size: int = 100 << 30
    loop_metadata_size: int = 256 << 20
    # of one thin block, fixed when the pool is made
    block_size: int = 64 << 10
    # of the file system of new layers, where `size` says nothing; they only ever grow
    base_size: int = 10 << 30
    filesystem: Literal["ext4", "xfs"] = "ext4"
    # the limit of what a new layer's tree can hold: its file system is as large
    size: int = 0
    # what the kernel does to writers when the pool is full: an error at once, or to wait for a minute first
    when_full: Literal["error", "queue"] = "error"
    # no new layer while less than this share of the pool is free, of its data or of its metadata
    min_free_percent: int = 10
    # give the blocks of a removed layer back to what lies below the pool; None: only if that is a file
    discard: bool | None = None
    # added to every mount
    mount_options: tuple[str, ...] = ()

    def __attrs_post_init__(self) -> None:
        """Refuse what could never work."""
        if (self.data_device is None) != (self.metadata_device is None):
            raise ConfigError("drivers.devmapper: say both data_device and metadata_device, or none of them")
        if self.block_size % _SMALLEST_BLOCK or not _SMALLEST_BLOCK <= self.block_size <= _LARGEST_BLOCK:
            raise ConfigError("drivers.devmapper.block_size: a multiple of 64 KiB, from 64 KiB to 1 GiB")
        if not 0 <= self.min_free_percent < 100:
            raise ConfigError("drivers.devmapper.min_free_percent: from 0 to 99")
        if self.base_size < _SMALLEST_FILE_SYSTEM:
            raise ConfigError("drivers.devmapper.base_size: at least 32 MiB (and 300 MiB for xfs)")
        if 0 < self.size < _SMALLEST_FILE_SYSTEM:
            raise ConfigError("drivers.devmapper.size: at least 32 MiB (and 300 MiB for xfs)")

    @property
    def smallest(self) -> int:
        """Bytes of the base that a new pool gets, from which all layers grow."""
        return min(self.base_size, self.size) if self.size else self.base_size

    @property
    def on_files(self) -> bool:
        """Whether the pool lies in files of its own."""
        return self.data_device is None

    @property
    def discards(self) -> bool:
        """Whether removed blocks are given back to what lies below the pool."""
        return self.on_files if self.discard is None else self.discard


def checked(options: Any) -> DevmapperOptions:
    """The options as what they are."""
    assert isinstance(options, DevmapperOptions)  # noqa: S101  # core builds them from our own class
    return options
