"""The command of the suite: which driver, which options, what is skipped, what the report says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from lamina.conformance import run

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the suite mounts")
QUICK = ["lamina.conformance.test_driver", "-k", "touches_nothing or unknown"]


def suite(directory: Path, driver: str, *args: str) -> subprocess.CompletedProcess[str]:
    """`run` in a process of its own, standing in a directory with settings that would break it."""
    (directory / "pytest.ini").write_text("[pytest]\naddopts = --no-such-option\n")
    code = "import sys; from lamina.conformance import run; sys.exit(run(sys.argv[1], sys.argv[2:]))"
    paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    environ = {**os.environ, "PYTHONPATH": paths}
    argv = [sys.executable, "-c", code, driver, *args]
    return subprocess.run(argv, cwd=directory, env=environ, capture_output=True, text=True, check=False)


def test_it_runs_anywhere_and_ends_with_a_verdict(tmp_path: Path) -> None:
    told = suite(tmp_path, "vfs", *QUICK)

    assert told.returncode == 0, told.stdout + told.stderr
    assert "The class itself" in told.stdout
    assert "REBASE" in told.stdout
    assert told.stdout.rstrip().splitlines()[-2].startswith("vfs conforms: 3 promises kept")
    assert os.listdir(tmp_path) == ["pytest.ini"]


def test_a_report_for_machines_is_written(tmp_path: Path) -> None:
    told = suite(tmp_path, "vfs", *QUICK, "--junitxml", "report.xml")

    assert told.returncode == 0
    assert len(list(ET.parse(tmp_path / "report.xml").iter("testcase"))) == 3  # noqa: S314  # we made it


def test_an_unhealthy_driver_is_skipped_with_its_reason(tmp_path: Path) -> None:
    told = suite(tmp_path, "odd:Sick", *QUICK)

    assert told.returncode == 0
    assert "3 skipped: the driver cannot be used here: the moon is not full" in told.stdout
    assert "vfs was not tested: the moon is not full; wait two weeks" in told.stdout


def test_an_unhealthy_driver_fails_if_it_must_run(tmp_path: Path) -> None:
    told = suite(tmp_path, "odd:Sick", *QUICK, "--must-run")

    assert told.returncode == pytest.ExitCode.TESTS_FAILED
    assert "the moon is not full" in told.stdout


def test_options_have_the_types_of_the_config_file(tmp_path: Path) -> None:
    options = [f"--driver-option={pair}" for pair in ("pool=tank", "retries=3", "fast=true")]

    told = suite(tmp_path, "odd:Particular", *QUICK, *options)

    assert told.returncode == 0, told.stdout + told.stderr


@pytest.mark.parametrize(
    ("driver", "word"),
    [
        ("nobody", "nobody"),
        ("odd:Nobody", "Nobody"),
        ("odd:NOT_A_DRIVER", "not a subclass"),
        ("nowhere:Driver", "nowhere"),
        ("odd:Particular", "pool"),
    ],
)
def test_what_cannot_be_loaded_is_told_in_one_sentence(tmp_path: Path, driver: str, word: str) -> None:
    told = suite(tmp_path, driver, *QUICK)

    assert told.returncode == pytest.ExitCode.USAGE_ERROR
    assert word in told.stderr
    assert "Traceback" not in told.stderr


def test_a_driver_that_hangs_is_interrupted(tmp_path: Path) -> None:
    args = ["lamina.conformance.test_driver", "-k", "prepare_repeated", "-p", "no:timeout", "--time-limit", "1"]

    told = suite(tmp_path, "odd:Asleep", *args)

    assert told.returncode == pytest.ExitCode.TESTS_FAILED
    assert "took longer than 1 seconds" in told.stdout


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hypothesis", None)

    with pytest.raises(Exception, match="pip install"):
        run("vfs")
