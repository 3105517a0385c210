"""The config file, the environment and the options of a command, as one frozen record; and the choice of a driver."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from lamina.configfile import drivers_of, read_file, refuse_unknown, root_of, text_of
from lamina.driver import Driver
from lamina.durability import Durability
from lamina.errors import ConfigError, DriverNotFound, LaminaError, Unhealthy
from lamina.places import WELL_KNOWN
from lamina.plugins import installed, load_driver


@attrs.frozen
class Config:
    """What was asked for, wherever it was said."""

    root: Path
    drivers: tuple[str, ...]  # in the order in which they are tried
    durability: Durability = Durability.ORDERED
    options: Mapping[str, Mapping[str, Any]] = attrs.field(factory=dict)  # the tables [drivers.NAME]
    containerd: Mapping[str, Any] = attrs.field(factory=dict)
    containers: Mapping[str, Any] = attrs.field(factory=dict)  # the table [containers]: runtime, network
    registries: Mapping[str, Any] = attrs.field(factory=dict)  # images/registry_config.py reads it
    file: Path | None = None  # where it was read, if anywhere
    explicit: bool = False  # one driver was named, so that no other will do


@attrs.frozen
class Choice:
    """The driver that is used, and why those before it are not."""

    driver: Driver
    skipped: tuple[tuple[str, str], ...] = ()


def load_config(
    path: Path | None, environ: Mapping[str, str], *, driver: str | None = None, root: Path | None = None
) -> Config:
    """What the options say, else the environment, else the file, else what is usual. ConfigError says what is wrong.

    The file is `path`, else LAMINA_CONFIG, else the usual one, which need not exist. LAMINA_DRIVER and LAMINA_ROOT are
    as `driver` and `root`; several drivers are separated by commas.
    """
    file, table = read_file(path, environ)
    names = drivers_of(file, table, environ, driver)
    return Config(
        root=root_of(file, table, environ, root),
        drivers=names or _usual_drivers(),
        durability=Durability.of(text_of(table, "durability", file) or "ordered"),
        options={name: _table(each, f"{file}: [drivers.{name}]") for name, each in _tables(table, file).items()},
        containerd=_table(table.get("containerd", {}), f"{file}: [containerd]"),
        containers=_table(table.get("containers", {}), f"{file}: [containers]"),
        registries=_table(table.get("registries", {}), f"{file}: [registries]"),
        file=file if table else None,
        explicit=len(names) == 1,
    )


# the choice


def choose_driver(config: Config) -> Choice:
    """The first driver of the list that can be used here; one that the root already holds a store of comes first.

    Unhealthy with all reasons if none can; the error of the driver itself if only one was asked for.
    """
    skipped: list[tuple[str, str]] = []
    for name in _in_order(config):
        try:
            driver = make_driver(config, name)
            health = driver.health()
        except DriverNotFound as error:
            if config.explicit:
                raise
            skipped.append((name, str(error)))
            continue
        if health.ok:
            return Choice(driver, tuple(skipped))
        if config.explicit:
            raise Unhealthy(name, health.problems)
        skipped.append((name, "; ".join(health.problems)))
    if len(skipped) == 1:
        raise Unhealthy(*skipped[0][:1], skipped[0][1:])
    raise Unhealthy("no driver can be used here", [f"{name}: {why}" for name, why in skipped] or ["none is installed"])


def make_driver(config: Config, name: str) -> Driver:
    """The driver of that name with its options, at home in the config's root; nothing is touched."""
    cls = load_driver(name)
    return cls(config.root / name / "layers", driver_options(cls, config.options.get(name, {})))


def _in_order(config: Config) -> tuple[str, ...]:
    used = [name for name in config.drivers if (config.root / name / "metadata.db").exists()]
    return tuple(dict.fromkeys([*used, *config.drivers]))


# options of a driver


def driver_options(cls: type[Driver], table: Mapping[str, Any]) -> Any:
    """The driver's own options from its table; ConfigError lists the known ones, or says which type was meant."""
    return options_of(cls.Options, table, f"[drivers.{cls.name}]")


def options_of(record: type, table: Mapping[str, Any], where: str) -> Any:
    """The attrs record that a table stands for; ConfigError lists its keys, or says which type was meant."""
    fields = {field.name: field for field in attrs.fields(record) if field.init}
    refuse_unknown(table, tuple(fields), where)
    missing = [name for name, field in fields.items() if field.default is attrs.NOTHING and name not in table]
    if missing:
        raise ConfigError(f"{where}: {missing[0]} is missing; say {missing[0]} = …")
    types_of = typing.get_type_hints(record)
    values = {name: _converted(value, types_of[name], f"{where} {name}") for name, value in table.items()}
    try:
        return record(**values)
    except LaminaError:
        raise
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: {error}") from error


def _converted(value: Any, wanted: Any, where: str) -> Any:  # noqa: PLR0911  # a table of types
    """The value as the type that the option has; TOML knows fewer types than Python."""
    origin: Any
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if origin in {typing.Union, types.UnionType}:
        return _one_of(value, arguments, where)
    if origin is typing.Literal:
        return _expected(value, value in arguments, where, " or ".join(map(repr, arguments)))
    if origin in {tuple, list, frozenset, set}:
        _expected(value, isinstance(value, list), where, "a list")
        return origin(_converted(each, arguments[0], where) for each in value)
    if origin in {dict, Mapping}:
        _expected(value, isinstance(value, dict), where, "a table")
        return {key: _converted(each, arguments[1], where) for key, each in value.items()}
    if wanted is Path:
        return Path(_expected(value, isinstance(value, str), where, "a path")).expanduser()
    if wanted is int:
        return _integer(value, where)
    if wanted is float:
        return float(_expected(value, isinstance(value, int | float) and value is not True, where, "a number"))
    if wanted is Any:
        return value
    return _simple(value, wanted, where)


def _simple(value: Any, wanted: type, where: str) -> Any:
    if isinstance(value, wanted):
        return value
    if wanted in {str, bool}:
        raise ConfigError(f"{where}: {value!r} is not {'text' if wanted is str else 'true or false'}")
    try:  # an enum, or a class of the driver's own
        return wanted(value)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: {error}") from error


def _one_of(value: Any, choices: tuple[Any, ...], where: str) -> Any:
    error: ConfigError | None = None
    for choice in choices:
        if choice is not types.NoneType:
            try:
                return _converted(value, choice, where)
            except ConfigError as found:
                error = error or found
    raise error or ConfigError(f"{where}: {value!r} cannot be given")


def _integer(value: Any, where: str) -> int:
    if isinstance(value, str):
        return parse_size(value, where)
    _expected(value, isinstance(value, int) and not isinstance(value, bool), where, 'a number or "10GiB"')
    return int(value)


def parse_size(text: str, where: str = "size") -> int:
    """Bytes: "4096", "10GiB", "10G" and "10g" are powers of 1024, "10GB" are powers of 1000."""
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise ConfigError(f'{where}: {text!r} is not a size; say 4096, "10GiB" or "10GB"')
    base = 1000 if found["unit"] and found["suffix"].upper() == "B" else 1024
    factor: int = base ** _POWERS.index(found["unit"].upper())
    return int(found["number"]) * factor


_SIZE: Final = re.compile(r"(?P<number>[0-9]+)\s*(?P<unit>[KMGTP]?)(?P<suffix>i?B|)", re.IGNORECASE)
_POWERS: Final = ("", "K", "M", "G", "T", "P")


def _expected(value: Any, fits: bool, where: str, what: str) -> Any:  # noqa: FBT001  # it is the question itself
    if not fits:
        raise ConfigError(f"{where}: {value!r} is not {what}")
    return value


# reading


def _tables(table: Mapping[str, Any], file: Path) -> Mapping[str, Any]:
    return _table(table.get("drivers", {}), f"{file}: drivers")


def _table(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"{where}: {value!r} is not a table")
    return value


def _usual_drivers() -> tuple[str, ...]:
    """Those of the well-known that are installed; others have to be asked for."""
    there = installed()
    return tuple(name for name in WELL_KNOWN if name in there) or there
