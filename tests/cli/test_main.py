"""The frame around every command: help, versions, interrupts, closed pipes, plugins, completion."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
from pathlib import Path

import pytest
from desk import PROGRAM, Desk

from lamina.cli.main import SECTIONS
from lamina.errors import BadArchive, BadRequest

HEAVY = (
    "rich",
    "httpx",
    "trio",
    "pytest",
    "hypothesis",
    "isal",
    "backports.zstd",
    "asyncio",
    "grpc",
    "google.protobuf",
    "prometheus_client",
)


@pytest.mark.parametrize(
    "argv", [["--help"], ["images"], ["ps", "-a"], ["images", "--format", "json"], ["snapshot", "ls"]]
)
def test_a_quick_command_imports_nothing_heavy(desk: Desk, argv: list[str]) -> None:
    assert desk.imports(*argv) & set(HEAVY) == set()


def test_help_opens_no_store(desk: Desk) -> None:
    assert "lamina.snapshotter" not in desk.imports("--help")


@pytest.mark.parametrize("command", [name for section in SECTIONS.values() for name in section])
def test_every_command_says_in_a_sentence_what_it_does(desk: Desk, command: str) -> None:
    told = desk.does(command, "--help")

    sentence = told.split("\n\n")[1].strip()
    assert sentence[0].isupper()
    assert sentence.split("  Bytes")[0].rstrip()[-1] in ".…"


def test_help_lists_every_command(desk: Desk) -> None:
    told = desk.does("--help")

    assert all(f"  {name} " in told for section in SECTIONS.values() for name in section)


def test_the_version_is_that_of_the_package(desk: Desk) -> None:
    assert desk.does("--version") == "lamina 0.1.0\n"


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)], ids=str)
def test_closed_streams_cost_nothing_but_what_they_would_have_carried(
    desk: Desk, archive: Path, closed: tuple[int, ...]
) -> None:
    def run(*argv: str | Path) -> int:
        ends = " ".join(f"{number}>&-" for number in closed)
        words = ["sh", "-c", f'"$@" {ends}', "sh", *PROGRAM, *argv]
        told = subprocess.run(words, env=desk.environ, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        assert b"bug" not in told.stderr
        assert b"ignored" not in told.stderr
        return told.returncode

    without_stdout = 1 if 1 in closed else 0
    assert run("load", "-i", archive) == without_stdout
    assert "demo/busybox" in desk.does("images")
    assert run("tag", "demo/busybox", "other") == 0
    assert run("save", "demo/busybox") == run("images") == without_stdout
    assert run("load") == BadArchive.exit_code
    assert run("prune") == BadRequest.exit_code


def test_a_load_goes_on_when_nobody_can_be_told_of_its_progress(desk: Desk, archive: Path) -> None:
    with open("/dev/full", "wb") as full:
        told = subprocess.run([*PROGRAM, "load", "-i", archive], env=desk.environ, stderr=full, check=False)

    assert told.returncode == 0
    assert "demo/busybox" in desk.does("images")


@pytest.mark.parametrize("argv", [["no-such-command"], ["--no-such-option"], ["images", "--no-such"], ["tag", "one"]])
def test_a_wrong_call_is_one_line_that_says_where_help_is(desk: Desk, argv: list[str]) -> None:
    code, line = desk.fails(*argv)

    assert code == 2
    assert "--help`)" in line


def test_whoever_stops_reading_hears_nothing_more(desk: Desk) -> None:
    reading, writing = os.pipe()
    os.close(reading)

    told = subprocess.run(
        [*PROGRAM, "--help"], env=desk.environ, stdout=writing, stderr=subprocess.PIPE, check=False, timeout=60
    )
    os.close(writing)

    assert (told.returncode, told.stderr) == (141, b"")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_ends_with_the_code_that_shells_expect(desk: Desk, number: signal.Signals, code: int) -> None:
    ours, theirs = pty.openpty()
    asking = subprocess.Popen([*PROGRAM, "prune"], env=desk.environ, stdin=theirs, stderr=subprocess.PIPE)
    assert asking.stderr is not None
    asking.stderr.read(1)  # the question: now it waits for an answer

    while asking.poll() is None:
        asking.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            asking.wait(timeout=1)  # Python misses a signal that comes just before it begins to wait for an answer
    told = asking.stderr.read()
    asking.stderr.close()
    os.close(ours)
    os.close(theirs)

    assert asking.returncode == code
    assert told.endswith((b"lamina: interrupted\n", b"lamina: terminated\n"))


def test_a_plugin_adds_commands(desk: Desk, tmp_path: Path) -> None:
    _install_plugin(tmp_path, "friendly", "subcommands.command('greet')(lambda: print('hello'))")
    with_plugin = Desk(desk.path, desk.environ | {"PYTHONPATH": str(tmp_path)})

    assert with_plugin.does("greet") == "hello\n"
    assert "greet" in with_plugin.does("--help")


def test_a_plugin_that_fails_is_named_and_costs_us_nothing(desk: Desk, tmp_path: Path) -> None:
    _install_plugin(tmp_path, "broken", "raise RuntimeError('not today')")
    with_plugin = Desk(desk.path, desk.environ | {"PYTHONPATH": str(tmp_path)})

    told = with_plugin.run("--help")

    assert told.returncode == 0
    assert told.stderr == b"lamina: plugin broken: not today\n"


def _install_plugin(place: Path, name: str, body: str) -> None:
    info = place / f"lamina_{name}-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: lamina-{name}\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[lamina.plugins]\n{name} = lamina_{name}\n")
    (place / f"lamina_{name}.py").write_text(
        f"from lamina.driver import hookimpl\n\n@hookimpl\ndef lamina_commands(subcommands):\n    {body}\n"
    )


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_learns_to_complete_our_commands(desk: Desk, shell: str) -> None:
    assert "_LAMINA_COMPLETE" in desk.does("completion", shell)


def test_a_tab_completes_a_command(desk: Desk) -> None:
    asked = {"_LAMINA_COMPLETE": "bash_complete", "COMP_WORDS": "lamina driv", "COMP_CWORD": "1"}

    told = subprocess.run(PROGRAM, env=desk.environ | asked, capture_output=True, text=True, check=False)

    assert told.stdout == "plain,drivers\n"


def test_every_command_of_ours_is_on_the_page_that_lists_them() -> None:
    page = (Path(__file__).parents[2] / "docs/cli.md").read_text()

    names = [name for section in SECTIONS.values() for name in section]

    assert [name for name in names if f"`{name}" not in page and f"lamina {name}" not in page] == []
