"""Every block of code in the docs runs, or says why not.

A page's blocks run in their order, each as a program of its own, in one fresh directory with a store of its own and the
demo's image as `busybox.tar`. `sh`, `python` and the lines after a `$` of `console` are run, `toml` and `json` are
read, `text` is output. A block that cannot run here has a line before it: `<!-- not run: the reason -->`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import attrs
import pytest

HOUSE = Path(__file__).parents[2]
PAGES = sorted(
    [HOUSE / "README.md", HOUSE / "CONTRIBUTING.md", *HOUSE.glob("docs/**/*.md"), *HOUSE.glob("drivers/*/*.md")]
)
_BLOCK = re.compile(
    r"^(?:<!-- not run: (?P<why>.+?) -->\n+)?^```(?P<language>\w*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)
_LINK = re.compile(r"\]\((?!https?://|#|mailto:)([^)#\s]+)")
_OUTPUT = {"", "text"}
_READ: Mapping[str, Callable[[str], object]] = {"toml": tomllib.loads, "json": json.loads}


@attrs.frozen
class Block:
    """One fenced block."""

    language: str
    code: str
    why_not: str | None = None


def blocks(page: Path) -> list[Block]:
    return [Block(each["language"], each["code"], each["why"]) for each in _BLOCK.finditer(page.read_text())]


def name(page: Path) -> str:
    return str(page.relative_to(HOUSE))


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Path]:
    """A directory as the pages find it; whatever is mounted below it is unmounted again."""
    desk = tmp_path / "desk"
    desk.mkdir()
    (tmp_path / "config.toml").touch()
    subprocess.run([sys.executable, HOUSE / "demo/image.py", desk / "busybox.tar"], check=True)

    yield desk

    mounted = subprocess.run(["findmnt", "-rno", "TARGET"], capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    for target in sorted((each for each in mounted if each.startswith(f"{tmp_path}/")), reverse=True):
        subprocess.run(["umount", "--lazy", target], check=True)


@pytest.mark.needs_root
@pytest.mark.timeout(1000)  # some pages run a part of the suite
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=name)
def test_every_block_runs_or_says_why_not(page: Path, desk: Path) -> None:
    for block in blocks(page):
        if block.why_not or block.language in _OUTPUT:
            continue
        if block.language in _READ:
            _READ[block.language](block.code)
            continue
        told = _run(block, desk)
        assert told.returncode == 0, f"{block.code}\n{told.stdout}{told.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_leads_somewhere(page: Path) -> None:
    targets = _LINK.findall(page.read_text())

    assert [target for target in targets if not (page.parent / target).exists()] == []


def _run(block: Block, desk: Path) -> subprocess.CompletedProcess[str]:
    shell = ["bash", "-euo", "pipefail", "-c"]
    programs = {"sh": shell, "console": shell, "python": [sys.executable, "-c"]}
    environ = {name: value for name, value in os.environ.items() if not name.startswith("LAMINA_")}
    environ |= {
        "PATH": f"{Path(sys.executable).parent}:{environ['PATH']}",
        "LAMINA_ROOT": str(desk.parent / "store"),
        "LAMINA_CONFIG": str(desk.parent / "config.toml"),
    }
    typed = re.findall(r"^\$ (.*)$", block.code, re.MULTILINE) if block.language == "console" else [block.code]
    argv = [*programs[block.language], "\n".join(typed)]
    return subprocess.run(argv, cwd=desk, env=environ, capture_output=True, text=True, check=False, timeout=900)
