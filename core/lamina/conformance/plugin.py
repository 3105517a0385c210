"""The pytest plugin: which driver, where, with which options; rooms for tests; abilities that become skips."""

from __future__ import annotations

import contextlib
import importlib
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import tomllib
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import hypothesis
import pytest

pytest.register_assert_rewrite("lamina.conformance.harness", "lamina.conformance.crash")

from lamina.config import driver_options  # noqa: E402  # after the line that has pytest explain our assertions
from lamina.conformance import leaks, summary  # noqa: E402
from lamina.conformance.caller import is_root  # noqa: E402
from lamina.conformance.harness import Room  # noqa: E402
from lamina.driver import Ability, Driver, Health  # noqa: E402
from lamina.errors import LaminaError  # noqa: E402
from lamina.plugins import load_driver  # noqa: E402
from lamina.snapshotter import Snapshotter  # noqa: E402

Rooms = Callable[[], AbstractContextManager[Room]]

_driver_key = pytest.StashKey[type[Driver]]()
_options_key = pytest.StashKey[Any]()
_base_key = pytest.StashKey[Path]()
_health_key = pytest.StashKey[Health]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of `lamina conformance`."""
    group = parser.getgroup("lamina", "conformance of a storage driver")
    group.addoption("--driver", metavar="NAME", help="the driver to test, or module:Class of one that is not installed")
    group.addoption("--driver-root", metavar="DIR", type=Path, help="make the stores below DIR instead of $TMPDIR")
    group.addoption("--driver-option", metavar="K=V", action="append", default=[], help="an option of the driver")
    group.addoption("--must-run", action="store_true", help="a driver that cannot be used here fails, not skips")
    group.addoption("--time-limit", metavar="S", type=int, default=300, help="seconds for one test, then it fails")
    group.addoption("--examples", metavar="N", type=int, default=15, help="how many random histories to play")
    group.addoption("--crash-stride", metavar="N", type=int, default=1, help="die at every Nth step only")


def pytest_configure(config: pytest.Config) -> None:
    """Load the driver, ask it about this host, and find a place to work."""
    config.addinivalue_line("markers", "needs(ability, …): skipped if the driver names one of them as lacking")
    config.addinivalue_line("markers", "needs_root: skipped for ordinary users")
    if not config.getoption("driver"):
        raise pytest.UsageError("which driver? say --driver NAME")
    try:
        config.stash[_driver_key] = _find_driver(config.getoption("driver"))
        config.stash[_options_key] = driver_options(config.stash[_driver_key], _option_table(config))
    except LaminaError as error:
        raise pytest.UsageError(str(error)) from error
    base = tempfile.mkdtemp(prefix="lamina-suite-", dir=config.getoption("driver_root"))
    config.stash[_base_key] = Path(base).resolve()  # as the kernel lists what is mounted there
    config.stash[_base_key].chmod(0o711)
    config.stash[_health_key] = _asked_health(config)
    if config.stash[_health_key].ok:
        config.stash[_driver_key] = _as_found_here(config)
    _set_up_hypothesis(config.getoption("examples"))
    summary.begin(config, config.stash[_driver_key], config.stash[_health_key])


def pytest_unconfigure(config: pytest.Config) -> None:
    """Nothing of ours stays on the disk."""
    base = config.stash.get(_base_key, None)
    if base is not None:
        subprocess.run(["rm", "-rf", "--one-file-system", base], check=False)


def _find_driver(name: str) -> type[Driver]:
    module, colon, attribute = name.partition(":")
    if not colon:
        return load_driver(name)
    try:
        found: object = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise pytest.UsageError(f"--driver {name}: {error}") from error
    if not (isinstance(found, type) and issubclass(found, Driver)):
        raise pytest.UsageError(f"--driver {name}: {attribute} is not a subclass of lamina.driver.Driver")
    return found


def _option_table(config: pytest.Config) -> dict[str, Any]:
    table = {}
    for pair in config.getoption("driver_option"):
        key, equals, value = pair.partition("=")
        if not equals:
            raise pytest.UsageError(f"--driver-option {pair}: say KEY=VALUE")
        try:
            table[key] = tomllib.loads(f"value = {value}")["value"]  # 5, true, ["a"]: as in the config file
        except tomllib.TOMLDecodeError:
            table[key] = value
    return table


def _driver_of(config: pytest.Config, base: Path) -> Driver:
    driver = config.stash[_driver_key]
    return driver(base / driver.name / "layers", config.stash[_options_key])


def _asked_health(config: pytest.Config) -> Health:
    driver = _driver_of(config, config.stash[_base_key])
    try:
        return driver.health()
    except Exception as error:  # a driver's own mistake, and no reason for a traceback of pytest's
        shutil.rmtree(config.stash[_base_key], ignore_errors=True)  # nobody unconfigures what was never configured
        raise pytest.UsageError(f"{driver.name}: health() raised {error!r}; it has to return its problems") from error


def _as_found_here(config: pytest.Config) -> type[Driver]:
    """The driver, with what it lacks on this host beside what it lacks on any."""
    driver = config.stash[_driver_key]
    lacking = _driver_of(config, config.stash[_base_key]).lacking()
    return driver if lacking == driver.cannot else type(driver.__name__, (driver,), {"cannot": lacking})


def _set_up_hypothesis(examples: int) -> None:
    hypothesis.settings.register_profile(
        "lamina",
        max_examples=examples,
        stateful_step_count=30,
        deadline=None,  # a disk may be slow
        database=None,  # nothing is written where we happen to stand
        suppress_health_check=list(hypothesis.HealthCheck),
        print_blob=True,
    )
    hypothesis.settings.load_profile("lamina")


# skips: by health, by ability, by who we are


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test that this driver or this user cannot pass says why instead."""
    health = item.config.stash[_health_key]
    if not health.ok:
        _refuse(item, f"the driver cannot be used here: {'; '.join(health.problems)}")
    lacking = item.config.stash[_driver_key].cannot
    for mark in item.iter_markers("needs"):
        for ability in mark.args:
            assert isinstance(ability, Ability)
            if ability in lacking:
                pytest.skip(f"lacks {ability.name}")
    if not is_root() and next(item.iter_markers("needs_root"), None):
        pytest.skip("needs root")


def _refuse(item: pytest.Item, why: str) -> NoReturn:
    if not item.config.getoption("must_run"):
        pytest.skip(why)
    item.session.shouldfail = why
    pytest.fail(why, pytrace=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Whoever hangs is interrupted; pytest-timeout, where it is installed, does this by itself."""
    if item.config.pluginmanager.hasplugin("timeout"):
        return (yield)

    limit = item.config.getoption("time_limit")

    def too_long(_signum: int, _frame: FrameType | None) -> NoReturn:
        pytest.fail(f"took longer than {limit} seconds")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(limit)
    try:
        return (yield)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


# fixtures


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left(pytestconfig: pytest.Config) -> Iterator[None]:
    """When all is over, no mount, loop device or process of the suite remains."""
    base = pytestconfig.stash[_base_key]
    before = os.umask(0o022)
    yield
    os.umask(before)
    left = [*leaks.mounts_below(base), *leaks.loops_below(base), *leaks.processes_below(base)]
    assert not left, "left behind on this host: " + ", ".join(left)


@pytest.fixture(scope="session")
def driver_class(pytestconfig: pytest.Config) -> type[Driver]:
    """The class of the driver under test."""
    return pytestconfig.stash[_driver_key]


@pytest.fixture(scope="session")
def rooms(pytestconfig: pytest.Config) -> Rooms:
    """A maker of rooms, for tests that want a fresh store in every round."""
    numbers = itertools.count(1)
    config = pytestconfig

    @contextmanager
    def new_room() -> Iterator[Room]:
        path = config.stash[_base_key] / f"room-{next(numbers)}"
        path.mkdir(mode=0o711)
        room = Room(path, config.stash[_driver_key], config.stash[_options_key])
        with closing_room(room):
            yield room

    return new_room


@contextmanager
def closing_room(room: Room) -> Iterator[None]:
    """Clear the room at the end; if something in it is still mounted then, unmount it and say so."""
    try:
        yield
    finally:
        stray = leaks.mounts_below(room.path)
        with contextlib.suppress(Exception):
            room.driver().stop()
        for point in leaks.mounts_below(room.path):
            subprocess.run(["umount", "-l", point], check=False)
        room.clear()
        shutil.rmtree(room.path, ignore_errors=True)
    assert not stray, "still mounted at the end of the test: " + ", ".join(stray)


@pytest.fixture
def room(rooms: Rooms) -> Iterator[Room]:
    """A room with an empty store that nobody has opened yet."""
    with rooms() as fresh:
        yield fresh


@pytest.fixture
def snapshots(room: Room) -> Iterator[Snapshotter]:
    """A snapshotter on the room's store."""
    with room.open() as opened:
        yield opened


# the report


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Remember the outcome for the table at the end."""
    summary.note(report)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What a driver's author wants to know."""
    summary.tell(terminalreporter)
