"""Keep the program that soaks fuse running beside the tests."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import soak


class Soak:
    """The program that soaks, from `start` to its end. It takes only what processor time others leave."""

    def __init__(self) -> None:
        self._place = Path(tempfile.mkdtemp(prefix="lamina-soak-"))
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """It begins; with us it ends, too, also if we are killed."""
        words = [sys.executable, soak.__file__, str(self._place), str(soak.SECONDS), str(soak.LEAST)]
        self._process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait(self) -> subprocess.CompletedProcess[str]:
        """What it has told, once it has ended."""
        assert self._process is not None
        out, err = self._process.communicate()
        return subprocess.CompletedProcess(self._process.args, self._process.returncode, out, err)

    def close(self) -> None:
        """It is gone with its servers and files."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            self._process.communicate()
        shutil.rmtree(self._place)
