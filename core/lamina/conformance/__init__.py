"""The suite that every driver passes on a real kernel: `lamina conformance NAME`.

The same by hand: `pytest -p lamina.conformance.plugin --pyargs lamina.conformance --driver NAME`.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from lamina.errors import BadRequest

__all__ = ["run"]


def run(name: str, args: Sequence[str] = ()) -> int:
    """Run the suite on the driver of this name and return pytest's exit status: 0 says that the driver conforms.

    `name` is what config says, or `module:Class` for a driver that is not installed. `args` go to pytest; a word
    such as `lamina.conformance.test_life` among them runs that part alone.
    """
    for extra in ("pytest", "hypothesis"):
        # looked for, not imported: pytest wants to be the first to import what brings plugins of its own
        if find_spec(extra) is None:
            raise BadRequest(f"the suite needs {extra}; install it by `pip install 'lamina[conformance]'`")
    import pytest  # noqa: PLC0415  # most installations never run the suite

    chosen = any(word.startswith(__name__) for word in args)
    # our own settings: those of the directory we happen to stand in are somebody else's
    settings = Path(__file__).with_name("pytest.ini")
    whole = ["-c", str(settings), "-p", f"{__name__}.plugin", "--driver", name, *args]
    return int(pytest.main([*whole, "--pyargs", *([] if chosen else [__name__])]))
