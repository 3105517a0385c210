"""The database: transactions hold or do not, damage and strangers' versions are told, a full disk is survived."""

from __future__ import annotations

import os
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from lamina import metadata, rows
from lamina.errors import LaminaError, StoreBroken
from lamina.layer import Kind
from lamina.metadata import Metadata


def insert(meta: Metadata, name: str, kind: Kind = Kind.ACTIVE, parent: int | None = None) -> int:
    with meta.change() as connection:
        return rows.insert(connection, name, kind, rows.READY, parent, {})


def test_a_change_that_raises_has_not_happened(meta: Metadata) -> None:
    with pytest.raises(ZeroDivisionError), meta.change() as connection:
        _insert_and_stumble(connection)

    assert rows.find(meta.read(), "key") is None
    insert(meta, "key")  # and the database is not locked


def _insert_and_stumble(connection: sqlite3.Connection) -> None:
    rows.insert(connection, "key", Kind.ACTIVE, rows.READY, None, {})
    raise ZeroDivisionError


def test_ids_are_never_used_twice(meta: Metadata) -> None:
    first = insert(meta, "one")
    with meta.change() as connection:
        rows.delete(connection, first)

    assert insert(meta, "two") > first


def test_ancestors_come_nearest_first(meta: Metadata) -> None:
    parent: int | None = None
    chain: list[int] = []
    for number in range(600):
        parent = insert(meta, f"layer {number}", Kind.COMMITTED, parent)
        chain.insert(0, parent)

    assert rows.ancestors(meta.read(), parent) == tuple(chain)


def test_steps_are_compared_and_set(meta: Metadata) -> None:
    layer_id = insert(meta, "key")

    with meta.change() as connection:
        assert rows.set_step(connection, layer_id, rows.READY, rows.REMOVING)
        assert not rows.set_step(connection, layer_id, rows.READY, rows.REMOVING)


def test_what_is_being_made_or_removed_is_not_seen(meta: Metadata) -> None:
    for step in (rows.PREPARING, rows.REMOVING, rows.LOOKING):
        with meta.change() as connection:
            rows.insert(connection, step, Kind.ACTIVE, step, None, {})
    insert(meta, "ready")

    assert [row.name for row in rows.everything(meta.read())] == ["ready"]
    with pytest.raises(LaminaError, match="preparing"):
        rows.visible(meta.read(), rows.PREPARING)


def test_times_are_exact_to_the_microsecond(meta: Metadata) -> None:
    insert(meta, "key")
    row = rows.visible(meta.read(), "key")

    assert row.snapshot.created.microsecond == row.created // 1000 % 1_000_000


def test_each_thread_has_a_connection_that_goes_with_it(meta: Metadata) -> None:
    def work() -> None:
        insert(meta, threading.current_thread().name)

    for number in range(50):
        thread = threading.Thread(target=work, name=f"thread {number}")
        thread.start()
        thread.join()

    assert len(rows.everything(meta.read())) == 50
    descriptors = [os.path.realpath(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")]
    assert sum(name.endswith("metadata.db") for name in descriptors) <= 2


def test_a_forked_child_uses_a_connection_of_its_own(meta: Metadata) -> None:
    insert(meta, "before")

    child = os.fork()
    if child == 0:
        try:
            insert(meta, "in the child")
            os._exit(0)
        finally:
            os._exit(1)
    status = os.waitpid(child, 0)[1]
    insert(meta, "after")

    assert status == 0
    assert [row.name for row in rows.everything(meta.read())] == ["before", "in the child", "after"]


def test_the_file_is_nobody_elses_to_read(meta: Metadata, tmp_path: Path) -> None:
    insert(meta, "key")

    assert (tmp_path / "metadata.db").stat().st_mode & 0o777 == 0o600


def test_a_newer_format_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "metadata.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version={metadata.VERSION + 1}")
    before = path.read_bytes()

    with pytest.raises(StoreBroken, match="newer lamina"):
        Metadata(path).start()
    assert path.read_bytes() == before


def test_a_store_of_format_1_is_taken_over_with_all_that_is_in_it(meta: Metadata, tmp_path: Path) -> None:
    """The one before `rooted`: its rows have to be readable, and what is new about them changeable."""
    layer = insert(meta, "key")
    meta.close()
    with closing(sqlite3.connect(tmp_path / "metadata.db")) as connection:
        connection.execute("ALTER TABLE snapshots DROP COLUMN rooted")
        connection.execute("PRAGMA user_version=1")

    for _ in range(2):
        meta.start()
        (row,) = rows.everything(meta.read())
        assert (row.id, row.name, row.rooted) == (layer, "key", 0)
        meta.close()
    meta.start()
    with meta.change() as connection:
        rows.set_rooted(connection, layer)
    (row,) = rows.everything(meta.read())
    assert row.rooted


@pytest.mark.parametrize("at", [0, 4096], ids=["the header", "a page"])
def test_damage_is_told_together_with_what_to_do(meta: Metadata, tmp_path: Path, at: int) -> None:
    for number in range(100):
        insert(meta, f"a name long enough to fill pages {number}")
    meta.close()
    with (tmp_path / "metadata.db").open("r+b") as file:
        file.seek(at)
        file.write(os.urandom(3000))

    broken = Metadata(tmp_path / "metadata.db")
    with closing(broken), pytest.raises(StoreBroken, match="backup"):
        _use(broken)


def _use(meta: Metadata) -> None:
    meta.start()
    rows.everything(meta.read())


def test_an_ordinary_transaction_does_not_wait_for_the_disk_and_a_lasting_one_does(meta: Metadata) -> None:
    with meta.change() as connection:
        assert connection.execute("PRAGMA synchronous").fetchone() == (1,)  # NORMAL: no fsync in WAL
    with meta.change(lasting=True) as connection:
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL


def test_closing_twice_is_harmless(meta: Metadata) -> None:
    meta.close()
    meta.close()
