"""What the tests of trees share."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def source(tmp_path: Path) -> Path:
    tree = tmp_path / "source"
    tree.mkdir()
    return tree


def _as_an_ordinary_user(tree: Path, action: Callable[[Path], None]) -> None:
    """Do it in a child process that owns `tree` and has no powers."""
    if os.geteuid() == 0:
        for place in [
            tree.parent,
            *(Path(where) / name for where, dirs, files in os.walk(tree) for name in dirs + files),
        ]:
            os.lchown(place, 12345, 12345)
        os.lchown(tree, 12345, 12345)
    here = os.open(tree.parent, os.O_RDONLY | os.O_DIRECTORY)  # the way to it may be closed to others
    child = os.fork()
    if not child:
        try:
            os.fchdir(here)
            if os.geteuid() == 0:
                os.setgroups([])
                os.setresgid(12345, 12345, 12345)
                os.setresuid(12345, 12345, 12345)
            action(Path(tree.name))
            os._exit(0)
        except BaseException:  # noqa: BLE001  # whatever it is, the child must not go on as a second pytest
            traceback.print_exc()
            os._exit(1)
    os.close(here)
    assert os.waitpid(child, 0)[1] == 0


@pytest.fixture
def as_an_ordinary_user() -> Callable[[Path, Callable[[Path], None]], None]:
    return _as_an_ordinary_user
