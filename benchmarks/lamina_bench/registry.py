"""A registry on loopback for pulls and pushes: Debian's docker-registry, in a directory of its own."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

from lamina_bench.daemons import running
from lamina_bench.image import TAG, Image
from lamina_bench.measuring import CommandFailed, run

PROGRAMS = ("docker-registry", "skopeo")


@contextlib.contextmanager
def registry(place: Path) -> Iterator[str]:
    """An empty one; HOST:PORT. It ends with the block, what it stored goes with the directory."""
    place.mkdir(parents=True)
    config, log = place / "config.yml", place / "log"
    document = {
        "version": 0.1,
        "log": {"level": "info", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(place / "data")}},
        "http": {"addr": "127.0.0.1:0"},
    }
    config.write_text(json.dumps(document))  # JSON is YAML
    with running(("docker-registry", "serve", str(config)), log, lambda: _host(log)):
        yield _host(log)


def give(image: Image, host: str) -> None:
    """The registry has it, byte for byte."""
    here, there = f"oci:{image.layout}:{TAG}", f"docker://{at(image, host)}"
    run(["skopeo", "copy", "--quiet", "--dest-tls-verify=false", here, there])


def at(image: Image, host: str) -> str:
    """What it is called there."""
    return f"{host}/{image.name}:{TAG}"


def _host(log: Path) -> str:
    found = re.search(r"listening on (127\.0\.0\.1:\d+)", log.read_text(errors="replace"))
    if found is None:
        raise CommandFailed("docker-registry does not listen yet")
    return found[1]
