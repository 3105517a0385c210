"""Who we are, to a registry that asks: Basic, and bearer tokens for the scopes that a request needs."""

from __future__ import annotations

import base64
import re
import time
import urllib.parse
from collections.abc import Iterable
from typing import Any, Final

import attrs
import httpx
import trio

from lamina.errors import BadArchive, Denied, RegistryError, Unauthorized
from lamina.images import fields
from lamina.images.login import Credentials, Lookup
from lamina.images.registry_http import (
    Clients,
    Request,
    followed,
    join,
    patiently,
    place_of,
    read,
    refuse_failing,
)

LONGEST_ANSWER: Final = 1 << 20
_LONGEST_CHALLENGE: Final = 8192
_SHORTEST_LIFE: Final = 60.0  # seconds; what a token lives that does not say
_EARLY: Final = 10.0  # seconds before its end at which a token is not used any more
_CHALLENGE: Final = re.compile(r'\s*,?\s*([A-Za-z][\w-]*)((?:\s*,?\s*[\w-]+\s*=\s*(?:"(?:[^"\\]|\\.)*"|[^\s,"]+))*)')
_PARAMETER: Final = re.compile(r'([\w-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')

Scopes = frozenset[str]


def scope(path: str, actions: str) -> Scopes:
    """What a request needs that does this in this repository."""
    return frozenset({f"repository:{path}:{actions}"})


@attrs.frozen
class Challenge:
    """What a registry wants to see."""

    scheme: str  # in lower case
    parameters: dict[str, str]

    @property
    def scopes(self) -> Scopes:
        """The scopes that it speaks of."""
        return frozenset(self.parameters.get("scope", "").split())


@attrs.frozen
class Token:
    """A bearer token, and until when (by our monotonic clock) it is good."""

    text: str = attrs.field(repr=False)
    until: float
    refresh: str = attrs.field(default="", repr=False)


def read_challenges(headers: Iterable[str]) -> tuple[Challenge, ...]:
    """All challenges of an answer; what cannot be understood is not among them."""
    found = []
    for header in headers:
        for match in _CHALLENGE.finditer(header[:_LONGEST_CHALLENGE]):
            scheme, rest = match.groups()
            values = {
                name.lower(): re.sub(r"\\(.)", r"\1", quoted) if quoted else bare
                for name, quoted, bare in _PARAMETER.findall(rest)
            }
            found.append(Challenge(scheme.lower(), values))
    return tuple(found)


class Authorizer:
    """What to send to one registry. Credentials are looked up only if it asks, and go to it and its realm only."""

    def __init__(self, origin: httpx.URL, clients: Clients, lookup: Lookup) -> None:
        self._origin = origin
        self._clients = clients
        self._lookup = lookup
        self._turn = trio.Lock()  # several blobs at once ask for one token
        self._credentials: Credentials | None = None
        self._looked = False
        self._challenge: Challenge | None = None
        self._tokens: dict[Scopes, Token] = {}

    async def header(self, scopes: Scopes) -> str | None:
        """What a request for these scopes should begin with; None while nobody has asked us."""
        if self._challenge is None:
            return None
        async with self._turn:
            return await self._header(scopes)

    async def challenged(self, headers: Iterable[str], scopes: Scopes, sent: str | None) -> str:
        """What to send instead of `sent`, which was refused; Unauthorized if there is nothing else."""
        async with self._turn:
            challenge = self._choose(read_challenges(headers))
            known, self._challenge = self._challenge, challenge
            if challenge.scheme == "bearer" and known == challenge:
                fresh = await self._header(scopes)
                if fresh is not None and fresh != sent:
                    return fresh  # another task has been through this while we waited
            scopes |= challenge.scopes
            self._tokens.pop(scopes, None)
            header = await self._header(scopes)
            if header is None or header == sent:
                raise self.refusal()
            return header

    def note(self, headers: Iterable[str]) -> None:
        """The registry has refused what we sent: its words may say why."""
        self._challenge = next(iter(read_challenges(headers)), self._challenge)

    def refusal(self) -> RegistryError:
        """The error for a registry that does not take what we have."""
        host = self._origin.netloc.decode("ascii")
        if self._credentials is None:
            return Unauthorized(f"{host}: wants credentials; `lamina login {host}` gives them")
        if self._challenge is not None and self._challenge.parameters.get("error") == "insufficient_scope":
            return Denied(f"{host}: {self._credentials.username or 'this account'} may not do this")
        return Unauthorized(f"{host}: does not accept the credentials; `lamina login {host}` gives it others")

    def redact(self, text: str) -> str:
        """The text without anything that was told to the registry in confidence."""
        secrets = [token.text for token in self._tokens.values()]
        if self._credentials is not None:
            secrets += [*self._credentials.secrets, _basic(self._credentials).partition(" ")[2]]
        for secret in filter(None, secrets):
            text = text.replace(secret, "***")
        return text

    async def token(self, scopes: Scopes, *, offline: bool = False) -> Token:
        """A token fresh from the realm; `offline` asks for one to keep in place of the password."""
        assert self._challenge is not None  # noqa: S101  # somebody has asked
        return await _fetch(self._clients, self._realm(), self._query(scopes), await self._known(), offline=offline)

    async def _header(self, scopes: Scopes) -> str | None:
        assert self._challenge is not None  # noqa: S101  # the callers have looked
        credentials = await self._known()
        if self._challenge.scheme == "basic":
            return None if credentials is None else _basic(credentials)
        token = self._tokens.get(scopes)
        if token is None or token.until < time.monotonic():
            token = self._tokens[scopes] = await self.token(scopes)
        return f"Bearer {token.text}"

    async def _known(self) -> Credentials | None:
        if not self._looked:
            self._credentials = await trio.to_thread.run_sync(self._lookup)
            self._looked = True
        return self._credentials

    def _choose(self, challenges: tuple[Challenge, ...]) -> Challenge:
        for scheme in ("bearer", "basic"):
            for challenge in challenges:
                if challenge.scheme == scheme:
                    return challenge
        raise Unauthorized(f"{self._origin.netloc.decode('ascii')}: asks for credentials in a way that nobody knows")

    def _realm(self) -> httpx.URL:
        assert self._challenge is not None  # noqa: S101  # the callers have looked
        realm = join(self._origin, self._challenge.parameters.get("realm", ""))
        if realm.scheme == "http" and not self._clients.may_be_plain(realm):
            raise RegistryError(f"{place_of(self._origin)}: wants a password sent to {realm.host} in plain text")
        return realm

    def _query(self, scopes: Scopes) -> list[tuple[str, str]]:
        assert self._challenge is not None  # noqa: S101  # the callers have looked
        service = self._challenge.parameters.get("service")
        return [*([("service", service)] if service else []), *(("scope", scope) for scope in sorted(scopes))]


async def _fetch(
    clients: Clients,
    realm: httpx.URL,
    query: list[tuple[str, str]],
    credentials: Credentials | None,
    *,
    offline: bool,
) -> Token:
    if credentials is not None and credentials.identity_token:
        request, authorization = _refreshing(realm, query, credentials), None
    else:
        known = [("account", credentials.username), ("client_id", "lamina")] if credentials else []
        kept = [("offline_token", "true")] if offline else []
        url = realm.copy_merge_params(httpx.QueryParams([*realm.params.multi_items(), *query, *known, *kept]))
        request, authorization = Request("GET", url), _basic(credentials) if credentials else None
    answer = await patiently(clients.patience, place_of(realm), lambda: _ask(clients, request, authorization))
    return _read_token(answer, realm)


def _refreshing(realm: httpx.URL, query: list[tuple[str, str]], credentials: Credentials) -> Request:
    scope = " ".join(value for name, value in query if name == "scope")
    form = [
        ("grant_type", "refresh_token"),
        ("client_id", "lamina"),
        ("refresh_token", credentials.identity_token),
        *((name, value) for name, value in query if name == "service"),
        *([("scope", scope)] if scope else []),
    ]
    headers = {"content-type": "application/x-www-form-urlencoded"}
    return Request("POST", realm, headers, urllib.parse.urlencode(form).encode())


async def _ask(clients: Clients, request: Request, authorization: str | None) -> bytes:
    where = place_of(request.url)
    async with followed(clients, request, authorization) as response:
        refuse_failing(response, where)
        if response.status_code in {400, 401}:
            raise Unauthorized(f"{where}: does not accept the credentials")
        if response.status_code == 403:
            raise Denied(f"{where}: gives us no token")
        if response.status_code != 200:
            raise RegistryError(f"{where}: gives no token, but status {response.status_code}")
        return await read(response, clients.patience, LONGEST_ANSWER)


def _read_token(answer: bytes, realm: httpx.URL) -> Token:
    what = place_of(realm)
    try:
        document = fields.read_object(answer, what)
        text = fields.text(document, "token", what, "") or fields.text(document, "access_token", what)
        refresh = fields.text(document, "refresh_token", what, "")
    except BadArchive:
        raise RegistryError(f"{what}: its answer is not a token") from None  # nor is it quoted: it may be one
    if not text.isascii() or not text.isprintable() or not text:
        raise RegistryError(f"{what}: its answer is not a token")
    return Token(text, time.monotonic() + _life(document) - _EARLY, refresh)


def _life(document: dict[str, Any]) -> float:
    told = document.get("expires_in")
    return max(float(told), _SHORTEST_LIFE) if isinstance(told, int) and told < 1 << 31 else _SHORTEST_LIFE


def _basic(credentials: Credentials) -> str:
    both = f"{credentials.username}:{credentials.password}".encode()
    return f"Basic {base64.b64encode(both).decode('ascii')}"
