"""What containers have besides their layer: `-v SOURCE:TARGET[:OPTIONS]`, `-v NAME:TARGET`, `-v TARGET`."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterable
from typing import Final

import attrs

from lamina.errors import BadRequest, InvalidName

_NAME: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{1,254}")
_PROPAGATION: Final = {"private", "rprivate", "slave", "rslave", "shared", "rshared"}
_NOTHING: Final = {"z", "Z", "consistent", "cached", "delegated"}  # about labels and caches we do not have


@attrs.frozen
class Volume:
    """One bind mount: of a place of the host (`source`), or of a volume (`name`; neither: one without a name yet)."""

    source: str
    target: str
    writable: bool = True
    propagation: str = "rprivate"
    name: str = ""
    anonymous: bool = False  # the volume goes when its container is removed with its volumes
    copied: bool = True  # what the image has at `target` is copied into a volume that is empty


def check_volume_name(name: str) -> str:
    """The name itself; InvalidName if docker would not take it."""
    if not _NAME.fullmatch(name):
        raise InvalidName(
            f"{name!r}: a volume's name is two or more of a-z A-Z 0-9 _ . - and begins with a letter or digit; "
            "for a directory of the host give an absolute path"
        )
    return name


def parse_volume(text: str) -> Volume:
    """Read `-v`; BadRequest for what it cannot be."""
    source, colon, rest = text.partition(":")
    target, _, words = rest.partition(":")
    if not colon:
        source, target = "", text
    elif not (source and target):
        raise BadRequest(f"-v {text!r}: say SOURCE:TARGET, NAME:TARGET or TARGET, with :ro for read-only")
    named = bool(source) and not os.path.isabs(source)
    volume = Volume(
        "" if named else source,
        target_of(target, f"-v {text!r}"),
        name=check_volume_name(source) if named else "",
        anonymous=not source,
    )
    for word in filter(None, words.split(",")):
        volume = _with_word(volume, word, text)
    return volume


def target_of(path: str, where: str) -> str:
    """The path in its shortest form; BadRequest unless it is an absolute one below the root."""
    shortest = posixpath.normpath(f"/{path.lstrip('/')}")
    if not posixpath.isabs(path) or shortest == "/":
        raise BadRequest(f"{where}: {path!r} is no absolute path below /")
    return shortest


def refuse_twice(volumes: Iterable[Volume]) -> None:
    """BadRequest if two are to be at one place."""
    seen: set[str] = set()
    for volume in volumes:
        if volume.target in seen:
            raise BadRequest(f"-v: two volumes for {volume.target!r}")
        seen.add(volume.target)


def _with_word(volume: Volume, word: str, text: str) -> Volume:
    if word in {"ro", "rw"}:
        return attrs.evolve(volume, writable=word == "rw")
    if word in _PROPAGATION and volume.source:
        return attrs.evolve(volume, propagation=word)
    if word == "nocopy":
        return attrs.evolve(volume, copied=False)
    if word in _NOTHING:
        return volume
    raise BadRequest(f"-v {text!r}: {word!r} means nothing here; ro and rw do, and {', '.join(sorted(_PROPAGATION))}")
