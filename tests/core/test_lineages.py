"""What is remembered of who stands on whom is what the database says."""

from __future__ import annotations

from lamina import rows
from lamina.layer import Kind
from lamina.lineages import Lineages
from lamina.metadata import Metadata

MANY = 700  # more than are remembered


def grow(meta: Metadata, count: int) -> list[int]:
    """A tree whose layers stand on the one half as old: chains of every length up to the logarithm."""
    made: list[int] = []
    with meta.change() as connection:
        for number in range(count):
            below = made[number // 2] if made else None
            made.append(rows.insert(connection, f"layer {number}", Kind.COMMITTED, rows.READY, below, {}))
    return made


def test_a_lineage_is_the_same_whether_it_is_remembered_or_was_forgotten(meta: Metadata) -> None:
    lineages, made = Lineages(), grow(meta, MANY)
    expected = {each: rows.ancestors(meta.read(), each) for each in made}

    for _ in range(2):  # what came first has been forgotten by the second time
        assert {each: lineages.of(meta.read(), each) for each in made} == expected
        assert lineages.of(meta.read(), made[-1]) == expected[made[-1]]


def test_nothing_stands_below_a_layer_without_a_parent(meta: Metadata) -> None:
    (first,) = grow(meta, 1)
    row = rows.by_id(meta.read(), first)
    assert row is not None

    assert Lineages().layer_of(meta.read(), row).parents == ()
