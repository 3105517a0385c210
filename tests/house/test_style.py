"""The sheet, as far as tools can check it: a red lint is a red test."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

HOUSE = Path(__file__).parents[2]
TOOLS = Path(sys.executable).parent
LONGEST = {False: 300, True: 700}  # lines; a file of tests has one subject too, but many promises about it

RUN = {
    "ruff finds nothing": ["ruff", "check", "--no-cache"],
    "every file is formatted": ["ruff", "format", "--check", "--no-cache"],
    "every type is right": ["mypy", "--no-error-summary"],
}


def tracked(*patterns: str) -> list[Path]:
    """Files that git knows, or would take."""
    argv = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *patterns]
    told = subprocess.run(
        ["git", "-c", f"safe.directory={HOUSE}", *argv[1:]], cwd=HOUSE, capture_output=True, text=True, check=True
    )
    return [HOUSE / name for name in told.stdout.split("\0") if name and (HOUSE / name).exists()]


@pytest.mark.parametrize("promise", RUN)
def test_the_tool_has_nothing_to_say(promise: str) -> None:
    program, *words = RUN[promise]

    told = subprocess.run([TOOLS / program, *words], cwd=HOUSE, capture_output=True, text=True, check=False)

    assert told.returncode == 0, f"{promise}: {told.stdout}{told.stderr}"


def test_no_file_is_too_long_to_be_read_at_one_sitting() -> None:
    files = {path.relative_to(HOUSE): len(path.read_text().splitlines()) for path in tracked("*.py")}

    assert {str(path): lines for path, lines in files.items() if lines > LONGEST[path.parts[0] == "tests"]} == {}


def test_every_module_says_in_its_first_line_what_it_is_about() -> None:
    ours = (path for path in tracked("core/*.py", "drivers/*.py") if not path.name.endswith("_pb2.py"))  # generated
    modules = [path for path in ours if path.read_text().strip()]

    assert [str(path) for path in modules if not path.read_text().startswith(('"""', 'r"""'))] == []


def test_every_exception_to_a_rule_of_types_names_the_rule() -> None:
    bare = re.compile(r"#\s*(noqa|type:\s*ignore)(?!\s*[:\[])")

    assert [str(path) for path in tracked("*.py") if path != Path(__file__) and bare.search(path.read_text())] == []


def test_constraints_hold_names_and_versions_only() -> None:
    lines = (HOUSE / "constraints.txt").read_text().splitlines()

    assert [line for line in lines if not re.fullmatch(r"#.*|[A-Za-z0-9_.-]+==[A-Za-z0-9.]+", line)] == []
