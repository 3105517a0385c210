"""The config file as it was written, and where it says the store lies: all that a mere listing has to know."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from lamina.errors import ConfigError
from lamina.places import WELL_KNOWN, usual_file, usual_root

_KNOWN: Final = ("root", "driver", "durability", "drivers", "containerd", "containers", "registries")


def find_root(
    path: Path | None, environ: Mapping[str, str], *, root: Path | None = None, driver: str | None = None
) -> Path:
    """Where the store lies, as `load_config` has it, without a look at drivers.

    But for the one driver that was named, if one was: DriverNotFound if nobody offers it.
    """
    file, table = read_file(path, environ)
    names = drivers_of(file, table, environ, driver)
    if len(names) == 1 and names[0] not in WELL_KNOWN:  # a look at all that is installed takes 30 ms
        from lamina.plugins import refuse_missing  # noqa: PLC0415

        refuse_missing(names[0])
    return root_of(file, table, environ, root)


def read_file(path: Path | None, environ: Mapping[str, str]) -> tuple[Path, dict[str, Any]]:
    """The file that counts, and its table, which is empty if it does not exist and need not.

    The file is `path`, else LAMINA_CONFIG, else the usual one. ConfigError for what cannot be read, or not be meant.
    """
    named = path or _path(environ.get("LAMINA_CONFIG"))
    file = named or Path(usual_file(environ))
    table = _read(file, must_exist=named is not None)
    refuse_unknown(table, _KNOWN, str(file))
    return file, table


def root_of(file: Path, table: Mapping[str, Any], environ: Mapping[str, str], root: Path | None) -> Path:
    """The store's root: as asked for, else as the environment or the file has it, else the usual one. Absolute."""
    found = root or _path(environ.get("LAMINA_ROOT")) or _path(text_of(table, "root", file))
    return (found or Path(usual_root(environ))).expanduser().absolute()


def drivers_of(file: Path, table: Mapping[str, Any], environ: Mapping[str, str], driver: str | None) -> tuple[str, ...]:
    """The names of the drivers that were asked for, the best first, once each; none if nobody asked."""
    asked = driver or environ.get("LAMINA_DRIVER") or None
    value: object = asked.split(",") if asked else table.get("driver")
    if value is None:
        return ()
    where = f"{file}: driver" if asked is None else "driver"
    names = [value] if isinstance(value, str) else value
    if not (isinstance(names, list) and names and all(isinstance(name, str) and name.strip() for name in names)):
        raise ConfigError(f'{where}: {value!r} is not a name like "overlay", nor a list of such')
    return tuple(dict.fromkeys(name.strip() for name in names))


def text_of(table: Mapping[str, Any], key: str, file: Path) -> str | None:
    """A value that has to be text, if it is there."""
    value = table.get(key)
    if value is not None and not isinstance(value, str):
        raise ConfigError(f"{file}: {key}: {value!r} is not text")
    return value


def refuse_unknown(table: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    """ConfigError for a key that means nothing; it lists those that do."""
    for key in table:
        if key not in known:
            raise ConfigError(f"{where}: unknown key {key!r}; known are {', '.join(known) or 'none'}")


def _read(file: Path, *, must_exist: bool) -> dict[str, Any]:
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        if must_exist:
            raise ConfigError(f"{file}: no such file") from None
        return {}
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from error
    import tomllib  # noqa: PLC0415  # 13 ms that nobody without a file needs

    try:
        return tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: {error}") from error


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None
