"""Signals by name and number, as docker takes them."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from typing import Any

from lamina.errors import BadRequest


def parse_signal(text: str) -> int:
    """`TERM`, `SIGTERM`, `sigterm` or `15`; BadRequest if there is no such signal."""
    upper = text.upper()
    if upper.isdecimal() and 0 < int(upper) < signal.NSIG:
        return int(upper)
    name = upper if upper.startswith("SIG") else f"SIG{upper}"
    try:
        return signal.Signals[name].value
    except KeyError:
        raise BadRequest(f"there is no signal {text!r}") from None


def stop_signal(settings: Mapping[str, Any]) -> int:
    """What the image says that ends its process; else SIGTERM."""
    return parse_signal(settings.get("StopSignal") or "TERM")
