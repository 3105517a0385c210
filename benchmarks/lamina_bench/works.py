"""The works that are measured, for one engine and one round."""

from __future__ import annotations

from pathlib import Path

import attrs

from lamina_bench.cleaning import room
from lamina_bench.engines.engine import Command, Engine
from lamina_bench.image import Image
from lamina_bench.measuring import Cost, flush
from lamina_bench.registry import registry
from lamina_bench.results import Results

LOAD, LASTING = "load", "load until on disk"
SAVE, REMOVE = "save", "rmi"
LIST, LIST_CONTAINERS = "images", "ps"
COMMIT, COMMIT_TINY, LIFE = "commit", "commit, tiny image", "container's life"

CHANGED = 10  # files that the container writes to before it is committed
QUICK = 5  # a command of some milliseconds is measured so often a round
PULL, PULL_LASTING, PUSH = "pull", "pull until on disk", "push"
FIRST, WHOLE = "start to first byte", "run --rm, to its end"

IN_STORE = frozenset(("load", "save", "images", "commit", "rmi"))
START = "start"
WORDS = ("load", "save", "images", "commit", "rmi", "pull", "push", START)


@attrs.frozen
class Round:
    """One round: everything is measured once, by whoever can do it."""

    results: Results
    large: Image
    tiny: Image
    wanted: frozenset[str]
    spare: Path  # for what is saved

    def play(self, engine: Engine) -> None:
        """A fresh store, the image in, worked with, and out again."""
        with engine:
            self._load(engine)
            if "images" in self.wanted:
                self._quick(LIST, engine, engine.list_images())
                self._quick(LIST_CONTAINERS, engine, engine.list_containers())
            if "save" in self.wanted:
                self._save(engine)
            if "commit" in self.wanted and engine.makes_containers:
                self._commit(engine, COMMIT, self.large)
                engine.run(engine.load(self.tiny))
                self._commit(engine, COMMIT_TINY, self.tiny)
            if "rmi" in self.wanted:
                self._measured(REMOVE, engine, engine.remove(self.large))

    def exchange(self, engine: Engine, host: str) -> None:
        """The large image from a registry into a fresh store, and to another registry, which is empty."""
        with engine:
            pull = engine.pull(self.large, host)
            if pull is None:
                return
            flush()
            cost = engine.measure(pull)
            late = flush()
            if "pull" in self.wanted:
                self.results.add(PULL, engine.name, cost)
                self.results.add(PULL_LASTING, engine.name, cost.plus(Cost(late, 0.0, 0)))
            if "push" in self.wanted:
                self._push(engine, host)

    def _push(self, engine: Engine, host: str) -> None:
        with room(self.spare / "other") as place, registry(place / "registry") as other:
            if (name := engine.name_for(self.large, host, other)) is not None:
                engine.run(name)
            flush()
            self._measured(PUSH, engine, engine.push(self.large, host, other))

    def begin(self, engine: Engine, image: Image, times: int = QUICK) -> None:
        """A container that says a word and ends, some times: the first start of an image is not measured."""
        with engine:
            engine.run(engine.load(image))
            command = engine.start(image, "echo", "x")
            if command is None:
                return
            engine.run(command)
            flush()
            for _ in range(times):
                cost, first = engine.measure_first(command)
                self.results.add(FIRST, engine.name, attrs.evolve(cost, wall=first))
                self.results.add(WHOLE, engine.name, cost)

    def _load(self, engine: Engine) -> None:
        read_ahead(self.large)
        flush()
        cost = engine.measure(engine.load(self.large))
        late = flush()
        if "load" in self.wanted:
            self.results.add(LOAD, engine.name, cost)
            self.results.add(LASTING, engine.name, cost.plus(Cost(late, 0.0, 0)))

    def _save(self, engine: Engine) -> None:
        target = self.spare / "saved.tar"
        flush()
        self._measured(SAVE, engine, engine.save(self.large, target))
        target.unlink(missing_ok=True)

    def _commit(self, engine: Engine, work: str, image: Image) -> None:
        """Ten files are changed in a container, and committed."""
        flush()
        life = [self._step(engine, engine.create(image)), self._step(engine, engine.mount())]
        change(engine.tree())
        life.append(self._step(engine, engine.unmount()))
        flush()
        self._measured(work, engine, engine.commit("changed"))
        life.append(self._step(engine, engine.drop()))
        if work is COMMIT:
            create, mount, unmount, drop = life
            self.results.add(LIFE, engine.name, create.plus(mount).plus(unmount).plus(drop))
        if (forget := engine.forget("changed")) is not None:
            engine.run(forget)

    def _step(self, engine: Engine, command: Command | None) -> Cost:
        assert command is not None, f"{engine.name} makes containers, so it has all the commands"
        return engine.measure(command)

    def _quick(self, work: str, engine: Engine, command: Command | None) -> None:
        for _ in range(QUICK):
            self._measured(work, engine, command)

    def _measured(self, work: str, engine: Engine, command: Command | None) -> None:
        if command is not None:
            self.results.add(work, engine.name, engine.measure(command))


def change(tree: Path) -> None:
    """Append to the first ten files of `srv/app`, in the order of their names."""
    files = sorted(path for path in (tree / "srv/app").iterdir() if path.is_file())[:CHANGED]
    assert len(files) == CHANGED
    for path in files:
        with path.open("a") as file:
            file.write("# changed\n")


def read_ahead(image: Image) -> None:
    """The input lies in the page cache, for whoever comes first, too."""
    for path in (*image.layout.glob("blobs/*/*"), image.oci_archive):
        with path.open("rb") as file:
            while file.read(1 << 20):
                pass
