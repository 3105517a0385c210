"""Find and load plugins: a driver by its name, observers and commands as a whole."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, cast

import attrs
import pluggy

from lamina import hookspecs
from lamina.driver import Driver
from lamina.errors import ConfigError, DriverNotFound

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint, EntryPoints

    from lamina.events import Event

DRIVERS: Final = "lamina.drivers"
PLUGINS: Final = "lamina.plugins"


@attrs.frozen
class Origin:
    """Who offers a driver under a name."""

    name: str
    module: str
    distribution: str  # name and version


def installed() -> tuple[str, ...]:
    """The names of all drivers that are installed, sorted; none of them is imported."""
    return tuple(sorted({point.name for point in _points(DRIVERS)}))


def origins() -> tuple[Origin, ...]:
    """Who offers which driver, sorted by name; none of them is imported."""
    return tuple(sorted((_origin(point) for point in _points(DRIVERS)), key=lambda one: (one.name, one.distribution)))


def load_driver(name: str) -> type[Driver]:
    """The class of the driver that goes by this name in configs.

    Raises DriverNotFound, or ConfigError for a plugin that two distributions offer, that cannot be imported, or that
    does not keep to the contract; the message names the distribution.
    """
    point = _only(name, [point for point in _points(DRIVERS) if point.name == name])
    where = _origin(point)
    manager = _manager([point])
    try:
        offered: object = manager.hook.lamina_driver()
    except Exception as error:  # the plugin loads its driver only now
        raise _broken(point, error) from error
    if not (isinstance(offered, type) and issubclass(offered, Driver)):
        raise ConfigError(f"driver {name!r} of {where.distribution}: lamina_driver() in {where.module} gave no Driver")
    if getattr(offered, "name", None) != name:
        raise ConfigError(
            f"driver {name!r} of {where.distribution}: its class calls itself {getattr(offered, 'name', None)!r}"
        )
    return offered


def refuse_missing(name: str) -> None:
    """DriverNotFound if nobody offers a driver of that name; it is not imported."""
    if name not in installed():
        raise _missing(name)


def tell_observers(event: Event) -> None:
    """Call every `lamina_changed` of the installed plugins."""
    observers = _observers()
    if observers is not None:
        observers.hook.lamina_changed(event=event)


def load_plugins() -> pluggy.PluginManager:
    """All plugins of the group `lamina.plugins`."""
    return _manager(_points(PLUGINS))


@functools.cache
def _observers() -> pluggy.PluginManager | None:
    points = _points(PLUGINS)
    return _manager(points) if points else None


@functools.cache
def _points(group: str) -> tuple[EntryPoint, ...]:
    # a distribution that lies twice on the path is listed twice
    return tuple(
        {(point.name, point.value, _distribution(point)): point for point in _all_points().select(group=group)}.values()
    )


@functools.cache
def _all_points() -> EntryPoints:
    """Reading every distribution's metadata is the slow part, so it is done once for all groups."""
    from importlib.metadata import entry_points  # noqa: PLC0415  # 30 ms that --help does not need

    found: Any = entry_points()  # before Python 3.12 of another type, with the same `select`
    return cast("EntryPoints", found)


def _only(name: str, found: list[EntryPoint]) -> EntryPoint:
    if not found:
        raise _missing(name)
    if len(found) > 1:
        both = " and ".join(sorted(_distribution(point) for point in found))
        raise ConfigError(f"driver {name!r} is offered by {both}; uninstall one of them")
    return found[0]


def _missing(name: str) -> DriverNotFound:
    return DriverNotFound(f"no plugin offers {name!r}; installed: {', '.join(installed()) or 'none'}")


def _manager(points: Iterable[EntryPoint]) -> pluggy.PluginManager:
    manager = pluggy.PluginManager("lamina")
    manager.add_hookspecs(hookspecs)
    for point in points:
        try:
            manager.register(point.load(), name=f"{point.group}:{point.name}")
            manager.check_pending()
        except Exception as error:
            raise _broken(point, error) from error
    return manager


def _broken(point: EntryPoint, error: Exception) -> ConfigError:
    why = f"{type(error).__name__}: {error}"
    return ConfigError(f"plugin {point.name!r} of {_distribution(point)} cannot be loaded: {why}")


def _origin(point: EntryPoint) -> Origin:
    return Origin(point.name, point.value, _distribution(point))


def _distribution(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else point.value
