"""Each guest boots when the session starts, and works while the other lanes are tested."""

from __future__ import annotations

import pytest
from guests import guest_of
from uml import Guest

_guests = pytest.StashKey[dict[str, Guest]]()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The results of the guests are asked for last."""
    items.sort(key=lambda item: item.get_closest_marker("guest") is not None)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Boot what the chosen tests will ask for."""
    session.stash[_guests] = {}
    if session.config.option.collectonly:
        return
    lanes = dict.fromkeys(str(mark.args[0]) for item in session.items for mark in item.iter_markers("guest"))
    for lane in lanes:
        if (guest := guest_of(lane)) is not None:
            session.stash[_guests][lane] = guest
            guest.start()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """No guest outlives the session, whatever became of it."""
    for guest in session.stash.get(_guests, {}).values():
        guest.close()


@pytest.fixture(scope="session")
def guests(request: pytest.FixtureRequest) -> dict[str, Guest]:
    """The guests of this session, by their lanes."""
    return request.session.stash[_guests]
