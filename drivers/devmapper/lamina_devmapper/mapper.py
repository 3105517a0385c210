"""The kernel's device mapper, by its ioctls (linux/dm-ioctl.h): devices, their tables, messages to them."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import attrs

CONTROL: Final = "/dev/mapper/control"

# struct dm_ioctl: version[3], data_size, data_start, target_count, open_count, flags, event_nr, -, dev, name, uuid
_HEADER: Final = struct.Struct("<3I I I I i I I I Q 128s 129s 7x")
_TARGET: Final = struct.Struct("<Q Q i I 16s")  # struct dm_target_spec: start, length, status, next, type
_ROOM: Final = 16 << 10

_VERSION, _LIST, _CREATE, _REMOVE, _SUSPEND, _STATUS, _LOAD = 0, 2, 3, 4, 6, 7, 9
_TABLE_STATUS, _MESSAGE, _TARGET_VERSION = 12, 14, 17

_READ_ONLY: Final = 1 << 0
_SUSPENDED: Final = 1 << 1
_AS_TABLE: Final = 1 << 4
_HAS_TABLE: Final = 1 << 5
_TRUNCATED: Final = 1 << 8
_DEFERRED: Final = 1 << 17


@attrs.frozen
class Target:
    """One line of a device's table: sectors of 512 bytes, the kind of target, its words."""

    length: int
    kind: str
    words: str
    start: int = 0


@attrs.frozen
class Device:
    """A device as the kernel tells it."""

    name: str
    number: tuple[int, int]
    open_count: int
    has_table: bool
    suspended: bool
    read_only: bool
    to_be_removed: bool

    @property
    def node(self) -> str:
        """Its name in /dev, which the kernel makes by itself."""
        return f"/dev/dm-{self.number[1]}"

    @property
    def numbers(self) -> str:
        """As tables name it."""
        return f"{self.number[0]}:{self.number[1]}"


class Mapper:
    """The control device. Each call opens it, so that nothing is held; every failure is an `OSError`."""

    def has_target(self, kind: str) -> bool:
        """Whether the kernel offers a target; it loads the module if it has one."""
        try:
            self._call(_TARGET_VERSION, kind)
        except OSError as error:
            if error.errno in {errno.EINVAL, errno.ENXIO, errno.ENOTTY}:
                return False
            raise
        return True

    def find(self, name: str) -> Device | None:
        """The device of that name, if there is one."""
        try:
            return _device(name, self._call(_STATUS, name)[0])
        except OSError as error:
            if error.errno == errno.ENXIO:
                return None
            raise

    def names(self) -> list[str]:
        """All devices of this machine."""
        _, data = self._call(_LIST, room=256 << 10)
        found, at = [], 0
        while at < len(data):
            number, following = struct.unpack_from("<QI", data, at)
            if number:
                found.append(data[at + 12 :].split(b"\0", 1)[0].decode())
            if not following:
                break
            at += following
        return found

    def create(self, name: str, table: Sequence[Target], *, read_only: bool = False) -> Device:
        """A new, active device. When this raises, there is none."""
        self._call(_CREATE, name, uuid=f"LAMINA-{name}")
        try:
            self.load(name, table, read_only=read_only)
            return self.resume(name)
        except BaseException:
            with suppress(OSError):
                self._call(_REMOVE, name)
            raise

    def load(self, name: str, table: Sequence[Target], *, read_only: bool = False) -> None:
        """Give a device another table, which counts from `resume` on."""
        payload = b"".join(map(_packed, table))
        self._call(_LOAD, name, flags=_READ_ONLY if read_only else 0, payload=payload, count=len(table))

    def suspend(self, name: str) -> None:
        """Everything written is on its way down, and nothing more goes through until `resume`."""
        self._call(_SUSPEND, name, flags=_SUSPENDED)

    def resume(self, name: str) -> Device:
        """The device works, with the table that was loaded last."""
        return _device(name, self._call(_SUSPEND, name)[0])

    def remove(self, name: str, *, deferred: bool = False) -> bool:
        """The device is gone, or, `deferred`, goes when its last user does; False if somebody has it open now."""
        try:
            header, _ = self._call(_REMOVE, name, flags=_DEFERRED if deferred else 0)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return True
            if error.errno == errno.EBUSY:
                return False
            raise
        return not (deferred and header[7] & _DEFERRED)

    def message(self, name: str, words: str) -> None:
        """Tell the device's target something."""
        self._call(_MESSAGE, name, payload=struct.pack("<Q", 0) + words.encode() + b"\0")

    def status(self, name: str) -> str:
        """What the device's target says of itself."""
        return self._told(name, 0)

    def table(self, name: str) -> str:
        """The words of the device's target."""
        return self._told(name, _AS_TABLE)

    def _told(self, name: str, flags: int) -> str:
        _, data = self._call(_TABLE_STATUS, name, flags=flags)
        return data[_TARGET.size :].split(b"\0", 1)[0].decode().strip()

    def _call(  # noqa: PLR0913  # as many as the struct has fields of interest
        self,
        command: int,
        name: str = "",
        *,
        flags: int = 0,
        payload: bytes = b"",
        count: int = 0,
        uuid: str = "",
        room: int = _ROOM,
    ) -> tuple[tuple[int, ...], bytes]:
        buffer = bytearray(max(room, _HEADER.size + len(payload)))
        _HEADER.pack_into(
            buffer, 0, 4, 0, 0, len(buffer), _HEADER.size, count, 0, flags, 0, 0, 0, name.encode(), uuid.encode()
        )
        buffer[_HEADER.size : _HEADER.size + len(payload)] = payload
        control = os.open(CONTROL, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.ioctl(control, (3 << 30) | (_HEADER.size << 16) | (0xFD << 8) | command, buffer)
        except OSError as error:
            raise OSError(error.errno, f"device mapper, {name}: {os.strerror(error.errno or 0)}") from None
        finally:
            os.close(control)
        header = _HEADER.unpack_from(buffer)
        if header[7] & _TRUNCATED:
            raise OSError(errno.ENOBUFS, "device mapper: the answer is too long")
        return header, bytes(buffer[header[4] : header[3]])


def _device(name: str, header: tuple[int, ...]) -> Device:
    number, flags = header[10], header[7]
    return Device(
        name=name,
        number=(os.major(number), os.minor(number)),
        open_count=header[6],
        has_table=bool(flags & _HAS_TABLE),
        suspended=bool(flags & _SUSPENDED),
        read_only=bool(flags & _READ_ONLY),
        to_be_removed=bool(flags & _DEFERRED),
    )


def _packed(target: Target) -> bytes:
    words = target.words.encode() + b"\0"
    words += b"\0" * (-len(words) % 8)
    return _TARGET.pack(target.start, target.length, 0, _TARGET.size + len(words), target.kind.encode()) + words
