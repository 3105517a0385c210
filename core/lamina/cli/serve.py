"""Be containerd's snapshotter until somebody says that it is enough."""

from __future__ import annotations

import os
import threading
from importlib.util import find_spec
from pathlib import Path

import click

from lamina.cli import failures
from lamina.cli.output import escape
from lamina.cli.session import Session, pass_session
from lamina.errors import BadRequest

_EXTRA = ("grpc", "grpc_health", "google.protobuf", "prometheus_client")


@click.command
@click.option("--address", type=click.Path(path_type=Path), help="The Unix socket to listen on.")
@click.option("--metrics", metavar="HOST:PORT", help="Where Prometheus may ask; without it, nowhere.")
@pass_session
def serve(session: Session, address: Path | None, metrics: str | None) -> None:
    """Serve the store to containerd as a proxy snapshotter, until SIGTERM or Ctrl-C. See docs/containerd.md."""
    _require_extra()
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # its own notes on stderr help nobody
    from lamina.containerd.server import serving  # noqa: PLC0415  # grpc and its messages: for this command only
    from lamina.containerd.settings import settings_of  # noqa: PLC0415

    settings = settings_of(session.config().containerd, address=address and str(address), metrics=metrics)
    try:
        with session.snapshots() as snapshots:
            for deed in snapshots.recovered:
                _tell(deed)
            with serving(snapshots, settings, lambda line: _tell(f"{snapshots.driver.name}: {line}")):
                threading.Event().wait()
    except (failures.Terminated, KeyboardInterrupt):
        _tell("ended")


def _require_extra() -> None:
    for package in _EXTRA:
        if find_spec(package.partition(".")[0]) is None or find_spec(package) is None:
            raise BadRequest(f"serving containerd needs {package}; install it by `pip install 'lamina[containerd]'`")


def _tell(text: str) -> None:
    for line in text.splitlines():
        click.echo(f"lamina: {escape(line)}", err=True)
