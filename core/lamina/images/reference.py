"""Names of images, as docker reads them: registry/name:tag@digest."""

from __future__ import annotations

import re

import attrs

from lamina.errors import InvalidName
from lamina.images.familiar import HUB, OFFICIAL, familiar_repository, names_a_registry

LONGEST_PATH = 255
DIGEST_LENGTHS = {"sha256": 64, "sha384": 96, "sha512": 128}

_ALNUM = r"[a-z0-9]+"
_COMPONENT = rf"{_ALNUM}(?:(?:[._]|__|-+){_ALNUM})*"
_PATH = rf"{_COMPONENT}(?:/{_COMPONENT})*"
_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_TAG = r"[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127}"
_DIGEST = r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}"

_WHOLE = re.compile(rf"({_DOMAIN})/({_PATH})(?::({_TAG}))?(?:@({_DIGEST}))?")
_IDENTIFIER = re.compile(r"[a-f0-9]{64}")


@attrs.frozen(order=True)
class Reference:
    """A full name: nothing in it is implied any more, except that a tag or digest may be missing.

    `str()` gives the canonical form, `familiar` the short one that people type.
    """

    domain: str
    path: str
    tag: str | None = None
    digest: str | None = None

    @property
    def repository(self) -> str:
        """`docker.io/library/busybox`: the name without tag and digest."""
        return f"{self.domain}/{self.path}"

    @property
    def familiar_repository(self) -> str:
        """`busybox`: the shortest name that reads back as this repository."""
        return familiar_repository(self.domain, self.path)

    @property
    def familiar(self) -> str:
        """The shortest form that reads back as this reference."""
        return self.familiar_repository + self._suffix()

    def tagged(self) -> Reference:
        """The same, with `latest` where neither tag nor digest was given."""
        return self if self.tag or self.digest else attrs.evolve(self, tag="latest")

    def with_tag(self, tag: str) -> Reference:
        """The same repository under another tag, without a digest."""
        return parse(f"{self.repository}:{tag}")

    def with_digest(self, digest: str) -> Reference:
        """The same repository, pinned to a digest, without a tag."""
        return Reference(self.domain, self.path, None, check_digest(digest))

    def __str__(self) -> str:
        return self.repository + self._suffix()

    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


def parse(text: str) -> Reference:
    """Read a name as a person types it; what is not said is filled in, except the tag.

    Raises InvalidName with the rule that was broken.
    """
    if _IDENTIFIER.fullmatch(text):
        raise InvalidName(f"{text!r}: 64 hexadecimal digits are an image ID, not a name")
    domain, rest = _split_domain(text)
    if (repository := rest.partition(":")[0]) != repository.lower():
        raise InvalidName(f"{text!r}: the repository name must be lowercase")
    match = _WHOLE.fullmatch(f"{domain}/{rest}")
    if match is None:
        raise InvalidName(f"{text!r} is not a name of an image ([HOST[:PORT]/]NAME[:TAG][@DIGEST])")
    domain, path, tag, digest = match.groups()
    if len(path) > LONGEST_PATH:
        raise InvalidName(f"{text[:40]!r}…: the repository name is longer than {LONGEST_PATH} characters")
    return Reference(domain, path, tag, check_digest(digest) if digest else None)


def check_digest(text: str) -> str:
    """Return the digest unchanged; InvalidName unless its algorithm is known and its length and letters are right."""
    algorithm, _, value = text.partition(":")
    length = DIGEST_LENGTHS.get(algorithm)
    if length is None or not re.fullmatch(rf"[0-9a-f]{{{length}}}", value):
        raise InvalidName(f"{text!r} is not a digest (sha256:… with {DIGEST_LENGTHS['sha256']} hexadecimal digits)")
    return text


def is_digest(text: str) -> bool:
    """Whether the text is a whole, valid digest."""
    algorithm, _, value = text.partition(":")
    length = DIGEST_LENGTHS.get(algorithm)
    return length is not None and re.fullmatch(rf"[0-9a-f]{{{length}}}", value) is not None


def _split_domain(text: str) -> tuple[str, str]:
    first, slash, rest = text.partition("/")
    if not slash or not names_a_registry(first):
        domain, rest = HUB, text
    else:
        domain = HUB if first in {HUB, "index.docker.io"} else first
    if domain == HUB and "/" not in rest:
        rest = f"{OFFICIAL}/{rest}"
    return domain, rest
