"""Volumes: directories of the store that outlive containers, each under a name.

`ROOT/volumes/NAME/_data` is what containers see, `volume.json` beside it what is known. A volume appears, is filled
from an image and goes by one rename each, so a crash leaves all of it or nothing; its leftovers are seen to by the next
one who fills or removes.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import attrs

from lamina.containers.volumes import check_volume_name
from lamina.errors import NotFound, StoreBroken
from lamina.images.fields import format_time
from lamina.trees import remove_tree, sync_tree

_PART: Final = ".part-"  # no name begins with a dot
_RECORD: Final = "volume.json"


@attrs.frozen
class Known:
    """What is noted of a volume."""

    name: str
    created: datetime
    labels: Mapping[str, str] = attrs.field(factory=dict)
    anonymous: bool = False


@attrs.frozen
class Volumes:
    """All volumes of a store."""

    home: Path

    def data(self, name: str) -> Path:
        """What containers see of it; it need not be there."""
        return self.home / name / "_data"

    @contextlib.contextmanager
    def held(self, *, alone: bool = False) -> Iterator[None]:
        """No volume goes within the block; with `alone` none comes, either, and leftovers of crashes are gone.

        A dead process holds nothing.
        """
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(self.home / ".lock", fcntl.LOCK_EX if alone else fcntl.LOCK_SH):
            for left in self.home.glob(f"{_PART}*") if alone else ():
                remove_tree(left)
            yield

    def list(self) -> tuple[Known, ...]:
        """All of them, by name."""
        try:
            names = sorted(name for name in os.listdir(self.home) if not name.startswith("."))
        except FileNotFoundError:
            return ()
        return tuple(found for name in names if (found := self._read(name)) is not None)

    def find(self, name: str) -> Known:
        """What is noted of it; NotFound."""
        found = None if name.startswith(".") or "/" in name else self._read(name)
        if found is None:
            raise NotFound(f"no volume {name!r}; `lamina volume ls` lists those that are")
        return found

    def make(self, name: str | None = None, labels: Mapping[str, str] | None = None) -> Known:
        """It is there, empty if it is new; what was there stays as it was. Without a name it gets one: 64 digits.

        To be called within `held`.
        """
        known = Known(check_volume_name(name or secrets.token_hex(32)), datetime.now(UTC), labels or {}, not name)
        if (found := self._read(known.name)) is not None:
            return found
        part = self._part(self.home)
        try:
            (part / "_data").mkdir(mode=0o755)
            (part / "_data").chmod(0o755)  # whatever the umask says
            _write(part / _RECORD, known)
            os.rename(part, self.home / known.name)
        except OSError as error:
            if error.errno not in {errno.EEXIST, errno.ENOTEMPTY}:  # else another process was quicker
                raise
            return self.find(known.name)
        finally:
            remove_tree(part)
        return known

    def fill(self, name: str, copy: Callable[[Path], object]) -> None:
        """If nothing is in it, it holds what `copy` puts into a directory, all of it or (when that raises) nothing."""
        volume = self.home / name
        with _locked(volume / "lock", fcntl.LOCK_EX):
            for left in volume.glob(f"{_PART}*"):  # nobody else fills it
                remove_tree(left)
            if os.listdir(volume / "_data"):
                return
            part = self._part(volume)
            try:
                copy(part)
                sync_tree(part)  # before it counts as filled
                os.rename(part, volume / "_data")
            finally:
                remove_tree(part)

    def remove(self, name: str) -> None:
        """It is gone. To be called within `held(alone=True)`, or by whoever has just made it."""
        part = self._part(self.home)
        try:
            os.rename(self.home / name, part / "gone")
        finally:
            remove_tree(part)

    def _part(self, directory: Path) -> Path:
        part = directory / f"{_PART}{secrets.token_hex(8)}"
        part.mkdir(mode=0o700, parents=True)
        return part

    def _read(self, name: str) -> Known | None:
        try:
            fields: dict[str, Any] = json.loads((self.home / name / _RECORD).read_text(encoding="utf-8"))
            created = datetime.fromisoformat(fields["created"]).astimezone(UTC)
            return Known(name, created, fields.get("labels", {}), fields.get("anonymous", False))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise StoreBroken(f"the record of volume {name!r} cannot be read: {error}") from error


def inspect_volume(volumes: Volumes, known: Known) -> dict[str, Any]:
    """As `docker volume inspect` has it."""
    return {
        "CreatedAt": format_time(known.created),
        "Driver": "local",
        "Labels": dict(known.labels),
        "Mountpoint": str(volumes.data(known.name)),
        "Name": known.name,
        "Options": {},
        "Scope": "local",
    }


def _write(path: Path, known: Known) -> None:
    fields = {"created": format_time(known.created), "labels": dict(known.labels), "anonymous": known.anonymous}
    with path.open("w", encoding="utf-8") as file:
        json.dump(fields, file)
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def _locked(path: Path, how: int) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)
