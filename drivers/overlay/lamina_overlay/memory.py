"""The answer of the last examination, kept in the driver's home while it can be relied on."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any, Final

import attrs

from lamina.driver import Ability, Health
from lamina.mount import boot_id
from lamina_overlay.pinned import attribute_prefix

_NOTE: Final = "probes.json"
_EDITION: Final = 2  # of what is asked; a change of `trial` or `backing` raises it


@attrs.frozen
class Answer:
    """Whether layers can be kept there, and what they cannot do there."""

    health: Health
    lacking: frozenset[Ability] = frozenset()


def question(place: Path, *, volatile: bool) -> dict[str, Any]:
    """All that the answer depends on: asked differently, the old one does not count."""
    return {
        "boot": boot_id(),
        "kernel": os.uname().release,
        "edition": _EDITION,
        "device": place.stat().st_dev,
        "user": os.geteuid(),
        "attributes": attribute_prefix(),
        "volatile": volatile,
    }


def recall(home: Path, asked: dict[str, Any]) -> Answer | None:
    """The answer to the same question, if there is one; a damaged note counts as none."""
    try:
        note = json.loads((home / _NOTE).read_text(encoding="utf-8"))
        if note["asked"] != asked:
            return None
        lacking = frozenset(Ability[name] for name in note["lacking"])
        return Answer(Health(notes=tuple(note["notes"])), lacking)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remember(home: Path, asked: dict[str, Any], answer: Answer) -> None:
    """Keep a good answer; a home that cannot be written keeps none."""
    unfinished = home / f"{_NOTE}.{os.getpid()}"
    lacking = sorted(ability.name for ability in answer.lacking)
    told = json.dumps({"asked": asked, "notes": answer.health.notes, "lacking": lacking})
    with contextlib.suppress(OSError):
        unfinished.write_text(told, encoding="utf-8")
        unfinished.rename(home / _NOTE)
