"""The journal on btrfs: full to the last block, it is an error that says so, and kills nobody."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lamina import rows
from lamina.conformance.smalldisk import btrfs, fill
from lamina.errors import NoSpace
from lamina.images.catalogfile import open_catalog
from lamina.layer import Kind
from lamina.metadata import Metadata

pytestmark = pytest.mark.needs_root


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "disk").mkdir()
    with btrfs(tmp_path / "disk", tmp_path / "image", 64) as place:
        yield place


def insert(meta: Metadata, name: str) -> int:
    with meta.change() as connection:
        return rows.insert(connection, name, Kind.ACTIVE, rows.READY, None, {})


def live_on_a_full_disk(place: Path) -> None:
    meta = Metadata(place / "metadata.db")
    meta.start()
    first = insert(meta, "first")
    insert(meta, "second")
    fill(place)
    os.sync()  # whatever was mapped and written to is written to once more, and needs another block

    told = 0
    for number in range(10):
        with contextlib.suppress(NoSpace):
            insert(meta, f"later {number}")
            continue
        told += 1
        assert len(rows.everything(meta.read())) == 2 + number + 1 - told
    assert told
    with meta.change(freeing=True) as connection:
        rows.delete(connection, first)
    meta.close()


def test_a_disk_full_to_the_last_block_is_told_and_kills_nobody(disk: Path) -> None:
    # in a process of its own: it is killed by SIGBUS where the log's index lies in a map
    told = subprocess.run([sys.executable, __file__, disk], capture_output=True, text=True, check=False)

    assert told.returncode == 0, told.stderr
    (disk / "ballast").unlink()
    meta = Metadata(disk / "metadata.db")
    with contextlib.closing(meta):
        meta.start()
        names = [row.name for row in rows.everything(meta.read())]
        assert names[0] == "second"
        assert "first" not in names
        insert(meta, "works again")


def test_a_store_that_was_moved_keeps_the_journal_that_fits_its_new_disk(disk: Path, tmp_path: Path) -> None:
    place = tmp_path / "new"
    place.mkdir()
    for number, target in enumerate((tmp_path / "here", disk / "there", tmp_path / "back")):
        place = Path(shutil.move(place, target))
        meta = Metadata(place / "metadata.db")
        with contextlib.closing(meta):
            meta.start()
            insert(meta, f"name {number}")
            (mode,) = meta.read().execute("PRAGMA journal_mode").fetchone()

            assert mode == ("truncate" if place.is_relative_to(disk) else "wal")
            assert len(rows.everything(meta.read())) == number + 1


def test_nothing_of_either_database_is_mapped_on_btrfs(disk: Path) -> None:
    meta = Metadata(disk / "metadata.db")
    with contextlib.closing(meta), contextlib.closing(open_catalog(disk / "images.db")) as catalog:
        meta.start()
        insert(meta, "name")
        catalog.execute("SELECT count(*) FROM images").fetchone()

        assert os.fspath(disk) not in Path("/proc/self/maps").read_text(encoding="utf-8")


if __name__ == "__main__":
    live_on_a_full_disk(Path(sys.argv[1]))
