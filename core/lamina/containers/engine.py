"""Containers that run: start, stop, wait, exec, attach; and what a crash has left, put in order."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

from lamina.containers import monitor
from lamina.containers.attaching import connect
from lamina.containers.cgroups import cgroups
from lamina.containers.container import Container
from lamina.containers.life import Life, State, exit_of, seen
from lamina.containers.mountpoints import make_directories
from lamina.containers.places import inside
from lamina.containers.rooms import Room, room_of
from lamina.containers.runtime import Runtime, find_runtime
from lamina.containers.signals import stop_signal
from lamina.containers.spec import Ground, make_spec
from lamina.containers.users import find_user
from lamina.errors import BadRequest, CannotRun, InUse, NotFound
from lamina.mount import is_mounted

if TYPE_CHECKING:
    from lamina.containers.store import Containers

_GRACE: Final = 10  # seconds that a process has to end by itself, as with docker
_EXIT_FILE: Final = 10.0  # seconds in which a monitor that lives writes down how its container ended
_GLANCE: Final = 0.01

Tell = Callable[[str], object]


def _silent(_: str) -> None:
    """Tell nobody."""


@attrs.frozen
class Surroundings:
    """What of this machine containers run with: from the config, and from who asks."""

    runtimes: tuple[str, ...]
    state: Path  # where runtimes keep their notes; empty after a reboot
    again: tuple[str, ...]  # the command line that opens this store again: for the monitor, when a container ends
    rootless: bool = False


@attrs.frozen
class Engine:
    """The containers of one store, brought to life."""

    containers: Containers
    surroundings: Surroundings
    tell: Tell = _silent

    # looking

    def room(self, container: Container) -> Room:
        """Its directory."""
        return room_of(self.containers.root, container.id)

    def find(self, name: str) -> Container:
        """As it is now, whatever was noted."""
        container = self.containers.find(name)
        return attrs.evolve(container, life=seen(container.life, self.room(container).path))

    def running(self, name: str) -> Container:
        """The same; BadRequest if it does not run."""
        container = self.find(name)
        if not container.life.state.up:
            raise BadRequest(f"container {container.name} is not running")
        return container

    # a life

    def start(self, name: str, *, attached: bool = False) -> socket.socket | None:
        """Its process runs; with `attached`, a line to it from its first byte on. One that runs already stays as it is.

        CannotRun and its kin tell why not; then the container is as it was before.
        """
        found = self.containers.ours(name)
        with self.room(found).locked():
            container = self.settle(found)
            if container.life.state is State.PAUSED:
                raise BadRequest(f"container {container.name} is paused; unpause it instead")
            if container.life.state is State.RUNNING:
                return connect(self.room(container).path) if attached else None
            return self._start(container, attached=attached)

    def _start(self, container: Container, *, attached: bool) -> socket.socket | None:
        runtime = self._runtime()
        line: socket.socket | None = None
        before = container.life
        self.note(container, attrs.evolve(before, state=State.STARTING, runtime=runtime.program))
        try:
            started = self._create(container, runtime)
            line = connect(self.room(container).path) if attached else None
            runtime.start(container.id)
        except BaseException as error:
            if line is not None:
                line.close()
            code = error.exit_code if isinstance(error, CannotRun) else before.code
            self._back_out(container, runtime, attrs.evolve(before, code=code, error=str(error)))
            raise
        life = Life(State.RUNNING, started.process, started.monitor, runtime.program, datetime.now(UTC).isoformat())
        self.note(container, life)
        return line

    def _create(self, container: Container, runtime: Runtime) -> monitor.Started:
        room = self.room(container)
        room.clear()
        options = container.options
        self.containers.snapshots.mount(container.snapshot, room.rootfs)
        hostname = options.hostname or (os.uname().nodename if options.network == "host" else container.short_id)
        files = room.write_files(hostname, network=options.network)
        where, volumes = f"/lamina/{container.id}", self.containers.bound(container)
        ground = Ground(room.rootfs, files, hostname, where, cgroups(), self.surroundings.rootless, volumes)
        for volume in ground.volumes:
            if not (volume.name or os.path.lexists(volume.source)):
                os.makedirs(volume.source)  # as docker does
        with inside(room.rootfs) as tree:
            user = find_user(tree, options.user or container.settings.get("User") or "")
            make_directories(tree, os.fsencode(container.settings.get("WorkingDir") or "/"))
        room.write_spec(make_spec(container.settings, options, user, ground))
        for sentence in ground.cgroups.unlimited(options):
            self.tell(sentence)
        return monitor.create(
            runtime,
            container.id,
            room.path,
            name=container.name,
            terminal=options.terminal,
            interactive=options.interactive,
            afterwards=[*self.surroundings.again, "container", "cleanup", container.id],
        )

    def _back_out(self, container: Container, runtime: Runtime, life: Life) -> None:
        runtime.delete(container.id)
        monitor.end(self.room(container).path, container.id)
        self._unmount(container)
        self.note(container, life)

    def kill(self, name: str, number: int = signal.SIGKILL) -> Container:
        """Send a signal. BadRequest if it does not run."""
        container = self.running(name)
        if number == signal.SIGKILL and container.life.state is State.PAUSED:
            self.runtime_of(container).resume(container.id)  # what is frozen does not even die
        if container.life.process is not None:
            container.life.process.kill(number)
        return container

    def stop(self, name: str, grace: float | None = None) -> Container:
        """It has ended: by its stop signal, or, so many seconds later, by SIGKILL. One that does not run is left."""
        container = self.find(name)
        if not (life := container.life).state.up or life.process is None:
            return self.finish(name)
        if life.state is State.PAUSED:
            self.unpause(name)
        life.process.kill(stop_signal(container.settings))
        seconds = _GRACE if grace is None else grace
        if not life.process.wait(None if seconds < 0 else seconds):
            life.process.kill(signal.SIGKILL)
            life.process.wait()
        return self.finish(name)

    def pause(self, name: str) -> Container:
        """It stands still until `unpause`. CannotRun where that is not possible."""
        return self._freeze(name, State.RUNNING, State.PAUSED)

    def unpause(self, name: str) -> Container:
        """It goes on."""
        return self._freeze(name, State.PAUSED, State.RUNNING)

    def _freeze(self, name: str, before: State, after: State) -> Container:
        container = self.running(name)
        with self.room(container).locked():
            container = self.settle(container)
            if container.life.state is not before:
                how = "not" if before is State.PAUSED else "already"
                raise BadRequest(f"container {container.name} is {how} paused")
            runtime = self.runtime_of(container)
            (runtime.pause if after is State.PAUSED else runtime.resume)(container.id)
            return self.note(container, attrs.evolve(container.life, state=after))

    # the end

    def wait(self, name: str) -> int:
        """Its exit code, once it has ended."""
        container = self.find(name)
        room = self.room(container)
        with room.watched():
            life = self.find(container.id).life
            if life.process is not None and life.state.up:
                life.process.wait()
                self._await_exit(life, room)
            return self.find(container.id).life.code

    def _await_exit(self, life: Life, room: Room) -> None:
        """The monitor writes the code down after the process is gone, if it lives."""
        patience = _EXIT_FILE
        while patience > 0 and exit_of(room.path)[0] is None and life.monitor is not None:
            if life.monitor.wait(_GLANCE):
                return
            patience -= _GLANCE

    def finish(self, name: str) -> Container:
        """One that has ended has left nothing behind, and its end is noted; with `--rm` it is gone itself."""
        container = self.containers.find(name)
        with self.room(container).locked():
            container = self.settle(self.containers.find(container.id))
        if container.options.remove and container.life.state is State.EXITED:
            self.remove(container.id)
        return container

    def remove(self, name: str, *, force: bool = False, volumes: bool = False) -> Container:
        """The container, its layer and its log are gone. InUse while it runs, unless `force`: then it is killed.

        With `volumes`, and with `--rm`, its volumes without a name go, too.
        """
        container = self.containers.ours(name)
        if self.find(container.id).life.state.up:
            if not force:
                raise InUse(f"container {container.name} is {container.state}; stop it first, or force")
            self.kill(container.id)
            self.wait(container.id)
        room = self.room(container)
        room.make()
        room.await_watchers()
        with room.locked():
            container = self.settle(self.containers.find(container.id))
            self.containers.remove(container.id, volumes=volumes or container.options.remove)
            room.destroy()
        return container

    # after a crash; the container's lock is held

    def settle(self, found: Container) -> Container:
        """What was noted is made true again: an end that nobody noted is noted, a start that was cut short undone."""
        container = self.containers.find(found.id)
        room, noted = self.room(container), container.life
        if noted.state.up and noted.process is not None and not noted.process.alive:
            self._await_exit(noted, room)
        now = seen(noted, room.path)
        if noted.state is State.STARTING:
            self._abandon(container)
            self.tell(f"container {container.name}: its start was cut short; it was undone")
            return self.note(container, attrs.evolve(noted, state=State.CREATED, process=None, monitor=None))
        if noted.state.up and not now.state.up:
            self.runtime_of(container).delete(container.id)
            self._unmount(container)
            container = self.note(container, now)
            if not container.options.remove:  # one that is to be removed is not seen to before it is gone
                room.forget_process()
            return container
        return container

    def _abandon(self, container: Container) -> None:
        self.runtime_of(container).delete(container.id)
        monitor.end(self.room(container).path, container.id)
        self._unmount(container)

    # joining it

    def attach(self, name: str) -> socket.socket:
        """A line to a container that runs."""
        container = self.running(name)
        if container.life.state is State.PAUSED:
            raise BadRequest(f"container {container.name} is paused; unpause it first")
        return connect(self.room(container).path)

    # within

    def _runtime(self) -> Runtime:
        return find_runtime(self.surroundings.runtimes, self.surroundings.state, rootless=self.surroundings.rootless)

    def runtime_of(self, container: Container) -> Runtime:
        """The one that made it, whatever the config says now."""
        program = container.life.runtime
        if not program or not os.path.exists(program):
            return self._runtime()
        return find_runtime([program], self.surroundings.state, rootless=self.surroundings.rootless)

    def _unmount(self, container: Container) -> None:
        place = self.room(container).rootfs
        try:
            while is_mounted(place):
                self.containers.snapshots.unmount(place)
        except NotFound:
            return

    def note(self, container: Container, life: Life) -> Container:
        """Write down what has become of it. The container's lock is held."""
        return self.containers.note(attrs.evolve(container, life=life))
