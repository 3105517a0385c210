"""The suite finds what is wrong with a driver: each mutant is caught, by the part of the suite that should."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mutants mount")

# the mutant, the part of the suite that has to catch it, and a word to choose tests by, so that this stays quick
OF_VFS = [
    ("DropsXattrs", "test_content", "user-xattrs and restart"),
    ("DropsCapabilities", "test_content", "capabilities and restart"),
    ("LosesSetuid", "test_content", "modes and restart"),
    ("RoundsTimes", "test_content", "nanoseconds and restart"),
    ("FollowsSymlinks", "test_content", "hard-links and restart"),
    ("PartsHardLinks", "test_content", "hard-links and restart"),
    ("FillsHoles", "test_content", "holes"),
    ("SharesFilesWithItsParent", "test_copyup", "shared_with_the_parents"),
    ("DropsAttributesOfTheRoot", "test_layers", "root"),
    ("StrangeRoot", "test_layers", "root"),
    ("WritableView", "test_driver", "read_only"),
    ("RemovesOnce", "test_driver", "repeated or unknown"),
    ("RemovesByPrefix", "test_driver", "no_other"),
    ("KeepsHiddenFiles", "test_driver", "nothing_in_the_home"),
    ("HealthMakesTheHome", "test_driver", "no_trace"),
    ("KeepsRests", "test_driver", "prepare_repeated"),
    ("LayersLie", "test_driver", "layers"),
    ("RemembersInMemory", "test_driver", "layers"),
    ("LeavesTrash", "test_crash", "killed and remove-the-child"),
    ("WritesAbsolutePaths", "test_driver", "absolute"),
    ("LeaksMounts", "test_driver", "release"),
    ("ClaimsTooLittle", "test_abilities", "ACLS"),
    ("MissesRemovals", "test_diff", "canonical and removed"),
]
OF_OVERLAY = [
    ("ClaimsTooMuch", "test_abilities", "LOWER_HARD_LINKS or RENAME_LOWER"),
    ("CountsItsParents", "test_life", "usage"),
    ("ForgetsTheLateRoot", "test_joining", "root"),
    ("ForgetsWhiteouts", "test_layers", "removed or deleted"),
    ("ForgetsOpacity", "test_layers", "anew"),
]
MUTANTS = [*OF_VFS, *OF_OVERLAY]
RIGHT = {("vfs", *rest) for _, *rest in OF_VFS} | {("overlay", *rest) for _, *rest in OF_OVERLAY}


def suite(driver: str, part: str, words: str) -> subprocess.CompletedProcess[str]:
    """Run a part of the suite, as an author would whose driver is not installed."""
    argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "lamina.conformance.plugin", "-q"]
    argv += ["--pyargs", f"lamina.conformance.{part}", "--driver", driver, "--must-run", "-k", words]
    here = Path(__file__).parent
    ini = ["-c", os.devnull, "--rootdir", str(here)]
    paths = os.pathsep.join([str(here), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [*argv, *ini], env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(("mutant", "part", "words"), MUTANTS, ids=[mutant for mutant, *_ in MUTANTS])
def test_the_mutant_is_caught(mutant: str, part: str, words: str) -> None:
    told = suite(f"mutants:{mutant}", part, words)

    assert told.returncode == pytest.ExitCode.TESTS_FAILED, told.stdout + told.stderr
    assert "does not conform" in told.stdout


def test_a_health_that_raises_is_told_in_a_sentence() -> None:
    told = suite("mutants:HealthRaises", "test_driver", "no_trace")

    assert told.returncode == pytest.ExitCode.USAGE_ERROR
    assert told.stderr.strip() == "ERROR: vfs: health() raised OSError('no such pool'); it has to return its problems"


@pytest.mark.parametrize(("driver", "part", "words"), sorted(RIGHT))
def test_the_right_driver_passes_what_catches_the_mutant(driver: str, part: str, words: str) -> None:
    told = suite(driver, part, words)

    assert told.returncode == 0, told.stdout + told.stderr
    assert f"{driver} conforms" in told.stdout
