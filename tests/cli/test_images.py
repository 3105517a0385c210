"""Images as people know them from docker: listed, named, explained, removed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from desk import Desk

pytestmark = pytest.mark.needs_root


@pytest.fixture
def loaded(desk: Desk, archive: Path) -> Desk:
    desk.does("load", "-q", "-i", archive)
    return desk


def image_id(desk: Desk, name: str = "demo/busybox") -> str:
    return json.loads(desk.does("inspect", name))[0]["Id"]  # type: ignore[no-any-return]


def test_a_store_without_images_shows_the_titles(desk: Desk) -> None:
    assert desk.does("images").split() == ["REPOSITORY", "TAG", "IMAGE", "ID", "CREATED", "SIZE"]


def test_load_names_what_it_brought(desk: Desk, archive: Path) -> None:
    assert desk.does("load", "-i", archive) == "Loaded image: demo/busybox:latest\n"


def test_load_reads_a_pipe(desk: Desk, archive: Path) -> None:
    assert desk.does("load", stdin=archive.read_bytes()) == "Loaded image: demo/busybox:latest\n"


def test_progress_goes_to_stderr_one_line_a_layer(desk: Desk, archive: Path) -> None:
    told = desk.run("load", "-i", archive).stderr.decode().splitlines()

    assert len(told) == 3
    assert all(re.fullmatch(r"[0-9a-f]{12}: Load complete", line) for line in told)


def test_layers_that_are_there_are_said_to_be_there(loaded: Desk, archive: Path) -> None:
    told = loaded.run("load", "-i", archive).stderr.decode().splitlines()

    assert [line.partition(": ")[2] for line in told] == ["Already exists"] * 3


def test_a_listing_has_short_ids_and_words_for_sizes_and_ages(loaded: Desk) -> None:
    line = loaded.does("images").splitlines()[1]

    assert re.fullmatch(r"demo/busybox +latest +[0-9a-f]{12} +\d+ (months|years) ago +[0-9.]+MB", line)


def test_a_listing_for_machines_has_whole_ids_and_bytes(loaded: Desk) -> None:
    (row,) = [json.loads(line) for line in loaded.does("images", "--format", "json").splitlines()]

    assert (row["repository"], row["tag"], row["id"]) == ("demo/busybox", "latest", image_id(loaded))
    assert row["size"] > 1_000_000
    assert row["created"].startswith("2023-11-14T22:13:20")


def test_quiet_prints_each_id_once(loaded: Desk) -> None:
    loaded.does("tag", "demo/busybox", "other:1")

    assert loaded.does("images", "-q") == image_id(loaded).removeprefix("sha256:")[:12] + "\n"
    assert loaded.does("images", "-q", "--no-trunc") == image_id(loaded) + "\n"


def test_a_name_or_a_filter_narrows_the_listing(loaded: Desk) -> None:
    loaded.does("tag", "demo/busybox", "other:1")

    assert "other" not in loaded.does("images", "demo/busybox")
    assert "demo" not in loaded.does("images", "--filter", "reference=oth*")
    assert len(loaded.does("images", "--filter", "dangling=true").splitlines()) == 1


def test_an_unknown_filter_names_the_known_ones(desk: Desk) -> None:
    code, line = desk.fails("images", "--filter", "colour=red")

    assert code == 2
    assert "dangling=true" in line


def test_history_tells_the_steps_the_newest_first(loaded: Desk) -> None:
    rows = [json.loads(line) for line in loaded.does("history", "--format", "json", "demo/busybox").splitlines()]

    assert [row["created_by"].split()[0] for row in rows] == ["COPY", "RUN", "ADD"]
    assert loaded.does("history", "demo/busybox").splitlines()[0].split()[0] == "IMAGE"


def test_rmi_says_what_is_untagged_and_what_is_really_deleted(loaded: Desk) -> None:
    loaded.does("tag", "demo/busybox", "other:1")

    first = loaded.does("rmi", "other:1").splitlines()
    second = loaded.does("image", "rm", "demo/busybox").splitlines()

    assert first == ["Untagged: other:1"]
    assert second[0] == "Untagged: demo/busybox:latest"
    assert [line.split()[0] for line in second[1:]] == ["Deleted:"] * 4  # the image and its three layers
    assert len(loaded.does("images").splitlines()) == 1


def test_rmi_does_what_it_can_and_ends_with_the_code_of_what_it_cannot(loaded: Desk) -> None:
    told = loaded.run("rmi", "nobody:1", "demo/busybox")

    assert told.returncode == 4
    assert b"Untagged: demo/busybox:latest" in told.stdout
    assert told.stderr.decode().startswith("lamina: ")


def test_an_image_that_a_container_uses_is_not_removed(busy_desk: Desk) -> None:
    code, line = busy_desk.fails("rmi", "demo/busybox")

    assert code == 6
    assert "box" in line


@pytest.mark.parametrize("form", ["docker-archive", "oci-archive"])
def test_what_was_saved_loads_elsewhere_as_the_same_image(
    loaded: Desk, new_desk: Callable[[], Desk], form: str
) -> None:
    other = new_desk()

    loaded.does("save", "--format", form, "-o", "out.tar", "demo/busybox")
    other.does("load", "-q", "-i", loaded.path / "out.tar")

    assert image_id(other) == image_id(loaded)


def test_a_layout_is_saved_as_a_directory_and_loads_again(loaded: Desk, new_desk: Callable[[], Desk]) -> None:
    other = new_desk()

    loaded.does("save", "--format", "oci-dir", "-o", "layout", "demo/busybox")
    other.does("load", "-q", "-i", loaded.path / "layout")

    assert (loaded.path / "layout/oci-layout").exists()
    assert len(other.does("images").splitlines()) == 2


def test_save_to_stdout_is_the_same_as_to_a_file(loaded: Desk) -> None:
    loaded.does("save", "-o", "out.tar", "demo/busybox")

    assert loaded.run("save", "demo/busybox").stdout == (loaded.path / "out.tar").read_bytes()


def test_a_save_that_fails_leaves_no_file(loaded: Desk) -> None:
    code, _ = loaded.fails("save", "-o", "out.tar", "demo/busybox", "nobody:1")

    assert code == 4
    assert list(loaded.path.iterdir()) == []


def test_what_is_no_image_is_refused_and_nothing_is_kept(desk: Desk) -> None:
    code, _ = desk.fails("load", stdin=b"this is no tar")

    assert code == 11
    assert len(desk.does("images").splitlines()) == 1


def test_import_makes_an_image_of_a_tree(busy_desk: Desk) -> None:
    tar = busy_desk.run("export", "box").stdout

    made = busy_desk.does("import", "-q", "-c", 'CMD ["sh"]', "-m", "from a box", "-", "flat:1", stdin=tar).strip()

    (known,) = json.loads(busy_desk.does("inspect", "flat:1"))
    assert known["Id"] == made
    assert known["Config"]["Cmd"] == ["sh"]
    assert len(known["RootFS"]["Layers"]) == 1


def test_pruning_asks_somebody_or_wants_to_be_told(desk: Desk) -> None:
    code, line = desk.fails("prune")

    assert code == 2
    assert "--force" in line


def test_pruning_everything_leaves_nothing(loaded: Desk) -> None:
    told = loaded.does("prune", "-af")

    assert "Untagged: demo/busybox:latest" in told
    assert told.splitlines()[-1].startswith("Total reclaimed space: ")
    assert len(loaded.does("images").splitlines()) == 1


def test_df_tells_what_is_stored_and_what_could_go(loaded: Desk) -> None:
    rows = {row["type"]: row for row in map(json.loads, loaded.does("df", "--format", "json").splitlines())}

    assert rows["Images"]["total"] == 1
    assert rows["Images"]["reclaimable"] == rows["Images"]["size"] > 0
    assert loaded.does("df").splitlines()[0].split() == ["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"]


def test_a_damaged_blob_is_named(loaded: Desk) -> None:
    layer = max((loaded.path.parent / "store/blobs/sha256").iterdir(), key=lambda path: path.stat().st_size)
    layer.chmod(0o600)
    with layer.open("r+b") as file:
        file.seek(1000)
        file.write(b"damage")

    told = loaded.run("image", "verify")

    assert told.returncode == 12
    assert layer.name[:12] in told.stdout.decode()


def test_inspect_tells_what_it_found_also_when_a_name_is_unknown(loaded: Desk) -> None:
    told = loaded.run("inspect", "nobody", "demo/busybox")

    assert told.returncode == 4
    assert json.loads(told.stdout)[0]["RepoTags"] == ["demo/busybox:latest"]
