"""Progress: bars for a person at a terminal, quiet lines for everybody else."""

from __future__ import annotations

import os
import pty
import subprocess
import threading
from pathlib import Path

import pytest
from desk import PROGRAM, Desk

from lamina.cli.progress import shown
from lamina.images.progress import LayerProgress, Status


def test_a_layer_is_told_of_once_when_it_is_through(capsys: pytest.CaptureFixture[str]) -> None:
    layer = "sha256:" + "ab" * 32

    with shown(lasting=True) as progress:
        for status in (Status.WAITING, Status.READING, Status.UNPACKING, Status.DONE, Status.DONE):
            progress(LayerProgress(layer, status, 1, 2))

    assert capsys.readouterr().err == "abababababab: Load complete\n"


def test_quiet_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    with shown(quiet=True, lasting=True) as progress:
        progress(LayerProgress("sha256:" + "ab" * 32, Status.DONE))

    assert capsys.readouterr().err == ""


@pytest.mark.needs_root
def test_a_terminal_shows_a_bar_for_each_layer(desk: Desk, archive: Path) -> None:
    ours, theirs = pty.openpty()
    seen: list[bytes] = []
    reader = threading.Thread(target=_drain, args=(ours, seen))
    reader.start()

    told = subprocess.run(
        [*PROGRAM, "load", "-i", archive],
        env=desk.environ | {"TERM": "xterm"},
        stdout=subprocess.PIPE,
        stderr=theirs,
        check=False,
    )
    os.close(theirs)
    reader.join()

    assert told.stdout == b"Loaded image: demo/busybox:latest\n"
    assert b"".join(seen).count(b"Load complete") >= 3


def _drain(terminal: int, seen: list[bytes]) -> None:
    try:
        while block := os.read(terminal, 65536):
            seen.append(block)
    except OSError:  # EIO: the other side is closed
        pass
    finally:
        os.close(terminal)
