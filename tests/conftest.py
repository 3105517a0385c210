"""What holds for every test: needs_root means root, and nothing of ours outlives the session."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

# pytest also reads this file where another config rules: when the suite is run from the folder above
sys.path.insert(0, str(Path(__file__).parent / "support"))

from lanes import Ledger  # found there

_LOOPS = Path("/sys/block")
_ledger = Ledger()  # a report has no way back to its config


def pytest_configure(config: pytest.Config) -> None:
    """Name our marks."""
    config.addinivalue_line("markers", "needs_root: mounts, owners or devices; skipped for ordinary users")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts what runs in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)  # programs that are interrupted in tests inherit it
    if sys.dont_write_bytecode:  # then each of the many programs that are run would compile all that it imports
        place = tempfile.mkdtemp(prefix="lamina-byte-code-")
        Path(place).chmod(0o755)  # for ordinary users, too
        config.add_cleanup(lambda: shutil.rmtree(place))
        os.environ |= {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": place}
    config.addinivalue_line("markers", "guest(lane): waits for the guest of that lane, which boots with the session")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Remember what a test told about its lane."""
    _ledger.enter(report)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Generator[None, None, None]:
    """The table of drivers and lanes comes after all else that is told; only pytest's last line follows."""
    yield
    _ledger.tell(terminalreporter)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """An ordinary user hears why a test was skipped."""
    if os.geteuid() == 0:
        return
    for item in items:
        if item.get_closest_marker("needs_root"):
            item.add_marker(pytest.mark.skip(reason="needs root"))


@pytest.fixture(scope="session", autouse=True)
def nothing_outlives_the_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No mount or loop device below our directories, and no child of ours, is there when all tests are done."""
    base = tmp_path_factory.getbasetemp()

    yield

    left = [*_mounts_below(base), *_loops_below(base), *_children()]
    assert not left, "the tests left behind: " + ", ".join(left)


def _mounts_below(base: Path) -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
    return [f"mount {target}" for line in lines if (target := line.split()[4]).startswith(f"{base}/")]


def _loops_below(base: Path) -> list[str]:
    files = {loop.name: loop / "loop/backing_file" for loop in _LOOPS.glob("loop*")}
    behind = {name: file.read_text().strip() for name, file in files.items() if file.exists()}
    return [f"/dev/{name} on {file}" for name, file in behind.items() if file.startswith(f"{base}/")]


def _children() -> list[str]:
    tasks = Path("/proc/self/task").glob("*/children")
    pids = [pid for task in tasks for pid in task.read_text().split()]
    return [f"process {pid} ({Path(f'/proc/{pid}/comm').read_text().strip()})" for pid in pids]
