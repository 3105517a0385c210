"""Say for each driver and for the store whether all is well, what was looked at, and what to do."""

from __future__ import annotations

from typing import Any

import attrs
import click

from lamina.cli.drivers import Probe, cannot, document, probe_all
from lamina.cli.options import as_json
from lamina.cli.output import escape, show_json
from lamina.cli.session import Session, pass_session
from lamina.driver import Health
from lamina.errors import Unhealthy


@click.command
@as_json
@pass_session
def doctor(session: Session, form: str) -> None:
    """Look at every driver and at the store; ends with 8 if no driver can be used or the store needs help."""
    from lamina.cli.storechecks import check_store  # noqa: PLC0415

    probes = probe_all(session)
    choice = _choice(session)
    store = check_store(session.config().root, [probe.name for probe in probes])
    if form == "json":
        _show_json(probes, choice, store)
    else:
        _show(probes, choice, store, str(session.config().root))
    if not (choice.ok and store.ok):
        raise click.exceptions.Exit(Unhealthy.exit_code)


def _choice(session: Session) -> Health:
    """Which driver the config leads to, and why not those before it."""
    from lamina.config import choose_driver  # noqa: PLC0415

    try:
        choice = choose_driver(session.config())
    except Exception as error:  # noqa: BLE001  # a third party's driver; it must not hide what else there is to say
        return Health((str(error) or type(error).__name__,))
    skipped = tuple(f"{name} comes first, but was skipped: {reason}" for name, reason in choice.skipped)
    return Health(notes=(f"{choice.driver.name} is used", *skipped))


def _show(probes: list[Probe], choice: Health, store: Health, root: str) -> None:
    for probe in probes:
        lacks = tuple(f"cannot {ability.value}" for ability in _lacking(probe))
        _show_health(f"driver {probe.name}", attrs.evolve(probe.health, notes=probe.health.notes + lacks), "usable")
    _show_health("choice", choice, "made")
    _show_health(f"store {root}", store, "fine")


def _show_health(subject: str, health: Health, good: str) -> None:
    click.echo(escape(f"{subject}: {good if health.ok else f'not {good}'}"))
    for problem in health.problems:
        click.echo(escape(f"  problem  {problem}"))
    for note in health.notes:
        click.echo(escape(f"  note     {note}"))


def _show_json(probes: list[Probe], choice: Health, store: Health) -> None:
    for probe in probes:
        show_json({"subject": "driver", **document(probe), "cannot": cannot(probe)})
    for subject, health in (("choice", choice), ("store", store)):
        show_json(_health(subject, health))


def _health(subject: str, health: Health) -> dict[str, Any]:
    return {"subject": subject, "ok": health.ok, "problems": list(health.problems), "notes": list(health.notes)}


def _lacking(probe: Probe) -> list[Any]:
    return sorted(probe.lacking, key=lambda ability: ability.name)
