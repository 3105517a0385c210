"""Log in and out: credentials are kept only after the registry has accepted them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import httpx

from lamina.errors import BadRequest, RegistryError, Unauthorized
from lamina.images.familiar import HUB, names_a_registry
from lamina.images.login import Credentials, forget_credentials, keep_credentials
from lamina.images.registry import Registry
from lamina.images.registry_config import Registries
from lamina.images.registry_http import Request, followed, patiently, place_of, refuse_failing
from lamina.images.transfer import opened_line


def log_in(host: str, username: str, password: str, registries: Registries, environ: Mapping[str, str]) -> Path | None:
    """The registry accepts the credentials, and they are kept; the file in which they lie as they are, if they do.

    Unauthorized, and nothing is kept, if it does not.
    """
    credentials = Credentials(username, password)
    with opened_line(registries) as line:
        registry = Registry(host, line.clients, lambda: credentials)
        token = line.portal.call(_accepted, registry)
    kept = Credentials(username, identity_token=token) if token else credentials
    return keep_credentials(host, kept, environ)


def log_out(host: str, environ: Mapping[str, str]) -> bool:
    """Nothing is known of this registry any more; whether there was something."""
    return forget_credentials(host, environ)


def registry_named(text: str | None) -> str:
    """The registry that a person means: a host, perhaps typed as a URL; docker.io if none was typed."""
    host = (text or HUB).removeprefix("https://").removeprefix("http://").partition("/")[0]
    if host in {"index.docker.io", "registry-1.docker.io"}:
        host = HUB
    if not host or not (names_a_registry(host) or host.isalnum()):
        raise BadRequest(f"{text!r} is not a registry (HOST or HOST:PORT)")
    return host


async def _accepted(registry: Registry) -> str:
    """The registry has accepted the credentials; a token to keep in place of the password, if it gives one."""
    who = await registry.authorizer()
    url = (await registry.origin()).copy_with(path="/v2/")
    challenges = await patiently(registry.clients.patience, registry.host, lambda: _challenges(registry, url))
    if not challenges:
        raise RegistryError(f"{registry.host}: asks nobody for credentials, so there is nothing to log in to")
    header = await who.challenged(challenges, frozenset(), None)
    await patiently(registry.clients.patience, registry.host, lambda: _try(registry, url, header))
    return (await who.token(frozenset(), offline=True)).refresh if header.startswith("Bearer ") else ""


async def _challenges(registry: Registry, url: httpx.URL) -> list[str]:
    async with followed(registry.clients, Request("GET", url), None) as response:
        refuse_failing(response, place_of(url))
        return response.headers.get_list("www-authenticate") if response.status_code == 401 else []


async def _try(registry: Registry, url: httpx.URL, header: str) -> None:
    async with followed(registry.clients, Request("GET", url), header) as response:
        refuse_failing(response, place_of(url))
        if response.status_code in {401, 403}:
            raise Unauthorized(f"{registry.host}: does not accept this user name and password")
        if response.status_code != 200:
            raise RegistryError(f"{place_of(url)}: status {response.status_code}")
