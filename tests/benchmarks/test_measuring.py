"""The benchmarks measure what they say, and leave nothing behind."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from lamina_bench.cleaning import clear, lacking, room
from lamina_bench.daemons import running
from lamina_bench.engines.containerd import Containerd
from lamina_bench.engines.engine import Engine
from lamina_bench.engines.lamina import Lamina
from lamina_bench.engines.runc import Runc
from lamina_bench.engines.storage import Storage
from lamina_bench.image import Image, runnable
from lamina_bench.measuring import CommandFailed, Cost, measure, measure_both, run
from lamina_bench.registry import give, registry
from lamina_bench.results import Results
from lamina_bench.synthetic import write_layout
from lamina_bench.tables import table
from lamina_bench.works import FIRST, PULL, PUSH, Round

HOUSE = Path(__file__).parents[2]
SPIN = "import time\nwhile time.process_time() < 0.2: pass"
GRANDCHILD = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {SPIN!r}], check=True)"


def test_the_time_of_grandchildren_counts() -> None:
    cost = measure([sys.executable, "-c", GRANDCHILD])

    assert cost.cpu >= 0.2
    assert cost.wall > 0


def test_a_small_command_is_not_charged_with_the_memory_of_the_benchmarks() -> None:
    ballast = b"x" * (200 << 20)

    assert measure(["true"]).memory < len(ballast) / 4


def test_a_command_that_fails_is_an_error_with_its_last_words() -> None:
    with pytest.raises(CommandFailed, match=r"ended with 3: too bad"):
        measure(["sh", "-c", "echo too bad >&2; exit 3"])


def test_the_first_byte_is_told_apart_from_the_end() -> None:
    late = f"echo x; exec {sys.executable} -c '{SPIN}'"

    cost, first = measure_both(["sh", "-c", late])

    assert 0 < first < cost.wall


def test_what_a_daemon_does_meanwhile_counts(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", "while True: pass"]

    with running(argv, tmp_path / "log", lambda: None) as daemon, daemon.watched() as cost:
        while cost().cpu < 0.1:
            measure(["true"])

        assert cost().memory > 0


def test_a_daemon_that_dies_at_once_is_an_error_with_its_log(tmp_path: Path) -> None:
    argv = ["sh", "-c", "echo no such config >&2; exit 1"]

    with (
        pytest.raises(CommandFailed, match="no such config"),
        running(argv, tmp_path / "log", lambda: run(["false"])),
    ):
        pass


def test_the_ratio_is_the_median_of_the_rounds_ratios() -> None:
    results = Results()
    for ours, theirs in ((1.0, 2.0), (3.0, 3.0), (1.0, 4.0)):
        results.add("load", "we", Cost(ours, ours, 10))
        results.add("load", "they", Cost(theirs, theirs, 20))

    found = results.compare("load", "we", "they")

    assert found is not None
    assert (found.wall, found.cpu, found.memory) == (0.5, 0.5, 0.5)


def test_who_has_not_done_the_work_is_not_compared() -> None:
    results = Results()
    results.add("save", "we", Cost(1, 1, 1))

    assert results.compare("save", "we", "they") is None


def test_numbers_stand_to_the_right_and_words_to_the_left() -> None:
    told = table(("name", "time"), [("a", "1"), ("longer", "100")])

    assert told.splitlines() == ["| name   | time |", "| ------ | ---: |", "| a      |    1 |", "| longer |  100 |"]


@pytest.mark.needs_root
def test_a_room_is_cleared_of_mounts_also_when_the_work_fails(tmp_path: Path) -> None:
    place = tmp_path / "room"

    def work() -> None:
        with room(place):
            (place / "mounted here").mkdir()
            run(["mount", "-t", "tmpfs", "none", str(place / "mounted here")])
            run(["false"])

    with pytest.raises(CommandFailed):
        work()

    assert not place.exists()


def test_clearing_what_is_not_there_is_harmless(tmp_path: Path) -> None:
    clear(tmp_path / "nothing")


def test_an_image_without_tools_is_a_layout_whose_layers_are_what_it_says(tmp_path: Path) -> None:
    write_layout(tmp_path, "1", tiny=True)

    index = json.loads((tmp_path / "index.json").read_text())
    manifest = json.loads(blob(tmp_path, index["manifests"][0]).read_text())
    with tarfile.open(blob(tmp_path, manifest["layers"][0])) as layer:
        assert "srv/app/0.txt" in layer.getnames()


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="needs skopeo")
def test_skopeo_reads_an_image_made_without_tools(tmp_path: Path) -> None:
    write_layout(tmp_path, "1", tiny=True)

    told = json.loads(run(["skopeo", "inspect", f"oci:{tmp_path}:1"]))

    assert len(told["Layers"]) == 1


@pytest.mark.needs_root
def test_the_command_refuses_a_work_that_it_does_not_know() -> None:
    argv = [sys.executable, str(HOUSE / "benchmarks/run.py"), "--only", "dance"]

    told = subprocess.run(argv, capture_output=True, text=True, check=False)

    assert told.returncode == 2
    assert "unknown: dance" in told.stderr


@pytest.fixture
def short() -> Iterator[Path]:
    """A directory of a short name, as podman wants it."""
    with tempfile.TemporaryDirectory(prefix="lb.") as place:
        yield Path(place)


@pytest.mark.needs_root
def test_a_container_is_started_and_an_image_is_pulled_and_pushed_by_each_engine(tmp_path: Path, short: Path) -> None:
    image = runnable(tmp_path / "cache", str)
    engines = [Lamina(short / "l"), Storage(short / "s"), Containerd(short / "c"), Runc(short / "r")]
    present = [engine for engine in engines if not lacking(*engine.programs)]
    results = Results()
    one = Round(results, image, image, frozenset({"pull", "push", "start"}), tmp_path / "spare")

    with registry(tmp_path / "hub") as hub:
        give(image, hub)
        for engine in present:
            one.exchange(engine, hub)
            one.begin(engine, image, times=1)

    assert {"lamina overlay", *pullers(present)} == set(results.engines(PULL)) == set(results.engines(PUSH))
    assert {"lamina overlay"} <= set(results.engines(FIRST))


def pullers(engines: list[Engine]) -> set[str]:
    """Those that know registries."""
    return {engine.name for engine in engines if engine.pull(Image("", Path()), "") is not None}


def blob(layout: Path, descriptor: dict[str, str]) -> Path:
    """The file that a descriptor means."""
    return layout / "blobs" / descriptor["digest"].replace(":", "/")
