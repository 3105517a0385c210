"""Somebody is killed in the middle of a blob: lamina, or the real registry. Then everything is tried again."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from desk import PROGRAM, Desk
from registries import RunningRegistry, registry, tool
from valves import valve

pytestmark = pytest.mark.needs_root
SIZE = 12 << 20  # of the one layer, which does not compress
HALF = SIZE // 2
SLACK = 3 << 20  # what is on its way when somebody dies, and what else is said


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tar with one large file in it."""
    path = tmp_path_factory.mktemp("tree") / "tree.tar"
    with tarfile.open(path, "w") as archive:
        entry = tarfile.TarInfo("large")
        entry.size = SIZE
        archive.addfile(entry, io.BytesIO(os.urandom(SIZE)))
    return path


@pytest.fixture
def running(tmp_path: Path) -> Iterator[RunningRegistry]:
    with registry(tmp_path / "registry") as here:
        yield here


@pytest.fixture
def new_desk(tmp_path: Path) -> Callable[[str], Desk]:
    def new(config: str) -> Desk:
        place = tmp_path / f"desk-{len(list(tmp_path.iterdir()))}"
        (place / "work").mkdir(parents=True)
        (place / "config.toml").write_text(f"[registries]\n{config}")
        clean = {name: value for name, value in os.environ.items() if not name.startswith("LAMINA_")}
        ours = {"LAMINA_DRIVER": "overlay", "LAMINA_ROOT": f"{place}/store", "LAMINA_CONFIG": f"{place}/config.toml"}
        return Desk(place / "work", clean | ours)

    return new


@pytest.fixture
def filled(new_desk: Callable[[str], Desk], running: RunningRegistry, tree: Path) -> RunningRegistry:
    """It has demo/large:1."""
    desk = new_desk("")
    desk.does("import", tree, f"{running.host}/demo/large:1")
    desk.does("push", "-q", f"{running.host}/demo/large:1")
    return running


@contextlib.contextmanager
def started(desk: Desk, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        [*PROGRAM, *words], cwd=desk.path, env=desk.environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def blobs(desk: Desk) -> list[Path]:
    return [path for path in (Path(desk.environ["LAMINA_ROOT"]) / "blobs").rglob("*") if path.is_file()]


def await_bytes(desk: Desk, count: int) -> None:
    """So much of a blob lies in the store."""
    deadline = time.monotonic() + 30
    while not any(path.stat().st_size >= count for path in blobs(desk)):
        assert time.monotonic() < deadline, "nothing comes"
        time.sleep(0.02)


def is_whole(desk: Desk, name: str) -> None:
    desk.does("image", "verify")
    (path,) = [path for path in blobs(desk) if path.stat().st_size > HALF]
    assert path.stat().st_mode & 0o777 == 0o444  # finished
    desk.does("create", "--name", "box", name, "/large")
    desk.does("cp", "box:/large", "large")
    assert (desk.path / "large").stat().st_size == SIZE


def test_a_lamina_killed_in_the_middle_of_a_blob_is_gone_on_with_by_the_next(
    new_desk: Callable[[str], Desk], filled: RunningRegistry
) -> None:
    desk = new_desk("")
    with valve(filled.host, down=HALF) as between:
        name = f"{between.host}/demo/large:1"
        with started(desk, "pull", name) as pulling:
            between.wait_until_held()
            await_bytes(desk, HALF - SLACK)
            pulling.kill()
        between.open()
        assert desk.does("images", "-q") == ""
        before = between.passed("down")

        desk.does("pull", "-q", name)

        assert between.passed("down") - before < HALF + SLACK
    is_whole(desk, name)


def test_a_pull_goes_on_where_it_was_when_a_killed_registry_comes_back(
    new_desk: Callable[[str], Desk], filled: RunningRegistry
) -> None:
    desk = new_desk("")
    with valve(filled.host, down=HALF) as between:
        name = f"{between.host}/demo/large:1"
        with started(desk, "pull", "-q", name) as pulling:
            between.wait_until_held()
            filled.stop()
            between.open(losing=True)
            filled.start()
            _, errors = pulling.communicate(timeout=60)

        assert pulling.returncode == 0, errors.decode()
        assert between.passed("down") < SIZE + SLACK
    is_whole(desk, name)


def test_a_registry_that_is_killed_for_good_leaves_nothing_in_the_store(
    new_desk: Callable[[str], Desk], filled: RunningRegistry
) -> None:
    desk = new_desk("retries = 2\n")
    with (
        valve(filled.host, down=HALF) as between,
        started(desk, "pull", "-q", f"{between.host}/demo/large:1") as pulling,
    ):
        between.wait_until_held()
        filled.stop()
        between.open(losing=True)
        _, errors = pulling.communicate(timeout=60)

    assert (pulling.returncode, errors.count(b"lamina: ")) == (23, 1), errors.decode()
    assert desk.does("images", "-q") == ""
    assert blobs(desk) == []
    assert desk.does("snapshot", "ls", "-q") == ""


@pytest.mark.parametrize("chunk", ["0", '"1MiB"'])
def test_a_push_comes_to_its_end_when_a_killed_registry_comes_back(
    new_desk: Callable[[str], Desk], running: RunningRegistry, tree: Path, chunk: str
) -> None:
    desk = new_desk(f"chunk = {chunk}\n")
    with valve(running.host, up=HALF) as between:
        name = f"{between.host}/demo/large:1"
        desk.does("import", tree, name)
        with started(desk, "push", "-q", name) as pushing:
            between.wait_until_held()
            running.stop()
            between.open(losing=True)
            running.start()
            _, errors = pushing.communicate(timeout=60)

    assert pushing.returncode == 0, errors.decode()
    is_there(running)


def test_a_push_that_was_killed_is_done_by_the_next(
    new_desk: Callable[[str], Desk], running: RunningRegistry, tree: Path
) -> None:
    desk = new_desk("")
    with valve(running.host, up=HALF) as between:
        name = f"{between.host}/demo/large:1"
        desk.does("import", tree, name)
        with started(desk, "push", "-q", name) as pushing:
            between.wait_until_held()
            pushing.kill()
        between.open()

        desk.does("push", "-q", name)

    is_there(running)


def is_there(running: RunningRegistry) -> None:
    """Skopeo reads and checks every byte."""
    there = f"docker://{running.host}/demo/large:1"
    argv = [tool("skopeo"), "copy", "-q", "--src-tls-verify=false", there, f"dir:{running.place}/copy"]
    subprocess.run(argv, check=True)
