"""Directories and files of the host inside a container: `-v SOURCE:TARGET[:OPTIONS]`."""

from __future__ import annotations

import os
import posixpath
from typing import Final

import attrs

from lamina.errors import BadRequest

_PROPAGATION: Final = {"private", "rprivate", "slave", "rslave", "shared", "rshared"}
_NOTHING: Final = {"z", "Z", "nocopy", "consistent", "cached", "delegated"}  # about labels and caches we do not have


@attrs.frozen
class Volume:
    """One bind mount."""

    source: str
    target: str
    writable: bool = True
    propagation: str = "rprivate"


def parse_volume(text: str) -> Volume:
    """Read `-v`; BadRequest for what it cannot be."""
    source, _, rest = text.partition(":")
    target, _, words = rest.partition(":")
    if not target:
        raise BadRequest(f"-v {text!r}: say SOURCE:TARGET or SOURCE:TARGET:ro")
    if not os.path.isabs(source):
        raise BadRequest(f"-v {text!r}: {source!r} is no absolute path; volumes with names are not kept here")
    if not posixpath.isabs(target) or posixpath.normpath(target) == "/":
        raise BadRequest(f"-v {text!r}: {target!r} is no absolute path below /")
    volume = Volume(source, posixpath.normpath(target))
    for word in filter(None, words.split(",")):
        volume = _with_word(volume, word, text)
    return volume


def _with_word(volume: Volume, word: str, text: str) -> Volume:
    if word in {"ro", "rw"}:
        return attrs.evolve(volume, writable=word == "rw")
    if word in _PROPAGATION:
        return attrs.evolve(volume, propagation=word)
    if word in _NOTHING:
        return volume
    raise BadRequest(f"-v {text!r}: {word!r} means nothing here; ro and rw do, and {', '.join(sorted(_PROPAGATION))}")
