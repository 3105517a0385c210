"""Random input and output goes on beside all other tests for five minutes; `make soak-fuse` asks for an hour."""

from __future__ import annotations

import json

import pytest
from soak import LEAST, SECONDS
from soaking import Soak

pytestmark = pytest.mark.needs_root


@pytest.mark.soak
@pytest.mark.timeout(SECONDS + 600)
def test_random_io_leaves_what_a_model_says_for_five_minutes(soak: Soak, capfd: pytest.CaptureFixture[str]) -> None:
    told = soak.wait()

    assert told.returncode == 0, told.stderr
    done = json.loads(told.stdout)
    assert done["steps"] >= LEAST
    assert done["kills"] > 0
    with capfd.disabled():
        print(f"\nsoak of fuse: {done['steps']} steps, {done['kills']} servers killed, {SECONDS:.0f} s")  # noqa: T201
