"""Drivers without root's powers: as an ordinary user made for this, and as root of that user's own namespace."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs
import pytest
from lanes import LANES, Outcome, outcome_of, record
from people import may_open_fuse

HOUSE: Final = Path(__file__).parents[2]
# what only developers need, and what is large
SPARED: Final = ("ast_serialize*", "grimp*", "hatchling*", "librt*", "mypy*", "pip*", "ruff*", "__pycache__", "*.pth")
NAMESPACE: Final = ("unshare", "--user", "--map-root-user", "--mount")
SUITE: Final = ("-m", "lamina.cli.main", "conformance")
# root plays more random histories of the same drivers, and dies at every step, on the same kernel
TRIMMED: Final = ("--examples", "5", "--crash-stride", "61")
TRIMMED_MORE: Final = {
    # likewise a third of the time; that a server takes 500 layers does not depend on who started it
    "fuse": ("-k", "not deep_stack and not 500"),
    # each layer is a whole copy, for which a user needs nothing that root does not: a third of the suite's time
    "vfs": ("-k", "not deep_stack"),
}


@attrs.frozen
class User:
    """An ordinary user with a place of their own, and a Python there that can run the suite."""

    name: str
    place: Path
    python: Path


@pytest.fixture(scope="module")
def user() -> Iterator[User]:
    """Their Python is the system's: the one that runs this may lie where only root may look."""
    if os.geteuid() != 0:
        yield User(pwd.getpwuid(os.geteuid()).pw_name, Path(tempfile.mkdtemp()), Path(sys.executable))
        return
    place = Path(tempfile.mkdtemp(prefix="lamina-user-"))
    name = f"lamina-test-{os.getpid()}"
    subprocess.run(["useradd", "--no-create-home", "--home-dir", place, name], check=True)
    try:
        python = _python_in(place / "python")
        (place / "own").mkdir()
        shutil.chown(place / "own", name, name)
        place.chmod(0o755)
        with may_open_fuse(pwd.getpwnam(name).pw_uid):
            yield User(name, place / "own", python)
    finally:
        subprocess.run(["userdel", "--force", name], check=True)
        subprocess.run(["rm", "-rf", "--one-file-system", place], check=True)


def _python_in(place: Path) -> Path:
    """A Python that everybody may run, with lamina, its drivers and what the suite needs, all copied."""
    subprocess.run(["/usr/bin/python3", "-m", "venv", "--without-pip", place], check=True)
    (packages,) = place.glob("lib/python3*/site-packages")
    own = Path(pytest.__file__).parents[1]
    shutil.copytree(own, packages, ignore=shutil.ignore_patterns(*SPARED), dirs_exist_ok=True)
    for package in [HOUSE / "core/lamina", *HOUSE.glob("drivers/*/lamina_*")]:
        shutil.copytree(package, packages / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(HOUSE / "tests", place.parent / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run(["chmod", "-R", "a+rX", place.parent], check=True)
    return place / "bin/python"


def _run_as(user: User, argv: list[str], report: Path) -> subprocess.CompletedProcess[str]:
    become = ["setpriv", "--reuid", user.name, "--regid", user.name, "--init-groups", "--inh-caps=-all"]
    environ = ["env", f"HOME={user.place}", f"TMPDIR={user.place}", f"PYTHONPATH={user.place.parent / 'tests/support'}"]
    whole = [
        *(become if os.geteuid() == 0 else []),
        *environ,
        *argv,
        "-p",
        "no:cacheprovider",
        "--junitxml",
        str(report),
    ]
    return subprocess.run(whole, cwd=user.place, capture_output=True, text=True, check=False)


def _assert_passed(told: subprocess.CompletedProcess[str], node: pytest.Item, outcome: Outcome, report: Path) -> None:
    assert report.exists(), told.stdout + told.stderr
    outcome = outcome_of(outcome.driver, outcome.lane, report)
    record(node, outcome)
    assert not outcome.failures, "\n\n".join(outcome.failures)
    assert outcome.passed


@pytest.mark.timeout(900)
@pytest.mark.parametrize("driver", LANES["userns"])
def test_the_driver_conforms_in_a_namespace_of_the_user(
    driver: str, user: User, request: pytest.FixtureRequest
) -> None:
    outcome, report = Outcome(driver, "userns"), user.place / f"userns-{driver}.xml"
    record(request.node, outcome)
    suite = [str(user.python), *SUITE, driver, "--must-run", *TRIMMED, *TRIMMED_MORE.get(driver, ())]

    told = _run_as(user, [*NAMESPACE, *suite], report)

    _assert_passed(told, request.node, outcome, report)


@pytest.mark.parametrize("driver", LANES["user"])
def test_the_drivers_own_tests_pass_without_any_powers(driver: str, user: User, request: pytest.FixtureRequest) -> None:
    """The suite mounts, which needs a namespace at least; the driver itself must not need one."""
    outcome, report = Outcome(driver, "user"), user.place / f"user-{driver}.xml"
    record(request.node, outcome)
    tests = user.place.parent / f"tests/drivers/test_{driver}.py"

    told = _run_as(user, [str(user.python), "-m", "pytest", str(tests)], report)

    _assert_passed(told, request.node, outcome, report)
