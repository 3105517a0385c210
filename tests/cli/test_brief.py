"""The quick way to a listing says what the whole program says, or nothing; and it imports next to nothing."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing, redirect_stdout
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import attrs
import pytest
from desk import Desk
from hypothesis import given, settings
from hypothesis import strategies as st

from lamina.cli.brief import answer
from lamina.cli.main import run
from lamina.containers.container import Container, write_container
from lamina.containers.life import Life, State
from lamina.containers.processes import Process, process
from lamina.images.catalog import Catalog, Rows
from lamina.images.records import Image
from lamina.images.reference import parse

WORDS = (["images"], ["image", "ls"], ["ps"], ["ps", "-a"], ["container", "ls"], ["container", "ls", "-a"])
HEX = st.text("0123456789abcdef", min_size=64, max_size=64)
# days, so that no age changes its words while the two are asked
MOMENTS = st.integers(3, 4000).map(lambda days: datetime.now(UTC) - timedelta(days=days, hours=5))
REPOSITORIES = st.sampled_from(
    ["busybox", "ada/box", "library/box", "a.b/c/d", "localhost:5000/x", "docker.io/a.b/c", "ghcr.io/Library/x".lower()]
)


def seen(words: list[str], root: Path) -> str:
    """What the whole program prints."""
    printed = io.StringIO()
    with redirect_stdout(printed):
        assert run(["--root", str(root), *words]) == 0
    return printed.getvalue()


TAGS = st.sampled_from(["latest", "1.0", "x_y"])
NOBODY: Mapping[str, str] = {"HOME": "/nonexistent", "LAMINA_CONFIG": os.devnull}


@st.composite
def images(draw: st.DrawFn) -> Image:
    digest = f"sha256:{draw(HEX)}"
    created = draw(st.none() | MOMENTS)
    return Image(digest, f"sha256:{draw(HEX)}", "linux/amd64", created, draw(st.integers(0, 2**50)))


@st.composite
def lives(draw: st.DrawFn) -> Life:
    state = draw(st.sampled_from([State.CREATED, State.RUNNING, State.PAUSED, State.EXITED]))
    here = process(os.getpid())
    started, finished = draw(MOMENTS).isoformat(), draw(MOMENTS).isoformat()
    code = draw(st.integers(0, 255))
    return (
        Life(state, here, here, "/usr/bin/crun", started, finished, code)
        if state.up
        else Life(state, started=started, finished=finished, code=code)
    )


@st.composite
def containers(draw: st.DrawFn) -> Container:
    words = st.none() | st.lists(st.sampled_from(["sh", "-c", "echo a  b", "it's", "--long-option=value"]), max_size=4)
    return Container(
        draw(HEX), draw(st.text("abcdefgh_", min_size=3)), f"sha256:{draw(HEX)}", "", draw(REPOSITORIES), "overlay",
        "key", draw(MOMENTS), {"Entrypoint": draw(words), "Cmd": draw(words)}, life=draw(lives()),
    )  # fmt: skip


@settings(deadline=None, max_examples=50)  # two listings of six kinds each
@given(st.data())
def test_what_it_prints_is_what_the_whole_program_prints(data: st.DataObject) -> None:
    with TemporaryDirectory() as place:
        root = Path(place)
        with closing(Catalog(root / "images.db")) as catalog, catalog.change() as rows:
            for image in data.draw(st.lists(images(), max_size=4, unique_by=lambda each: each.id)):
                rows.put_image(image, ())
                for repository in data.draw(st.lists(REPOSITORIES, max_size=3)):
                    rows.put_name(parse(f"{repository}:{data.draw(TAGS)}"), image.id)
                for repository in data.draw(st.lists(REPOSITORIES, max_size=2)):
                    rows.put_name(parse(f"{repository}@{image.manifest}"), image.id)
            for each in data.draw(
                st.lists(containers(), max_size=3, unique_by=(lambda one: one.id, lambda one: one.name))
            ):
                put(rows, each)

        for words in WORDS:
            assert answer(["--root", place, *words], NOBODY) == seen(words, root)


def put(rows: Rows, container: Container) -> None:
    """Note a container as the store of containers does."""
    key = (container.id, container.name, container.image, container.driver, container.created.isoformat())
    rows.put_container(key, write_container(container))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A store with one running container, whose monitor is this process."""
    here = process(os.getpid())
    life = Life(State.RUNNING, here, here, started=datetime.now(UTC).isoformat())
    change(tmp_path, box(life))
    return tmp_path


def box(life: Life) -> Container:
    """A container with this life."""
    return Container("ab" * 32, "box", "sha256:" + "00" * 32, "", "busybox", "vfs", "k", datetime.now(UTC), life=life)


def change(root: Path, container: Container) -> None:
    """Note the container anew."""
    with closing(Catalog(root / "images.db")) as catalog, catalog.change() as rows:
        put(rows, container)


def test_a_container_that_may_have_to_be_repaired_is_left_to_the_whole_program(root: Path) -> None:
    here = process(os.getpid())
    assert here is not None
    gone = Process(here.pid, here.ticks + 1, here.boot)
    assert answer(["--root", str(root), "ps"], NOBODY) is not None

    for life in (
        Life(State.STARTING),
        Life(State.RUNNING, gone, here),
        Life(State.RUNNING, here, gone),
        Life(State.RUNNING, here, None),
        Life(State.RUNNING, attrs.evolve(here, boot="another"), here),
    ):
        change(root, box(life))
        assert answer(["--root", str(root), "ps"], NOBODY) is None


@pytest.mark.parametrize(
    "words",
    [[], ["images", "-q"], ["images", "busybox"], ["ps", "--format", "json"], ["--root"], ["--driver", "x", "ps"]],
)
def test_what_is_not_one_of_the_plain_forms_is_left_to_the_whole_program(words: list[str]) -> None:
    assert answer(words, NOBODY) is None


@pytest.mark.parametrize("damage", [b"no database at all", b""])
def test_a_damaged_catalog_is_left_to_the_whole_program(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "images.db").write_bytes(damage)

    assert answer(["--root", str(tmp_path), "images"], NOBODY) is None


def test_names_that_could_play_tricks_on_a_terminal_are_left_to_the_whole_program(root: Path) -> None:
    change(root, attrs.evolve(box(Life(State.EXITED, finished=str(datetime.now(UTC)))), image_name="\x1b[2J"))

    assert answer(["--root", str(root), "ps", "-a"], NOBODY) is None


@pytest.mark.parametrize("words", [["images"], ["ps"]])
def test_it_imports_neither_the_parser_of_words_nor_records_nor_expressions(tmp_path: Path, words: list[str]) -> None:
    script = "import sys; from lamina.cli.start import main\ntry: main()\nfinally: print(*sys.modules)"
    told = subprocess.run(
        [sys.executable, "-c", script, "--root", tmp_path, *words],
        env={**os.environ, "HOME": "/nonexistent"},
        capture_output=True,
        text=True,
        check=True,
    )

    ours = set(told.stdout.splitlines()[-1].split())
    before = subprocess.run(
        [sys.executable, "-c", "import sys; print(*sys.modules)"], capture_output=True, text=True, check=True
    )
    added = ours - set(before.stdout.split())
    assert added & {"click", "attr", "attrs", "typing", "re", "pathlib", "inspect", "json", "lamina.cli.main"} == set()


def test_where_nothing_can_be_printed_it_ends_as_any_other_command(desk: Desk) -> None:
    told = subprocess.run(
        ["/bin/sh", "-c", f"{sys.executable} -m lamina.cli.start images >/dev/full"],
        env=desk.environ,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (told.returncode, told.stderr) == (14, "lamina: No space left on device\n")
