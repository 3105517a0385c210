"""A shorter way from one request to the next.

pyfuse3 takes a lock and asks trio to wait for its descriptor before each request: two thirds of a small one's time.
Only one task of ours reads, so the lock guards nothing; and when requests follow each other closely, the next one is
there before trio has looked. pyfuse3 finds trio by a module attribute, which its own asyncio mode replaces, too.
"""

from __future__ import annotations

import ctypes
import select
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Final, Self

import pyfuse3
import trio

_LONGEST: Final = 0.1  # seconds between two looks at trio, which has signals to deliver
_PATIENCE: Final = 100  # milliseconds to wait for the next request before trio does, which takes longer to wake


class _Open:
    """A lock that guards nothing."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return


class _Waiter:
    def __init__(self, in_a_pause: Callable[[Callable[[], object]], None]) -> None:
        self._in_a_pause = in_a_pause
        self._poll = select.poll()
        self._watched = -1
        self._looked = 0.0  # when trio was last left to wait
        self._comes_soon = _accelerated() or self._soon

    async def wait_readable(self, descriptor: int) -> None:
        """Return when there is a request; stay with trio while nobody asks."""
        if descriptor != self._watched:
            self._poll.register(descriptor, select.POLLIN)
            self._watched = descriptor
        self._in_a_pause(self._at_hand)
        if self._comes_soon(descriptor):
            return
        await trio.lowlevel.wait_readable(descriptor)

    def _at_hand(self) -> object:
        return self._poll.poll(0)

    def _soon(self, _descriptor: int) -> object:
        if time.monotonic() - self._looked < _LONGEST and (self._at_hand() or self._poll.poll(_PATIENCE)):
            return True
        self._looked = time.monotonic()
        return False


def _accelerated() -> Callable[[int], object] | None:
    """The accelerator's way to wait, which stays awake a little; None without it."""
    return getattr(ctypes.PyDLL(None), "lamina_fuse_wait", None)


def shorten(in_a_pause: Callable[[Callable[[], object]], None]) -> None:
    """Let pyfuse3's loop take the shorter way; it has to run with one task.

    `in_a_pause` is called before each wait: it works off what nobody waits for, until what it is given says that
    somebody asks.
    """
    lowlevel = SimpleNamespace(**vars(trio.lowlevel))
    lowlevel.wait_readable = _Waiter(in_a_pause).wait_readable
    shim = SimpleNamespace(**{name: getattr(trio, name) for name in trio.__dict__ if not name.startswith("_")})
    shim.lowlevel, shim.Lock = lowlevel, _Open
    vars(pyfuse3)["trio"] = shim
