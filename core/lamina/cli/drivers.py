"""Which drivers there are, whether they can be used here, and the suite that proves them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import click

from lamina.cli import complete
from lamina.cli.options import as_json, quiet
from lamina.cli.output import Column, show_json, show_table
from lamina.cli.session import Session, pass_session
from lamina.driver import Ability, Driver, Health

if TYPE_CHECKING:
    from lamina.config import Config


@attrs.frozen
class Probe:
    """One driver as it was found on this machine."""

    name: str
    health: Health
    driver: type[Driver] | None = None  # None if the plugin cannot be loaded or its options are wrong
    lacking: frozenset[Ability] = frozenset()  # what it cannot, on this machine
    used: bool = False  # by this config and store
    offered_by: str = ""  # the distribution, with its version

    @property
    def verdict(self) -> str:
        """The word of the listing."""
        return "yes" if self.health.ok else "no"


@click.command
@quiet
@as_json
@pass_session
def drivers(session: Session, form: str, *, quiet: bool) -> None:
    """List the installed drivers, and whether each can be used here. `lamina doctor` tells more."""
    from lamina.plugins import installed  # noqa: PLC0415

    if quiet:
        for name in installed():
            click.echo(name)
        return
    probes = probe_all(session)
    if form == "json":
        for probe in probes:
            show_json(document(probe))
    else:
        show_table(_COLUMNS, probes)


@click.command(context_settings={"allow_interspersed_args": False})
@click.argument("driver", shell_complete=complete.drivers)
@click.argument("pytest_args", nargs=-1, type=click.UNPROCESSED)
def conformance(driver: str, pytest_args: tuple[str, ...]) -> int:
    """Prove DRIVER by the suite. What follows goes to pytest: --must-run, --junitxml FILE, -k WORD, …"""
    from lamina.conformance import run  # noqa: PLC0415

    return run(driver, pytest_args)


def probe_all(session: Session) -> list[Probe]:
    """Ask every installed driver about this machine; none of them can make this fail."""
    from lamina.config import choose_driver  # noqa: PLC0415
    from lamina.plugins import origins  # noqa: PLC0415

    config = session.config()
    try:
        chosen = choose_driver(config).driver.name
    except Exception:  # noqa: BLE001  # that none can be used is what the listing tells
        chosen = None
    offers = {origin.name: origin.distribution for origin in origins()}
    probes = {name: _probe(config, name) for name in offers}
    return [attrs.evolve(probes[name], used=name == chosen, offered_by=by) for name, by in offers.items()]


def document(probe: Probe) -> dict[str, Any]:
    """A probe for machines."""
    return {
        "name": probe.name,
        "usable": probe.health.ok,
        "used": probe.used,
        "offered_by": probe.offered_by,
        "problems": list(probe.health.problems),
        "notes": list(probe.health.notes),
        "cannot": cannot(probe),
    }


def cannot(probe: Probe) -> list[str]:
    """The abilities that the driver names as lacking."""
    return sorted(ability.name for ability in probe.lacking)


def _probe(config: Config, name: str) -> Probe:
    from lamina.config import make_driver  # noqa: PLC0415

    try:
        driver = make_driver(config, name)
        return Probe(name, driver.health(), type(driver), driver.lacking())
    except Exception as error:  # noqa: BLE001  # a third party's code; it must not hide the others
        return Probe(name, Health((str(error) or type(error).__name__,)))


_COLUMNS: list[Column[Probe]] = [
    Column("DRIVER", lambda probe: f"{probe.name} *" if probe.used else probe.name),
    Column("USABLE", lambda probe: probe.verdict),
    Column("OFFERED BY", lambda probe: probe.offered_by),
    Column("WHY NOT", lambda probe: "; ".join(probe.health.problems)),
]
