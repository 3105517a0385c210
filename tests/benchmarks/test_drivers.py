"""The drivers beside each other: each does every work, the table and the chart tell all of it, and nothing stays."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from lamina_bench.comparing import as_chart, as_table, measured
from lamina_bench.driverworks import COPY_UP, CREATE, SPACE, WORKS, Plan
from lamina_bench.grounds import GROUNDS
from lanes import LANES

SMALL = Plan(rounds=1, large=2 << 20, below=150, fresh=110)
SVG = "{http://www.w3.org/2000/svg}"


def test_there_is_a_ground_for_every_driver() -> None:
    assert set(GROUNDS) == {driver for lane in LANES.values() for driver in lane}


@pytest.mark.needs_root
def test_every_work_is_measured_and_space_is_what_a_layer_takes(tmp_path: Path) -> None:
    found = dict(measured(tmp_path, ["vfs", "btrfs"], SMALL))

    assert list(found) == ["vfs", "btrfs"]
    for costs in found.values():
        assert tuple(costs) == WORKS
        assert all(costs[work] > 0 for work in WORKS if work != SPACE)
    assert found["vfs"][SPACE] > SMALL.large > found["btrfs"][SPACE] >= 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.needs_root
@pytest.mark.skipif("\taufs\n" in Path("/proc/filesystems").read_text(), reason="this kernel has aufs")
def test_a_driver_that_cannot_be_used_is_left_out_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert dict(measured(tmp_path, ["aufs"], SMALL)) == {}
    assert "without aufs: the kernel" in capsys.readouterr().out


def test_table_and_chart_show_every_driver_and_every_work() -> None:
    found = {name: dict.fromkeys(WORKS, number / 1000) for number, name in enumerate(("one", "<two>"), start=1)}
    found["one"] |= {CREATE: 0.0123, COPY_UP: 2.5, SPACE: 3 << 20}

    head, _, first, second = as_table(found).splitlines()
    root = ET.fromstring(as_chart(found, SMALL))  # noqa: S314  # our own

    assert [cell.strip() for cell in head.strip("|").split("|")] == ["driver", *WORKS]
    assert [word in first for word in ("12 ms", "2.5 s", "3.0 MiB")] == [True] * 3
    assert "<two>" in second
    panels = root.findall(f"{SVG}g")
    assert len(panels) == len(WORKS)
    for panel in panels:
        assert len(panel.findall(f"{SVG}rect")) == 2
        assert {"one", "<two>"} <= {text.text for text in panel.findall(f"{SVG}text")}
    longest = [max(float(bar.get("width", 0)) for bar in panel.findall(f"{SVG}rect")) for panel in panels]
    assert len(set(longest)) == 1, "the largest value of each panel has the longest bar"
