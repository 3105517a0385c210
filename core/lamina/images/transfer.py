"""Blobs on their way in: downloads in a thread of their own, read by others while they grow."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import attrs
import trio
from anyio.from_thread import BlockingPortal, start_blocking_portal

from lamina.errors import LaminaError, NotFound, RegistryError
from lamina.images.blobs import Blob
from lamina.images.login import find_credentials
from lamina.images.manifest import Descriptor
from lamina.images.partial import Partial
from lamina.images.progress import LayerProgress, Progress, Status
from lamina.images.registry import Registry, Take, pour_rest
from lamina.images.registry_config import Registries
from lamina.images.registry_http import Again, Clients, Patience, Request, followed, join, pause, refuse_failing
from lamina.images.transfer_incoming import Incoming
from lamina.images.work import Work

if TYPE_CHECKING:
    import httpx

_ENOUGH: Final = 1 << 20  # bytes after which a broken connection does not count as a failure of the same kind
_LOOK_AGAIN: Final = 0.1  # seconds between looks whether another process has finished the same blob


@attrs.frozen
class Line:
    """A way to registries: a thread with an event loop, and the clients in it."""

    portal: BlockingPortal
    clients: Clients
    environ: Mapping[str, str]

    def registry(self, host: str) -> Registry:
        """One of them, with the credentials that the user has for it."""
        return Registry(host, self.clients, lambda: find_credentials(host, self.environ))


@contextlib.contextmanager
def opened_line(
    registries: Registries, patience: Patience | None = None, environ: Mapping[str, str] | None = None
) -> Iterator[Line]:
    """Talk to registries within the block; an exception in it ends every request, and the thread."""
    with start_blocking_portal("trio", name="lamina-registry") as portal:
        clients = Clients(registries, patience)
        with portal.wrap_async_context_manager(clients):
            yield Line(portal, clients, os.environ if environ is None else environ)


@attrs.frozen
class Origin:
    """A repository, where it can be pulled from."""

    registry: Registry
    path: str


class Downloads:
    """The blobs of one pull. Leave it with `close`, when nobody reads any more."""

    def __init__(self, work: Work, line: Line, origins: Sequence[Origin], progress: Progress) -> None:
        self._work = work
        self._line = line
        self._origins = origins
        self._progress = progress
        self._turns = trio.Semaphore(line.clients.registries.parallel)
        self._coming: dict[str, Incoming] = {}

    def start(self, wanted: Sequence[Descriptor]) -> None:
        """They begin to come, the first ones first. NoSpace if there is no room for all of them."""
        blobs = self._work.shelves.blobs
        missing = {each.digest: each for each in wanted if not blobs.has(each.digest)}
        blobs.refuse_too_large(sum(each.size for each in missing.values()))
        for descriptor in {each.digest: each for each in wanted}.values():
            self._coming[descriptor.digest] = Incoming(descriptor)
        for digest, incoming in self._coming.items():
            if digest in missing:
                self._line.portal.start_task_soon(self._bring, incoming)
            else:
                self._found(incoming)

    def __getitem__(self, digest: str) -> Incoming:
        return self._coming[digest]

    def close(self) -> None:
        """Let go of all files."""
        for incoming in self._coming.values():
            incoming.close()

    def _found(self, incoming: Incoming) -> bool:
        digest = incoming.descriptor.digest
        try:
            file = self._work.shelves.blobs.open(digest)
        except NotFound:
            return False
        with file:
            size, fd = os.fstat(file.fileno()).st_size, os.dup(file.fileno())
        incoming.finish(Blob(digest, size), fd)
        return True

    async def _bring(self, incoming: Incoming) -> None:
        try:
            async with self._turns:
                with contextlib.ExitStack() as held:
                    while not self._found(incoming):
                        partial = await trio.to_thread.run_sync(self._try_to_write, held, incoming)
                        if partial is not None:
                            await self._fill(incoming, partial)
                            return
                        await trio.sleep(_LOOK_AGAIN)  # another process is at it
        except Exception as error:  # noqa: BLE001  # whoever waits for it raises it
            incoming.fail(error)
        except BaseException:  # cancelled: nobody may wait for ever
            incoming.abandon()
            raise

    def _try_to_write(self, held: contextlib.ExitStack, incoming: Incoming) -> Partial | None:
        try:
            return held.enter_context(self._work.shelves.blobs.receiving(incoming.descriptor.digest))
        except BlockingIOError:
            return None

    async def _fill(self, incoming: Incoming, partial: Partial) -> None:
        inherited = partial.size  # a killed process left it: not to be shown before it was checked
        incoming.begin(partial)
        await self._copy(incoming, partial, shown=not inherited)
        if inherited and partial.digest != incoming.descriptor.digest:
            await trio.to_thread.run_sync(partial.restart)
            await self._copy(incoming, partial, shown=False)
        blob = await trio.to_thread.run_sync(self._work.shelves.blobs.keep, partial, incoming.descriptor.digest)
        incoming.finish(blob)

    async def _copy(self, incoming: Incoming, partial: Partial, *, shown: bool) -> None:
        """All of the blob, going on after broken connections; from the next origin if one fails for good."""
        if partial.size > incoming.descriptor.size:
            await trio.to_thread.run_sync(partial.restart)
        sink = _Sink(incoming, partial, self._progress, shown)
        first: LaminaError | None = None
        for origin in self._origins:
            try:
                await self._copy_from(origin, sink)
                return
            except (RegistryError, NotFound) as error:
                first = first or error
        raise first or NotFound(incoming.descriptor.digest)

    async def _copy_from(self, origin: Origin, sink: _Sink) -> None:
        descriptor, failures = sink.incoming.descriptor, 0
        while sink.size < descriptor.size:
            before = sink.size
            try:
                await self._ask(origin, descriptor, sink)
                if sink.size < descriptor.size:
                    raise Again(f"{descriptor.digest} breaks off after {sink.size} bytes")
            except Again as error:
                await sink.flush()
                failures = 1 if sink.size - before >= _ENOUGH else failures + 1
                await pause(self._line.clients.patience, f"pull from {origin.registry.host}", failures, error)
        await sink.flush()

    async def _ask(self, origin: Origin, descriptor: Descriptor, sink: _Sink) -> None:
        try:
            await origin.registry.pour_blob(origin.path, descriptor, sink.size, sink.take)
        except NotFound:
            if not descriptor.urls:
                raise
            await _pour_foreign(self._line.clients, descriptor, sink.size, sink.take)
        await sink.flush()


class _Sink:
    """Gathers pieces and writes them, in a thread, a mebibyte at a time."""

    def __init__(self, incoming: Incoming, partial: Partial, progress: Progress, shown: bool) -> None:  # noqa: FBT001
        self.incoming = incoming
        self._partial = partial
        self._progress = progress
        self._shown = shown
        self._pieces: list[bytes] = []
        self._waiting = 0

    @property
    def size(self) -> int:
        return self._partial.size + self._waiting

    async def take(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._waiting += len(piece)
        if self._waiting >= _ENOUGH:
            await self.flush()

    async def flush(self) -> None:
        pieces, self._pieces, self._waiting = self._pieces, [], 0
        if pieces:
            await trio.to_thread.run_sync(self._partial.write, b"".join(pieces))
        if self._shown:
            self.incoming.grown(self._partial.size)
        descriptor = self.incoming.descriptor
        self._progress(LayerProgress(descriptor.digest, Status.DOWNLOADING, self._partial.size, descriptor.size))


async def _pour_foreign(clients: Clients, descriptor: Descriptor, offset: int, take: Take) -> None:
    """A layer that its publisher lets nobody else give out: from the places that the manifest names, as a stranger."""
    error: Exception | None = None
    for text in descriptor.urls:
        try:
            await _pour_url(clients, _foreign_url(clients, text), descriptor, offset, take)
            return
        except (RegistryError, NotFound) as failed:
            error = error or failed
    raise error or NotFound(f"{descriptor.digest}: nobody has it")


async def _pour_url(clients: Clients, url: httpx.URL, descriptor: Descriptor, offset: int, take: Take) -> None:
    request = Request("GET", url, {"range": f"bytes={offset}-"} if offset else {})
    async with followed(clients, request, None) as response:
        refuse_failing(response, url.host)
        if response.status_code not in {200, 206}:
            raise NotFound(f"{descriptor.digest}: {url.host} answers with status {response.status_code}")
        await pour_rest(clients, response, descriptor, offset, take)


def _foreign_url(clients: Clients, text: str) -> httpx.URL:
    import httpx  # noqa: PLC0415  # only such layers need it here

    url = join(httpx.URL("https://localhost/"), text)
    if url.scheme == "http" and not clients.may_be_plain(url):
        raise RegistryError(f"a layer at {url.host} would come over plain HTTP, which nobody allowed")
    return url
