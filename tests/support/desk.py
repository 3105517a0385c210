"""The command line as people have it: a program of its own, with a store of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import attrs

PROGRAM = (sys.executable, "-m", "lamina.cli.start")
_TELLS_MODULES = (
    "import sys; from lamina.cli.main import run; code = run(sys.argv[1:]); print(*sys.modules); sys.exit(code)"
)


@attrs.frozen
class Desk:
    """A place to work: a directory, a store, and the program."""

    path: Path
    environ: dict[str, str]
    within: tuple[str, ...] = ()  # words that run a program somewhere else
    program: tuple[str, ...] = PROGRAM

    def run(self, *argv: str | Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """Whatever becomes of it."""
        return subprocess.run(
            [*self.within, *self.program, *argv],
            cwd=self.path,
            env=self.environ,
            input=stdin,
            capture_output=True,
            check=False,
            timeout=120,
        )

    def does(self, *argv: str | Path, stdin: bytes = b"") -> str:
        """It succeeds; what it prints."""
        told = self.run(*argv, stdin=stdin)
        assert told.returncode == 0, told.stderr.decode()
        return told.stdout.decode()

    def fails(self, *argv: str | Path, stdin: bytes = b"") -> tuple[int, str]:
        """It fails with one line on stderr; its exit code and that line."""
        told = self.run(*argv, stdin=stdin)
        assert told.returncode != 0, told.stdout.decode()
        lines = [line for line in told.stderr.decode().splitlines() if line.startswith("lamina: ")]
        assert len(lines) == 1, told.stderr.decode()
        return told.returncode, lines[0].removeprefix("lamina: ")

    def imports(self, *argv: str) -> set[str]:
        """It succeeds in the whole program; the modules that are in memory then."""
        told = subprocess.run(
            [sys.executable, "-c", _TELLS_MODULES, *argv],
            cwd=self.path,
            env=self.environ,
            capture_output=True,
            text=True,
            check=True,
        )
        return set(told.stdout.splitlines()[-1].split())
