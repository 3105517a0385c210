"""Running other programs."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lamina.errors import NotFound, ProgramFailed
from lamina.programs import run


def ends(pid: int) -> bool:
    """Whether this process is dead, or dies soon: being killed takes the kernel a moment."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([process], [], [], 10)[0])
    finally:
        os.close(process)


def script(place: Path, text: str) -> Path:
    place.write_text(text)
    place.chmod(0o755)
    return place


def test_output_comes_back() -> None:
    assert run("printf", "%s-%s", "a", "b") == "a-b"


def test_input_is_handed_over() -> None:
    assert run("cat", input="hällo") == "hällo"


def test_without_input_a_program_reads_nothing() -> None:
    assert run("cat") == ""


def test_more_input_and_output_than_a_pipe_holds_passes_through() -> None:
    much = "x" * (1 << 20)

    assert run("cat", input=much) == much


def test_output_that_is_not_utf8_survives() -> None:
    assert os.fsencode(run("printf", r"\377\376")) == b"\xff\xfe"


def test_programs_speak_english(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    monkeypatch.setenv("LANGUAGE", "de")

    assert run("sh", "-c", "echo $LC_ALL") == "C\n"


def test_programs_of_the_administrator_are_found_by_everybody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")

    assert "/usr/sbin" in run("sh", "-c", "echo $PATH")


def test_failure_carries_command_status_and_words() -> None:
    with pytest.raises(ProgramFailed, match="too bad") as caught:
        run("sh", "-c", "echo too bad >&2; exit 3")

    assert caught.value.argv == ("sh", "-c", "echo too bad >&2; exit 3")
    assert caught.value.status == 3
    assert caught.value.stderr == "too bad\n"


def test_death_by_a_signal_is_a_failure() -> None:
    with pytest.raises(ProgramFailed) as caught:
        run("sh", "-c", "kill -TERM $$")

    assert caught.value.status == -15


def test_a_missing_program_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("lamina.programs._SBIN", os.fspath(tmp_path))
    monkeypatch.setenv("PATH", os.fspath(tmp_path))

    with pytest.raises(NotFound, match=r"'mkfs\.xfs'.*install the package xfsprogs"):
        run("mkfs.xfs")


def test_a_program_that_cannot_be_run_says_so(tmp_path: Path) -> None:
    broken = script(tmp_path / "broken", "#!/no/such/interpreter\n")

    with pytest.raises(ProgramFailed, match="cannot be run") as caught:
        run(broken)

    assert caught.value.status == 126


def test_one_that_takes_too_long_is_ended_with_its_children(tmp_path: Path) -> None:
    note = tmp_path / "pid"

    with pytest.raises(ProgramFailed, match=r"not done after 0\.5 seconds"):
        run("sh", "-c", f"sleep 600 & echo $! > {note}; wait", timeout=0.5)

    assert ends(int(note.read_text()))


def test_an_interrupt_ends_the_program(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    main = threading.main_thread().ident
    assert main is not None
    os.mkfifo(note)

    def interrupt() -> None:
        seen.append(int(note.read_text()))  # waits until the program is there
        signal.pthread_kill(main, signal.SIGINT)

    seen: list[int] = []
    watcher = threading.Thread(target=interrupt)
    watcher.start()

    with pytest.raises(KeyboardInterrupt):
        run("sh", "-c", f"read word; echo $$ > {note}; exec sleep 600", input="go\n")

    watcher.join()
    assert ends(seen[0])


def test_a_mortal_program_is_not_left_running_when_we_are_killed(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    os.mkfifo(note)
    code = f"from lamina.programs import run; run('sh', '-c', 'echo $$ >{note}; exec sleep 600', mortal=True)"
    with subprocess.Popen([sys.executable, "-c", code]) as caller:
        program = int(note.read_text())  # waits until the program is there

        caller.kill()

    assert ends(program)


def test_a_mortal_program_fails_in_its_own_words() -> None:
    with pytest.raises(ProgramFailed, match="too bad") as caught:
        run("sh", "-c", "echo too bad >&2; exit 3", mortal=True)

    assert caught.value.argv == ("sh", "-c", "echo too bad >&2; exit 3")
