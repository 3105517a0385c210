"""The soak of fuse begins when the session starts, and goes on while other tests run."""

from __future__ import annotations

import pytest
from soaking import Soak

_soak = pytest.StashKey[Soak]()


def pytest_configure(config: pytest.Config) -> None:
    """Name our mark."""
    config.addinivalue_line("markers", "soak: waits for the program that soaks fuse, which starts with the session")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What it tells is asked for last."""
    items.sort(key=lambda item: item.get_closest_marker("soak") is not None)


def pytest_collection_finish(session: pytest.Session) -> None:
    """It starts if a test will ask for it, and that is not skipped."""
    chosen = [item for item in session.items if item.get_closest_marker("soak")]
    if chosen and not session.config.option.collectonly and not any(chosen[0].iter_markers("skip")):
        session.stash[_soak] = Soak()
        session.stash[_soak].start()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """It does not outlive the session, whatever became of that."""
    if (started := session.stash.get(_soak, None)) is not None:
        started.close()


@pytest.fixture(scope="session")
def soak(request: pytest.FixtureRequest) -> Soak:
    """The program that soaks."""
    return request.session.stash[_soak]
