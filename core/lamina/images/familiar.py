"""The short forms of names and IDs that people see and type. Light: nothing is imported."""

from __future__ import annotations

HUB = "docker.io"
OFFICIAL = "library"


def familiar_repository(domain: str, path: str) -> str:
    """`busybox`: the shortest name that reads back as this repository."""
    if domain != HUB:
        return f"{domain}/{path}"
    first, slash, rest = path.partition("/")
    if first == OFFICIAL and slash and "/" not in rest:
        return rest
    # without its domain, a path such as a.b/c would read back as the registry a.b
    return f"{domain}/{path}" if slash and names_a_registry(first) else path


def names_a_registry(first: str) -> bool:
    """Whether the part before a name's first slash is a registry."""
    # capitals cannot stand in a path, so docker takes a first part with capitals for a host
    return first == "localhost" or "." in first or ":" in first or first != first.lower()


def short_id(digest: str) -> str:
    """The twelve digits that people see."""
    return digest.rpartition(":")[2][:12]


def repository_and_tag(canonical: str) -> tuple[str, str]:
    """The two columns of a listing for a whole name, as the catalog keeps it; `<none>` for a tag that it lacks."""
    domain, _, rest = canonical.partition("/")
    path, _, tag = rest.partition("@")[0].partition(":")
    return familiar_repository(domain, path), tag or "<none>"
