"""HTTP to a registry and wherever it leads: verified, bounded in time and size, and no secret goes to another host."""

from __future__ import annotations

import contextlib
import datetime as dt
import email.utils
import itertools
import logging
import random
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Final, Self, TypeVar

import attrs
import httpx
import trio

from lamina.errors import BadArchive, RegistryError, Unavailable
from lamina.images.registry_config import Host, Registries, is_loopback
from lamina.images.registry_tls import tls_of

T = TypeVar("T")

MOST_REDIRECTS: Final = 8
LEAST: Final = 16 << 10  # bytes that have to come within the patience, so that a drip is no progress
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_AGAIN: Final = frozenset({408, 429, 500, 502, 503, 504})


@attrs.frozen
class Patience:
    """How long we wait for a registry, in seconds, and how often we try."""

    stall: float = 60.0  # for a connection, for an answer to begin, for the next bytes of it
    tries: int = 5
    pause: float = 0.5  # before the second try; it doubles
    longest: float = 120.0  # a registry that wants us to wait longer is not waited for


class Again(Exception):
    """It failed in a way that may be over soon; `after` is how many seconds the registry wants us to wait."""

    def __init__(self, why: str, after: float | None = None) -> None:
        super().__init__(why)
        self.after = after


Body = Callable[[], AsyncIterator[bytes]]  # called once for each try


@attrs.frozen
class Request:
    """One request. Redirects are followed if it only reads."""

    method: str
    url: httpx.URL
    headers: Mapping[str, str] = attrs.field(factory=dict)
    body: Body | bytes = b""
    expected: frozenset[int] = frozenset({200})


class Clients:
    """One HTTP client for each host, with the TLS that its table says. Use it in an `async with`."""

    def __init__(self, registries: Registries, patience: Patience | None = None) -> None:
        self.registries = registries
        self.patience = patience or Patience(registries.timeout, registries.retries)
        self._clients: dict[tuple[str, bytes], httpx.AsyncClient] = {}
        _keep_queries_out_of_logs()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for client in self._clients.values():
            await client.aclose()

    def host_of(self, url: httpx.URL) -> Host:
        """What the config says of this URL's host."""
        return self.registries.host(url.netloc.decode("ascii"))

    def may_be_plain(self, url: httpx.URL) -> bool:
        """Whether plain HTTP will do for this host: it is this machine, or was called insecure."""
        return is_loopback(url.host) or self.host_of(url).insecure

    async def send(self, request: Request, url: httpx.URL, headers: Mapping[str, str]) -> httpx.Response:
        """Send it to `url`; the answer, its body unread. Again if that may work another time."""
        client = self._client(url)
        with _failures_of(url), trio.fail_after(self.patience.stall) as scope:
            content = _extending(scope, self.patience, request.body) if callable(request.body) else request.body
            message = client.build_request(request.method, url, headers=headers, content=content)
            return await client.send(message, stream=True)
        raise AssertionError  # _failures_of never swallows

    def _client(self, url: httpx.URL) -> httpx.AsyncClient:
        key = (url.scheme, url.netloc)
        if key not in self._clients:
            host = self.host_of(url)
            self._clients[key] = httpx.AsyncClient(
                verify=tls_of(host) if url.scheme == "https" else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
                timeout=self.patience.stall,
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=8),
                headers={"user-agent": "lamina", "accept-encoding": "identity"},
                trust_env=not is_loopback(url.host),  # a proxy is of no use for this machine
            )
        return self._clients[key]


@contextlib.asynccontextmanager
async def followed(clients: Clients, request: Request, authorization: str | None) -> AsyncIterator[httpx.Response]:
    """The answer after all redirects, its body unread. The authorization goes to the first host only."""
    url = request.url
    for _ in range(MOST_REDIRECTS + 1):
        secret = {"authorization": authorization} if authorization and same_origin(url, request.url) else {}
        response = await clients.send(request, url, {**request.headers, **secret})
        try:
            if response.status_code not in _REDIRECTS or request.method not in {"GET", "HEAD"}:
                yield response
                return
            url = _next(clients, url, response)
        finally:
            with trio.move_on_after(1, shield=True):  # closing may have to wait for a TLS peer
                await response.aclose()
    raise RegistryError(f"{place_of(request.url)}: redirects more than {MOST_REDIRECTS} times")


def same_origin(one: httpx.URL, two: httpx.URL) -> bool:
    """Whether a secret for the one may go to the other."""
    return (one.scheme, one.host, one.port) == (two.scheme, two.host, two.port)


async def patiently(patience: Patience, what: str, attempt: Callable[[], Awaitable[T]]) -> T:
    """Try until it works; Unavailable when patience ends."""
    for number in itertools.count(1):
        try:
            return await attempt()
        except Again as error:
            await pause(patience, what, number, error)
    raise AssertionError  # count never ends


async def pause(patience: Patience, what: str, number: int, error: Again) -> None:
    """Wait before the next try, as long as the registry asks for, else longer each time; or Unavailable."""
    if number >= patience.tries:
        raise Unavailable(f"{what}: {error} (tried {number} times)") from error
    if error.after is not None and error.after > patience.longest:
        raise Unavailable(f"{what}: {error}; the registry wants us back in {error.after:.0f} seconds") from error
    step = patience.pause * 2 ** (number - 1)
    await trio.sleep(error.after if error.after is not None else random.uniform(step / 2, step))  # noqa: S311  # no secret


def refuse_failing(response: httpx.Response, what: str) -> None:
    """Again if the registry says that it cannot answer now."""
    if response.status_code in _AGAIN:
        raise Again(f"{what}: status {response.status_code}", _retry_after(response.headers.get("retry-after")))


async def pour(
    response: httpx.Response, patience: Patience, take: Callable[[bytes], Awaitable[None]], limit: int
) -> None:
    """Give every piece of the body to `take`; BadArchive beyond `limit` bytes, Again if the body breaks off."""
    total = since = 0
    async with _wound_up(response) as pieces:
        with _failures_of(response.url), trio.fail_after(patience.stall) as scope:
            async for piece in pieces:
                total += len(piece)
                since += len(piece)
                if total > limit:
                    raise BadArchive(place_of(response.url), f"the answer is longer than {limit} bytes")
                await take(piece)
                if since >= LEAST:
                    since, scope.deadline = 0, trio.current_time() + patience.stall


@contextlib.asynccontextmanager
async def _wound_up(response: httpx.Response) -> AsyncIterator[AsyncIterator[bytes]]:
    """The pieces of the body; if nobody wants the rest, httpx's generators are ended here, not by a collector."""
    pieces = response.aiter_raw()
    try:
        yield pieces
    except BaseException:
        with trio.move_on_after(1, shield=True), contextlib.suppress(httpx.TransportError, httpx.StreamError):
            await response.aclose()
            async for _ in pieces:  # what is left in a buffer, and then the error that the connection is closed
                pass
        raise


async def read(response: httpx.Response, patience: Patience, limit: int) -> bytes:
    """The whole body, if it is not longer than `limit`."""
    pieces: list[bytes] = []

    async def keep(piece: bytes) -> None:  # as `pour` wants it
        pieces.append(piece)

    await pour(response, patience, keep, limit)
    return b"".join(pieces)


def place_of(url: httpx.URL) -> str:
    """A URL for messages: without user, query and fragment, which may be secret."""
    return f"{url.scheme}://{url.netloc.decode('ascii')}{url.path}"


def join(base: httpx.URL, text: str) -> httpx.URL:
    """The URL that an answer from `base` points at; RegistryError if it is none."""
    try:
        url = base.join(text)
    except (httpx.InvalidURL, ValueError, UnicodeError) as error:
        raise RegistryError(f"{place_of(base)}: points at something that is no URL") from error
    if url.scheme not in {"http", "https"} or not url.host or url.userinfo:
        raise RegistryError(f"{place_of(base)}: points at something that is no URL of a registry")
    return url


def _next(clients: Clients, url: httpx.URL, response: httpx.Response) -> httpx.URL:
    found = join(url, response.headers.get("location", ""))
    if url.scheme == "https" and found.scheme == "http" and not clients.may_be_plain(found):
        raise RegistryError(f"{place_of(url)}: redirects to plain HTTP at {found.host}, which nobody allowed")
    return found


async def _extending(scope: trio.CancelScope, patience: Patience, body: Body) -> AsyncIterator[bytes]:
    async for piece in body():
        scope.deadline = trio.current_time() + patience.stall
        yield piece
    scope.deadline = trio.current_time() + 5 * patience.stall  # the other end moves it to where it belongs now


@contextlib.contextmanager
def _failures_of(url: httpx.URL) -> Iterator[None]:
    """Errors of the network become Again, or RegistryError where trying again is of no use."""
    try:
        yield
    except trio.TooSlowError as error:
        raise Again(f"{place_of(url)}: too slow") from error
    except httpx.TransportError as error:
        raise _translated(url, error) from error


def _translated(url: httpx.URL, error: httpx.TransportError) -> Exception:
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            advice = f'[registries.hosts."{url.netloc.decode()}"] in the config file can name a `ca`'
            return RegistryError(
                f"{url.netloc.decode()}: its certificate is not trusted ({cause.verify_message}); {advice}"
            )
        if isinstance(cause, ssl.SSLError):
            return NotTls(f"{url.netloc.decode()}: TLS failed: {cause.reason or cause}")
    if isinstance(error, httpx.UnsupportedProtocol | httpx.LocalProtocolError):
        return RegistryError(f"{place_of(url)}: {error}")
    return Again(f"{place_of(url)}: {_words(error)}")


class NotTls(Again):
    """The other end does not speak TLS, or not with us."""


def _words(error: Exception) -> str:
    for cause in reversed(_causes(error)):
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
    return str(error) or type(error).__name__


def _causes(error: BaseException) -> Sequence[BaseException]:
    found: list[BaseException] = []
    each: BaseException | None = error
    while each is not None and each not in found:
        found.append(each)
        inner = each.exceptions[0] if isinstance(each, BaseExceptionGroup) else None  # trio tries several addresses
        each = inner or each.__cause__ or each.__context__
    return found


def _retry_after(text: str | None) -> float | None:
    if not text:
        return None
    if text.strip().isdecimal():
        return float(text.strip()[:9])
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return None
    aware = moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
    return max(0.0, (aware - dt.datetime.now(dt.UTC)).total_seconds())


def _without_query(record: logging.LogRecord) -> bool:
    if isinstance(record.args, tuple):
        record.args = tuple(place_of(each) if isinstance(each, httpx.URL) else each for each in record.args)
    return True


def _keep_queries_out_of_logs() -> None:
    """httpx logs every URL; those of blob stores are signed, and who has such a URL has the blob."""
    logger = logging.getLogger("httpx")
    if _without_query not in logger.filters:
        logger.addFilter(_without_query)
