"""What every command starts from: the global options, and the store opened as they say."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import click

if TYPE_CHECKING:
    from lamina.config import Config
    from lamina.containers.engine import Engine
    from lamina.containers.store import Containers
    from lamina.images.store import Images
    from lamina.snapshotter import Snapshotter


@attrs.frozen
class Session:
    """The global options of one command, and what they open."""

    config_file: Path | None = None
    root: Path | None = None
    driver: str | None = None
    debug: bool = False

    def _settle_in(self) -> None:
        """An ordinary user becomes root of a namespace of his own, where layers can be mounted and owners kept.

        Where the kernel gives him none, everything goes on without: some drivers need none.
        """
        if os.geteuid() == 0:
            return
        from lamina.configfile import read_file  # noqa: PLC0415
        from lamina.containers.userns import enter, state_directory  # noqa: PLC0415  # root needs none of it
        from lamina.errors import CannotRun  # noqa: PLC0415

        root, (file, table) = self.place(), read_file(self.config_file, os.environ)
        with suppress(CannotRun):
            enter(state_directory())
            os.environ["LAMINA_ROOT"] = str(root)  # what is usual for root is not what was meant
            os.environ.update({"LAMINA_CONFIG": str(file)} if table else {})

    def place(self) -> Path:
        """Where the store lies: enough for those who only list. DriverNotFound for a name that nobody offers."""
        from lamina.configfile import find_root  # noqa: PLC0415

        return find_root(self.config_file, os.environ, root=self.root, driver=self.driver)

    def config(self) -> Config:
        """The config file, the environment and the options, the later ones winning."""
        from lamina.config import load_config  # noqa: PLC0415  # --help needs no config

        return load_config(self.config_file, os.environ, driver=self.driver, root=self.root)

    @contextmanager
    def snapshots(self) -> Iterator[Snapshotter]:
        """The store with the chosen driver."""
        from lamina.snapshotter import open_snapshotter  # noqa: PLC0415

        self._settle_in()
        with open_snapshotter(self.config()) as snapshots:
            yield snapshots

    @contextmanager
    def images(self) -> Iterator[Images]:
        """The images of the store."""
        from lamina.images.store import Images  # noqa: PLC0415
        from lamina.snapshotter import open_snapshotter  # noqa: PLC0415

        self._settle_in()
        config = self.config()
        with open_snapshotter(config) as snapshots, Images(config.root, snapshots, config.registries) as images:
            yield images

    @contextmanager
    def both(self) -> Iterator[tuple[Images, Containers]]:
        """The images and the containers of the store."""
        from lamina.containers.store import Containers  # noqa: PLC0415

        with self.images() as images:
            yield images, Containers(images)

    @contextmanager
    def containers(self) -> Iterator[Containers]:
        """The containers of the store."""
        with self.both() as (_, containers):
            yield containers

    @contextmanager
    def engine(self) -> Iterator[Engine]:
        """The containers of the store, to be run. What crashes have left is repaired, and said on stderr."""
        with self.both_and_engine() as (_, engine):
            yield engine

    @contextmanager
    def both_and_engine(self) -> Iterator[tuple[Images, Engine]]:
        """The images, and the containers to be run."""
        from lamina.containers.opening import command_again, open_engine  # noqa: PLC0415

        self._settle_in()
        config = self.config()
        with self.both() as (images, containers):
            options = {"root": str(config.root), "driver": containers.driver}
            if config.file is not None:
                options["config"] = str(config.file.absolute())
            yield images, open_engine(containers, config.containers, command_again(options), say)


def say(sentence: str) -> None:
    """Tell people something that they have not asked for."""
    from lamina.cli.output import escape  # noqa: PLC0415

    click.echo(f"lamina: {escape(sentence)}", err=True)


pass_session = click.make_pass_decorator(Session, ensure=True)
