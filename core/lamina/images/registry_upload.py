"""A blob on its way to a registry: there already, mounted from another repository, in one piece or in several."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator, Callable, Sequence
from typing import BinaryIO, Final

import attrs
import httpx
import trio

from lamina.errors import Denied, NotFound, RegistryError, Unauthorized
from lamina.images.manifest import Descriptor
from lamina.images.partial import BLOCK
from lamina.images.registry import Registry
from lamina.images.registry_auth import Scopes, scope
from lamina.images.registry_http import Again, Body, Request, join, pause

_RANGE: Final = re.compile(r"(?:bytes=)?0-(\d+)")
_OCTETS: Final = "application/octet-stream"
_LONGEST_ANSWER: Final = 64 << 10


@attrs.frozen
class Uploaded:
    """How the blob got there; `mounted` is the repository that had it."""

    existed: bool = False
    mounted: str = ""


@attrs.frozen
class Upload:
    """One blob for one repository."""

    registry: Registry
    path: str
    descriptor: Descriptor
    open: Callable[[], BinaryIO]
    told: Callable[[int], None]  # hears how many bytes are through
    chunk: int

    @property
    def scopes(self) -> Scopes:
        """What all of its requests need."""
        return scope(self.path, "pull,push")

    async def run(self, sources: Sequence[str]) -> Uploaded:
        """The repository has the blob; `sources` are others of the same registry that may have it."""
        if await self.registry.has_blob(self.path, self.descriptor.digest):
            return Uploaded(existed=True)
        for source in sources:
            if await self._mount(source):
                return Uploaded(mounted=source)
        await self._send_patiently()
        return Uploaded()

    async def _mount(self, source: str) -> bool:
        url = (await self._uploads()).copy_merge_params({"mount": self.descriptor.digest, "from": source})
        request = Request("POST", url, expected=frozenset({201, 202}))
        try:
            async with self.registry.open(request, self.scopes | scope(source, "pull")) as response:
                if response.status_code == 201:
                    return True
                await self._cancel(response)  # it has opened an upload instead
        except (Denied, NotFound, Unauthorized, Again):
            pass  # not allowed to read there, or gone: then it is sent
        return False

    async def _send_patiently(self) -> None:
        patience = self.registry.clients.patience
        chunked = 0 < self.chunk < self.descriptor.size
        what, failures = f"push of {self.descriptor.digest} to {self.registry.host}/{self.path}", 0
        while True:
            try:
                await (self._in_pieces() if chunked else self._at_once())
                return
            except Again as error:
                failures += 1
                await pause(patience, what, failures, error)
            except (Unauthorized, Denied):
                raise
            except RegistryError:
                if not chunked:
                    raise
                chunked = False  # some registries take a blob in one piece only
            with contextlib.suppress(Again):
                if await self.registry.has_blob(self.path, self.descriptor.digest):
                    return  # it was the answer that got lost

    async def _at_once(self) -> None:
        where = await self._begin()
        await self._finish(where, self._body(0, self.descriptor.size), self.descriptor.size)

    async def _in_pieces(self) -> None:
        where, at, failures = await self._begin(), 0, 0
        patience = self.registry.clients.patience
        while at < self.descriptor.size:
            try:
                where, at = await self._piece(where, at)
                failures = 0
            except Again as error:
                failures += 1
                await pause(patience, f"push of {self.descriptor.digest}", failures, error)
                where, at = await self._state(where)
        await self._finish(where, b"", 0)

    async def _piece(self, where: httpx.URL, at: int) -> tuple[httpx.URL, int]:
        end = min(at + self.chunk, self.descriptor.size)
        headers = {"content-type": _OCTETS, "content-length": str(end - at), "content-range": f"{at}-{end - 1}"}
        request = Request("PATCH", where, headers, self._body(at, end), frozenset({202, 204}))
        async with self.registry.open(request, self.scopes) as response:
            got = _received(response)
            if got != end:
                raise RegistryError(f"{self.registry.host}: was sent {end} bytes and has taken {got}")
            return _location(response), end

    async def _state(self, where: httpx.URL) -> tuple[httpx.URL, int]:
        """Where an upload that broke off has to go on; Again if the registry does not know it any more."""
        request = Request("GET", where, expected=frozenset({202, 204}))
        try:
            async with self.registry.open(request, self.scopes) as response:
                at = _received(response)
                if at > self.descriptor.size:
                    raise RegistryError(f"{self.registry.host}: has more of a blob than it was sent")
                return _location(response), at
        except NotFound as error:  # it was killed, and came back without
            raise Again(f"the upload was forgotten: {error}") from error

    async def _finish(self, where: httpx.URL, body: Body | bytes, size: int) -> None:
        url = where.copy_merge_params({"digest": self.descriptor.digest})
        headers = {"content-type": _OCTETS, "content-length": str(size)}
        request = Request("PUT", url, headers, body, frozenset({201, 204}))
        async with self.registry.open(request, self.scopes):
            self.told(self.descriptor.size)

    async def _begin(self) -> httpx.URL:
        request = Request("POST", await self._uploads(), {"content-length": "0"}, expected=frozenset({202}))
        async with self.registry.open(request, self.scopes) as response:
            return _location(response)

    async def _cancel(self, response: httpx.Response) -> None:
        request = Request("DELETE", _location(response), expected=frozenset({202, 204}))
        with contextlib.suppress(RegistryError, NotFound, Again):  # registries forget such uploads by themselves
            async with self.registry.open(request, self.scopes):
                pass

    async def _uploads(self) -> httpx.URL:
        return await self.registry.url(self.path, "blobs", "uploads/")

    def _body(self, begin: int, end: int) -> Body:
        async def pieces() -> AsyncIterator[bytes]:
            at = begin
            file = await trio.to_thread.run_sync(self.open)
            try:
                file.seek(at)
                while at < end and (piece := await trio.to_thread.run_sync(file.read, min(BLOCK, end - at))):
                    yield piece
                    at += len(piece)
                    self.told(at)
            finally:
                file.close()

        return pieces


def _location(response: httpx.Response) -> httpx.URL:
    return join(response.url, response.headers.get("location", ""))


def _received(response: httpx.Response) -> int:
    match = _RANGE.fullmatch(response.headers.get("range", "").strip())
    last = int(match[1][:19]) if match else 0
    return last + 1 if last else 0  # "0-0" is what distribution says of nothing
