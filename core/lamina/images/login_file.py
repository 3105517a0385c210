"""Docker's config.json: read, and changed so that nothing of it is lost and only its owner can read it."""

from __future__ import annotations

import base64
import binascii
import contextlib
import fcntl
import json
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from lamina.errors import BadArchive, ConfigError
from lamina.images import fields
from lamina.images.partial import sync_directory

NAME: Final = "config.json"


def path_of(environ: Mapping[str, str]) -> Path:
    """Where it is: in DOCKER_CONFIG, else in `~/.docker`."""
    directory = environ.get("DOCKER_CONFIG")
    return (Path(directory) if directory else Path(environ.get("HOME") or Path.home()) / ".docker") / NAME


def read(path: Path) -> dict[str, Any]:
    """The whole document; empty if there is no such file. ConfigError if it cannot be understood."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        return fields.read_object(raw, str(path)) if raw.strip() else {}
    except BadArchive as error:
        raise ConfigError(f"{path}: {error.why}") from None


def change(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Edit its table `auths`; the rest stays. Either the old or the new file is there, whatever happens."""
    path = Path(os.path.realpath(path))  # a link stays a link
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _alone(path.parent):
        document = read(path)
        auths = fields.table(document, "auths", NAME)
        edit(auths)
        _replace(path, encode({**document, "auths": auths}))


def pack(username: str, password: str) -> str:
    """As the file has them."""
    return base64.b64encode(f"{username}:{password}".encode()).decode("ascii")


def unpack(text: str, what: str) -> tuple[str, str]:
    """Undo `pack`; ConfigError."""
    try:
        username, colon, password = base64.b64decode(text, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        colon = ""
    if not colon:
        raise ConfigError(f"{what}: auth is not the base64 of USER:PASSWORD") from None
    return username, password.rstrip("\0")


def encode(document: Mapping[str, Any]) -> str:
    """As docker writes it."""
    return json.dumps(document, indent="\t", ensure_ascii=False)


@contextlib.contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """No other lamina changes a file of this directory meanwhile."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _replace(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        draft.rename(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)
