"""Credentials for registries: docker's own config file, and the helpers that it names."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from lamina.errors import ConfigError, LaminaError, ProgramFailed, RegistryError
from lamina.images import fields, login_file
from lamina.images.familiar import HUB
from lamina.programs import run

HUB_KEY: Final = "https://index.docker.io/v1/"  # docker's name for its own registry in its own file
_TOKEN_USER: Final = "<token>"  # noqa: S105  # a helper's way to say that the secret is an identity token
_HELPER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_PATIENCE: Final = 60.0  # seconds for a helper, which may have to ask somebody


@attrs.frozen
class Credentials:
    """Who we are to one registry."""

    username: str
    password: str = attrs.field(default="", repr=False)
    identity_token: str = attrs.field(default="", repr=False)  # stands in for the password where tokens are given out

    @property
    def secrets(self) -> tuple[str, ...]:
        """What nobody may see."""
        return tuple(each for each in (self.password, self.identity_token) if each)


Lookup = Callable[[], Credentials | None]


def find_credentials(host: str, environ: Mapping[str, str]) -> Credentials | None:
    """Those of this registry: from its helper, else the helper of all, else the file; None if there are none."""
    document = login_file.read(login_file.path_of(environ))
    keys = _keys(host)
    if (helper := _helper_of(document, keys)) is not None:
        found = (_ask_helper(helper, key) for key in keys)
        return next((each for each in found if each is not None), None)
    auths = fields.table(document, "auths", login_file.NAME)
    entry = next((auths[key] for key in keys if key in auths), None)
    return None if entry is None else _read_entry(entry, host)


def keep_credentials(host: str, credentials: Credentials, environ: Mapping[str, str]) -> Path | None:
    """They are kept for later; the file if they lie in it as they are, None if a helper has them."""
    path = login_file.path_of(environ)
    key = _keys(host)[0]
    if (helper := _helper_of(login_file.read(path), _keys(host))) is not None:
        _tell_helper(helper, key, credentials)
        login_file.change(path, lambda auths: auths.update({key: {}}))  # docker notes whom it knows
        return None
    login_file.change(path, lambda auths: auths.update({key: _entry(credentials)}))
    return path


def forget_credentials(host: str, environ: Mapping[str, str]) -> bool:
    """There are none any more; whether there were any."""
    path = login_file.path_of(environ)
    document = login_file.read(path)
    keys = _keys(host)
    auths = fields.table(document, "auths", login_file.NAME)
    known = any(key in auths for key in keys)
    if (helper := _helper_of(document, keys)) is not None:
        for key in keys:
            with contextlib.suppress(ProgramFailed):  # it says so when it had none
                run(f"docker-credential-{helper}", "erase", input=key, timeout=_PATIENCE)
    if known:
        login_file.change(path, lambda auths: [auths.pop(key, None) for key in keys])
    return known


def _keys(host: str) -> tuple[str, ...]:
    """Under which names a registry may stand in the file; the first is the one that is written."""
    if host == HUB:
        return (HUB_KEY, HUB, "index.docker.io", "https://index.docker.io/v1")
    return (host, f"https://{host}", f"http://{host}", f"https://{host}/v1/", f"https://{host}/v2/")


def _read_entry(entry: Any, host: str) -> Credentials | None:
    what = f"{login_file.NAME}: {host}"
    if not isinstance(entry, dict):
        raise ConfigError(f"{what} is not an object")
    try:
        username, password = fields.text(entry, "username", what, ""), fields.text(entry, "password", what, "")
        token = fields.text(entry, "identitytoken", what, "")
        if packed := fields.text(entry, "auth", what, ""):
            username, password = login_file.unpack(packed, what)
    except LaminaError as error:
        raise ConfigError(str(error)) from None  # what could not be read may be a secret
    return Credentials(username, password, token) if password or token else None


def _entry(credentials: Credentials) -> dict[str, str]:
    if credentials.identity_token:
        packed = login_file.pack(credentials.username, "")
        return {"auth": packed, "identitytoken": credentials.identity_token}
    return {"auth": login_file.pack(credentials.username, credentials.password)}


def _helper_of(document: Mapping[str, Any], keys: tuple[str, ...]) -> str | None:
    helpers = fields.text_table(document, "credHelpers", login_file.NAME)
    name = next((helpers[key] for key in keys if key in helpers), None)
    name = name or fields.text(document, "credsStore", login_file.NAME, "") or None
    if name is not None and not _HELPER.fullmatch(name):
        raise ConfigError(f"{login_file.NAME}: {name!r} is not the name of a credential helper")
    return name


def _ask_helper(helper: str, key: str) -> Credentials | None:
    try:
        told = run(f"docker-credential-{helper}", "get", input=key, timeout=_PATIENCE)
    except ProgramFailed:
        return None  # the protocol has one answer for "not found" and for every other trouble
    document = _read_answer(helper, told)
    username, secret = document.get("Username"), document.get("Secret")
    if not isinstance(username, str) or not isinstance(secret, str) or not secret:
        raise RegistryError(f"docker-credential-{helper}: its answer has no Username and Secret")
    if username == _TOKEN_USER:
        return Credentials("", identity_token=secret)
    return Credentials(username, secret)


def _read_answer(helper: str, told: str) -> dict[str, Any]:
    try:
        return fields.read_object(told.encode("utf-8", "surrogateescape"), helper)
    except LaminaError:
        raise RegistryError(f"docker-credential-{helper}: its answer is not a JSON object") from None


def _tell_helper(helper: str, key: str, credentials: Credentials) -> None:
    username = _TOKEN_USER if credentials.identity_token else credentials.username
    secret = credentials.identity_token or credentials.password
    document = login_file.encode({"ServerURL": key, "Username": username, "Secret": secret})
    try:
        run(f"docker-credential-{helper}", "store", input=document, timeout=_PATIENCE)
    except ProgramFailed as error:
        # not its words: it was told the secret
        raise RegistryError(f"docker-credential-{helper}: store failed with status {error.status}") from None
