"""What a server is to show, and how one is started: by the driver, or by whoever mounts for an ordinary user.

The latter runs a program of ours, `lamina-fuse SOURCE TARGET -o OPTIONS`, as mount.fuse3(8) would: it finds what the
driver has written into SOURCE, a layer's place.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import sys
from pathlib import Path
from typing import Any, Final

import attrs

from lamina_fuse import accelerator, life

PROGRAM: Final = "lamina-fuse"
_PLAN: Final = "server.json"


@attrs.frozen
class Plan:
    """All that a server has to know but the places, which may move."""

    lowers: tuple[int, ...]  # the nearest first
    writable: bool
    work: str  # the directory in the layer's place in which things are made that take several steps
    prefix: str  # of the marks' attributes
    options: tuple[str, ...]  # of the mount, for libfuse
    log_level: str
    accelerate: bool
    passthrough: bool
    look_out: int  # microseconds
    read_ahead: int  # KiB


def write_plan(place: Path, plan: Plan) -> None:
    """Put it in its place at once."""
    unfinished = place / f"{_PLAN}.{os.getpid()}"
    unfinished.write_text(json.dumps(attrs.asdict(plan)), encoding="utf-8")
    unfinished.rename(place / _PLAN)


def read_plan(place: Path) -> Plan:
    """What `write_plan` wrote; FileNotFoundError if the driver was not asked for mounts."""
    fields: dict[str, Any] = json.loads((place / _PLAN).read_text(encoding="utf-8"))
    return Plan(**{**fields, "lowers": tuple(fields["lowers"]), "options": tuple(fields["options"])})


def serve(place: Path, target: Path, plan: Plan) -> None:
    """The layer at `place` is mounted at `target`, by a server that outlives us; nobody else serves it then."""
    preload = accelerator.library(place.parent) if plan.accelerate else None
    secret = f"\x01lamina.{secrets.token_hex(16)}." if preload else ""
    spec = {"place": str(place), "target": str(target), "secret": secret, **attrs.asdict(plan)}
    life.serve(place, spec, str(preload or ""))
    life.read_ahead(target, plan.read_ahead)


def main() -> int:
    """`lamina-fuse SOURCE TARGET [-o OPTIONS]`: 0 once the mount is there."""
    parser = argparse.ArgumentParser(PROGRAM, description="Show a layer of the driver fuse; `lamina mounts` tells how.")
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("-o", metavar="OPTIONS", default="", help="ro: nobody can write; others are passed over")
    given = parser.parse_args()
    try:
        plan = read_plan(given.source)
        if "ro" in given.o.split(",") and "ro" not in plan.options:
            plan = attrs.evolve(plan, options=(*plan.options, "ro"))
        serve(given.source.absolute(), given.target.absolute(), plan)
    except OSError as error:
        print(f"{PROGRAM}: {error.strerror or error}", file=sys.stderr)  # noqa: T201  # whoever mounts reads it
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
