"""Config: file, environment and options; errors that say what is known; drivers' own options; the choice of one."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Any, ClassVar, Literal

import attrs
import pytest

from lamina import config
from lamina.config import Config, choose_driver, driver_options, load_config, parse_size
from lamina.driver import Driver, Health
from lamina.durability import Durability
from lamina.errors import BadRequest, ConfigError, DriverNotFound, Unhealthy
from lamina.layer import Layer
from lamina.mount import Mount


class Colour(enum.Enum):
    RED = "red"


@attrs.frozen
class Options:
    pool: str
    base_size: int = 10 << 30
    fast: bool = False
    ratio: float = 0.5
    where: Path | None = None
    names: tuple[str, ...] = ()
    mode: Literal["a", "b"] = "a"
    colour: Colour = Colour.RED
    level: int = attrs.field(default=3, validator=attrs.validators.le(9))


class Fake(Driver):
    name: ClassVar[str] = "fake"
    Options: ClassVar[type] = Options
    problems: ClassVar[tuple[str, ...]] = ()

    def health(self) -> Health:
        return Health(self.problems)

    def prepare(self, layer: Layer) -> None: ...
    def remove(self, layer_id: int) -> None: ...
    def layers(self) -> set[int]:
        return set()

    def mounts(self, layer: Layer) -> tuple[Mount, ...]:
        return ()


def sick(why: str) -> type[Driver]:
    return type("Sick", (Fake,), {"problems": (why,), "Options": attrs.make_class("None_", [])})


def well() -> type[Driver]:
    return type("Well", (Fake,), {"Options": attrs.make_class("None_", [])})


@pytest.fixture
def drivers(monkeypatch: pytest.MonkeyPatch) -> dict[str, type[Driver]]:
    known: dict[str, type[Driver]] = {}

    def load(name: str) -> type[Driver]:
        if name not in known:
            raise DriverNotFound(f"no plugin offers {name!r}")
        return known[name]

    monkeypatch.setattr(config, "load_driver", load)
    return known


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(text)
    return path


# where a value comes from


def test_options_win_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, 'root = "/in-file"\ndriver = "vfs"\ndurability = "full"')
    environ = {"LAMINA_ROOT": "/in-environment", "LAMINA_DRIVER": "overlay,vfs"}

    from_file = load_config(path, {})
    from_environment = load_config(path, environ)
    from_options = load_config(path, environ, driver="btrfs", root=Path("/in-options"))

    assert (from_file.root, from_file.drivers) == (Path("/in-file"), ("vfs",))
    assert from_file.durability is Durability.FULL
    assert (from_environment.root, from_environment.drivers) == (Path("/in-environment"), ("overlay", "vfs"))
    assert (from_options.root, from_options.drivers) == (Path("/in-options"), ("btrfs",))


def test_the_file_can_be_named_by_the_environment(tmp_path: Path) -> None:
    path = write(tmp_path, 'root = "/elsewhere"')

    assert load_config(None, {"LAMINA_CONFIG": str(path)}).root == Path("/elsewhere")


def test_a_file_that_was_named_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load_config(tmp_path / "missing.toml", {})


def test_without_a_file_all_is_as_usual(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)

    told = load_config(None, {"HOME": str(tmp_path)})
    with_xdg = load_config(None, {"HOME": str(tmp_path), "XDG_DATA_HOME": "/data"})

    assert told.root == tmp_path / ".local/share/lamina"
    assert with_xdg.root == Path("/data/lamina")
    assert told.durability is Durability.ORDERED
    assert told.drivers[-1] == "vfs"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("rooot = 1", "unknown key 'rooot'; known are root, driver"),
        ("root = 1", "root: 1 is not text"),
        ("driver = []", "is not a name"),
        ("driver = [1]", "is not a name"),
        ('durability = "very"', "none, metadata, ordered, full"),
        ("drivers = 3", "is not a table"),
        ("[drivers]\nvfs = 3", r"\[drivers.vfs\]: 3 is not a table"),
        ("root = ", "config.toml"),
    ],
)
def test_what_is_wrong_is_said_with_where_it_stands(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        load_config(write(tmp_path, text), {})


# a driver's own options


def test_a_table_becomes_the_drivers_own_options() -> None:
    table = {
        "pool": "tank",
        "base_size": "20GiB",
        "fast": True,
        "ratio": 1,
        "where": "/x",
        "names": ["a"],
        "mode": "b",
        "colour": "red",
    }

    assert driver_options(Fake, table) == Options(
        "tank", 20 << 30, fast=True, ratio=1.0, where=Path("/x"), names=("a",), mode="b"
    )


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        ({}, "pool is missing"),
        ({"pool": "x", "pol": 1}, "unknown key 'pol'; known are pool, base_size, fast"),
        ({"pool": 3}, "pool: 3 is not text"),
        ({"pool": "x", "fast": 1}, "fast: 1 is not true or false"),
        ({"pool": "x", "base_size": "ten"}, "'ten' is not a size"),
        ({"pool": "x", "base_size": True}, "base_size: True is not a number"),
        ({"pool": "x", "names": "a"}, "names: 'a' is not a list"),
        ({"pool": "x", "names": [1]}, "names: 1 is not text"),
        ({"pool": "x", "mode": "c"}, "mode: 'c' is not 'a' or 'b'"),
        ({"pool": "x", "colour": "mauve"}, "mauve"),
        ({"pool": "x", "level": 10}, "level"),
    ],
)
def test_a_wrong_option_is_told(table: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=rf"\[drivers.fake\].*{complaint}"):
        driver_options(Fake, table)


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("4096", 4096), ("10GiB", 10 << 30), ("10G", 10 << 30), ("2 kb", 2000), ("1TB", 10**12)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GiB", "-1", "1.5G", "1X", "1GiBB", "\u0661"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(BadRequest):
        parse_size(text)


# the choice


def test_the_first_healthy_driver_is_taken_and_the_others_explained(
    drivers: dict[str, type[Driver]], tmp_path: Path
) -> None:
    drivers.update(one=sick("the kernel lacks it"), two=well(), three=well())

    choice = choose_driver(Config(tmp_path, ("none", "one", "two", "three")))

    assert isinstance(choice.driver, drivers["two"])
    assert choice.skipped == (("none", "no plugin offers 'none'"), ("one", "the kernel lacks it"))


def test_the_driver_that_the_store_has_comes_first(drivers: dict[str, type[Driver]], tmp_path: Path) -> None:
    drivers.update(one=well(), two=well())
    (tmp_path / "two").mkdir()
    (tmp_path / "two/metadata.db").touch()

    assert isinstance(choose_driver(Config(tmp_path, ("one", "two"))).driver, drivers["two"])


def test_one_driver_that_was_named_is_never_replaced(drivers: dict[str, type[Driver]], tmp_path: Path) -> None:
    drivers.update(one=sick("no /dev/fuse"), two=well())

    with pytest.raises(Unhealthy, match="one: no /dev/fuse"):
        choose_driver(Config(tmp_path, ("one",), explicit=True))
    with pytest.raises(DriverNotFound):
        choose_driver(Config(tmp_path, ("none",), explicit=True))


def test_when_none_can_be_used_all_reasons_are_given(drivers: dict[str, type[Driver]], tmp_path: Path) -> None:
    drivers.update(one=sick("first"), two=sick("second"))

    with pytest.raises(Unhealthy) as told:
        choose_driver(Config(tmp_path, ("one", "two")))

    assert "one: first" in str(told.value)
    assert "two: second" in str(told.value)


def test_wrong_options_stop_the_choice(drivers: dict[str, type[Driver]], tmp_path: Path) -> None:
    """A mistake in the config is not a reason to use another driver silently."""
    drivers.update(one=well(), two=well())

    with pytest.raises(ConfigError, match="unknown key"):
        choose_driver(Config(tmp_path, ("one", "two"), options={"one": {"colour": "red"}}))
