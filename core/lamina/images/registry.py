"""The distribution API of one registry: manifests, blobs, tags."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Final

import attrs
import httpx

from lamina.errors import BadArchive, Denied, DigestMismatch, NotFound, RegistryError
from lamina.images import fields
from lamina.images.familiar import HUB
from lamina.images.login import Lookup
from lamina.images.manifest import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, Descriptor, digest_of
from lamina.images.registry_auth import Authorizer, Scopes, scope
from lamina.images.registry_config import HUB_API
from lamina.images.registry_http import (
    Again,
    Clients,
    NotTls,
    Request,
    followed,
    join,
    patiently,
    place_of,
    pour,
    read,
    refuse_failing,
    same_origin,
)

ACCEPTED: Final = f"{OCI_MANIFEST}, {OCI_INDEX}, {DOCKER_MANIFEST}, {DOCKER_LIST}"
MOST_PAGES: Final = 1000  # of a list of tags
_LONGEST_ERROR: Final = 64 << 10
_CONTENT_RANGE: Final = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_NEXT: Final = re.compile(r'<([^>]*)>\s*;\s*rel="?next"?')

Take = Callable[[bytes], Awaitable[None]]


@attrs.frozen
class Document:
    """A manifest or index as the registry has it."""

    raw: bytes = attrs.field(repr=False)
    media_type: str
    digest: str


class Registry:
    """One registry, inside the `async with` of its clients."""

    def __init__(self, host: str, clients: Clients, lookup: Lookup) -> None:
        self.host = host
        self._clients = clients
        self._lookup = lookup
        self._origin: httpx.URL | None = None
        self._authorizer: Authorizer | None = None

    # manifests and tags

    async def manifest(self, path: str, which: str) -> Document:
        """The document behind a tag or a digest; NotFound, or DigestMismatch if it is not what its digest says."""
        url = await self.url(path, "manifests", which)
        request = Request("GET", url, {"accept": ACCEPTED})
        headers, raw = await self.ask(request, scope(path, "pull"), fields.LARGEST_DOCUMENT)
        digest = digest_of(raw)
        for promised in (which if ":" in which else "", headers.get("docker-content-digest", "")):
            if promised.startswith("sha256:") and promised != digest:
                raise DigestMismatch(f"{self.host}: manifest {path}:{which}", promised, digest)
        return Document(raw, headers.get("content-type", "").partition(";")[0].strip(), digest)

    async def put_manifest(self, path: str, which: str, document: Document) -> None:
        """The registry has the document under this tag or digest; the blobs that it names have to be there."""
        url = await self.url(path, "manifests", which)
        request = Request("PUT", url, {"content-type": document.media_type}, document.raw, frozenset({200, 201, 202}))
        headers, _ = await self.ask(request, scope(path, "pull,push"), _LONGEST_ERROR)
        kept = headers.get("docker-content-digest", document.digest)
        if kept.startswith("sha256:") and kept != document.digest:
            raise DigestMismatch(f"{self.host}: the manifest that was pushed", document.digest, kept)

    async def tags(self, path: str) -> tuple[str, ...]:
        """All tags of a repository; NotFound."""
        url: httpx.URL | None = await self.url(path, "tags", "list")
        found: list[str] = []
        for _ in range(MOST_PAGES):
            if url is None:
                return tuple(dict.fromkeys(found))
            headers, raw = await self.ask(Request("GET", url), scope(path, "pull"), fields.LARGEST_DOCUMENT)
            what = place_of(url)
            found += fields.texts(fields.read_object(raw, what), "tags", what)
            url = self._page_after(url, headers)
        raise RegistryError(f"{self.host}: {path} has more than {MOST_PAGES} pages of tags")

    # blobs

    async def blob(self, path: str, descriptor: Descriptor) -> bytes:
        """The whole of a small blob, checked."""
        if descriptor.size > fields.LARGEST_DOCUMENT:
            raise BadArchive(descriptor.digest, f"a document of more than {fields.LARGEST_DOCUMENT >> 20} MiB")
        url = await self.url(path, "blobs", descriptor.digest)
        _, raw = await self.ask(Request("GET", url), scope(path, "pull"), descriptor.size)
        if (got := digest_of(raw)) != descriptor.digest:
            raise DigestMismatch(f"{self.host}: a blob of {path}", descriptor.digest, got)
        return raw

    async def has_blob(self, path: str, digest: str, actions: str = "pull,push") -> bool:
        """Whether the repository has the blob already."""
        request = Request("HEAD", await self.url(path, "blobs", digest))
        try:
            await self.ask(request, scope(path, actions), 0)
        except NotFound:
            return False
        return True

    async def pour_blob(self, path: str, descriptor: Descriptor, offset: int, take: Take) -> None:
        """Give the blob's bytes from `offset` on to `take`, once; Again if they break off."""
        request = Request(
            "GET",
            await self.url(path, "blobs", descriptor.digest),
            {"range": f"bytes={offset}-"} if offset else {},
            expected=frozenset({200, 206}),
        )
        async with self.open(request, scope(path, "pull")) as response:
            await pour_rest(self._clients, response, descriptor, offset, take)

    # any request

    @property
    def clients(self) -> Clients:
        """What it speaks through."""
        return self._clients

    async def url(self, path: str, kind: str, which: str) -> httpx.URL:
        """Where something of a repository is."""
        return (await self.origin()).copy_with(path=f"/v2/{path}/{kind}/{which}")

    async def origin(self) -> httpx.URL:
        """`https://HOST`, or `http://HOST` where that is allowed and nothing else is spoken."""
        if self._origin is None:
            host = HUB_API if self.host == HUB else self.host
            secure = httpx.URL(f"https://{host}")
            plain = self._clients.may_be_plain(secure) and not await self._speaks_tls(secure)
            self._origin = secure.copy_with(scheme="http") if plain else secure
        return self._origin

    async def authorizer(self) -> Authorizer:
        """Who speaks for us."""
        if self._authorizer is None:
            self._authorizer = Authorizer(await self.origin(), self._clients, self._lookup)
        return self._authorizer

    async def ask(self, request: Request, scopes: Scopes, limit: int) -> tuple[Mapping[str, str], bytes]:
        """Headers and body of the answer, tried as often as it makes sense."""

        async def attempt() -> tuple[Mapping[str, str], bytes]:
            async with self.open(request, scopes) as response:
                return response.headers, await read(response, self._clients.patience, limit)

        return await patiently(self._clients.patience, f"{request.method} {place_of(request.url)}", attempt)

    @contextlib.asynccontextmanager
    async def open(self, request: Request, scopes: Scopes) -> AsyncIterator[httpx.Response]:
        """The answer, its body unread, if it has a status that was expected; one try."""
        who = await self.authorizer()
        ours = same_origin(request.url, await self.origin())
        sent = await who.header(scopes) if ours else None
        async with contextlib.AsyncExitStack() as held:
            response = await held.enter_async_context(followed(self._clients, request, sent))
            if response.status_code == 401 and ours and same_origin(response.url, request.url):
                challenges = response.headers.get_list("www-authenticate")
                await held.aclose()
                sent = await who.challenged(challenges, scopes, sent)
                response = await held.enter_async_context(followed(self._clients, request, sent))
            if response.status_code not in request.expected:
                await self._refuse(request, response)
            yield response

    async def _refuse(self, request: Request, response: httpx.Response) -> None:
        who = await self.authorizer()
        what = f"{request.method} {place_of(request.url)}"
        refuse_failing(response, what)
        said = who.redact(await self._words(request, response))
        if response.status_code == 401:
            who.note(response.headers.get_list("www-authenticate"))
            raise who.refusal()
        errors = {403: Denied, 404: NotFound}
        raise errors.get(response.status_code, RegistryError)(f"{what}: status {response.status_code}{said}")

    async def _words(self, request: Request, response: httpx.Response) -> str:
        """What the registry says itself, if it says it as the API has it, and is the registry that we asked."""
        if request.method == "HEAD" or not same_origin(response.url, request.url):
            return ""
        try:
            raw = await read(response, self._clients.patience, _LONGEST_ERROR)
            first = fields.objects(fields.read_object(raw, ""), "errors", "")[0]
            code, message = fields.text(first, "code", "", ""), fields.text(first, "message", "", "")
        except (BadArchive, IndexError, Again):
            return ""
        return f", {code[:80]}: {message[:200]}"

    async def _speaks_tls(self, secure: httpx.URL) -> bool:
        async def attempt() -> bool:
            try:
                response = await self._clients.send(Request("GET", secure), secure.copy_with(path="/v2/"), {})
            except NotTls:
                return False
            await response.aclose()
            return True

        return await patiently(self._clients.patience, self.host, attempt)

    def _page_after(self, url: httpx.URL, headers: Mapping[str, str]) -> httpx.URL | None:
        match = _NEXT.search(headers.get("link", ""))
        if match is None:
            return None
        found = join(url, match[1])
        if not same_origin(found, url):
            raise RegistryError(f"{self.host}: its list of tags goes on at another host, {found.host}")
        return found


async def pour_rest(
    clients: Clients, response: httpx.Response, descriptor: Descriptor, offset: int, take: Take
) -> None:
    """The body from `offset` on, whether the server has heard our Range or sends everything."""
    skip = offset if response.status_code == 200 else 0
    if response.status_code == 206 and offset != _begin_of(response):
        raise RegistryError(f"{place_of(response.url)}: sends another range than the one that was asked for")
    rest = descriptor.size - offset + skip
    told = response.headers.get("content-length", "")
    if told.isdecimal() and int(told[:19]) != rest and "content-encoding" not in response.headers:
        raise DigestMismatch(f"the length of {descriptor.digest}", f"{rest} bytes", f"{told[:19]} bytes")

    async def keep(piece: bytes) -> None:
        nonlocal skip
        known = min(skip, len(piece))
        skip -= known
        if known < len(piece):
            await take(piece[known:])

    try:
        await pour(response, clients.patience, keep, rest)
    except BadArchive:
        raise DigestMismatch(f"the length of {descriptor.digest}", f"{descriptor.size} bytes", "more") from None


def _begin_of(response: httpx.Response) -> int | None:
    match = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", "").strip())
    return int(match[1]) if match else None
