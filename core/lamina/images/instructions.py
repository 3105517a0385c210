"""The Dockerfile instructions that `commit -c` and `import -c` take: each changes one setting of an image."""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from lamina.errors import BadRequest

Settings = Mapping[str, Any]

_SHELL = ["/bin/sh", "-c"]
_WORD = re.compile(r"""(?:\\.|'[^']*'|"(?:\\.|[^"\\])*"|[^\s\\'"])+""", re.DOTALL)
_PIECE = re.compile(r"""\\(.)|'([^']*)'|"((?:\\.|[^"\\])*)"|([^\\'"]+)""", re.DOTALL)
_PORT = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(tcp|udp|sctp))?", re.IGNORECASE)
_HEALTH_FLAGS = {
    "interval": "Interval",
    "timeout": "Timeout",
    "start-period": "StartPeriod",
    "start-interval": "StartInterval",
    "retries": "Retries",
}
_UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}


def apply_changes(settings: Settings, changes: Iterable[str]) -> dict[str, Any]:
    """The settings after these instructions, in order; BadRequest says which one cannot be understood."""
    result, command = dict(settings), None
    for change in changes:
        for line in filter(None, map(str.strip, change.replace("\\\n", " ").splitlines())):
            result = _apply(result, line)
            word = line.split(maxsplit=1)[0].upper()
            if word == "CMD":
                command = result["Cmd"]
            elif word == "ENTRYPOINT" and command is not None:  # it makes void what the image had, not what we are told
                result["Cmd"] = command
    return result


def _apply(settings: dict[str, Any], line: str) -> dict[str, Any]:
    word, _, rest = line.partition(" ")
    instruction = _INSTRUCTIONS.get(word.upper())
    if instruction is None:
        raise BadRequest(f"{word} is not an instruction that can be given here; these are: {', '.join(_INSTRUCTIONS)}")
    if not rest.strip():
        raise BadRequest(f"{word.upper()} needs an argument")
    return {**settings, **instruction(settings, rest.strip())}


def _cmd(settings: Settings, rest: str) -> Settings:
    return {"Cmd": _command(settings, rest)}


def _entrypoint(settings: Settings, rest: str) -> Settings:
    # docker: an image's command belongs to its entrypoint; a new entrypoint makes it void
    return {"Entrypoint": _command(settings, rest), "Cmd": None}


def _env(settings: Settings, rest: str) -> Settings:
    entries = {entry.partition("=")[0]: entry for entry in settings.get("Env") or ()}
    entries |= {key: f"{key}={value}" for key, value in _pairs("ENV", rest)}  # a known one keeps its place
    return {"Env": list(entries.values())}


def _label(settings: Settings, rest: str) -> Settings:
    return {"Labels": {**(settings.get("Labels") or {}), **dict(_pairs("LABEL", rest))}}


def _expose(settings: Settings, rest: str) -> Settings:
    ports = dict(settings.get("ExposedPorts") or {})
    for word in _words(rest):
        for port in _ports(word):
            ports[port] = {}
    return {"ExposedPorts": dict(sorted(ports.items()))}


def _volume(settings: Settings, rest: str) -> Settings:
    volumes = dict(settings.get("Volumes") or {})
    for word in _list(rest) or _words(rest):
        if not word.strip():
            raise BadRequest("VOLUME must not be empty")
        volumes[word] = {}
    return {"Volumes": dict(sorted(volumes.items()))}


def _user(_: Settings, rest: str) -> Settings:
    return {"User": _one("USER", rest)}


def _workdir(settings: Settings, rest: str) -> Settings:
    path = posixpath.join(settings.get("WorkingDir") or "/", _one("WORKDIR", rest))
    clean = posixpath.normpath(posixpath.join("/", path))
    return {"WorkingDir": clean.replace("//", "/", 1) if clean.startswith("//") else clean}


def _onbuild(settings: Settings, rest: str) -> Settings:
    trigger = rest.split(None, 1)[0].upper()
    if trigger in {"ONBUILD", "FROM", "MAINTAINER"}:
        raise BadRequest(f"ONBUILD {trigger} is not allowed")
    return {"OnBuild": [*(settings.get("OnBuild") or ()), rest]}


def _stopsignal(_: Settings, rest: str) -> Settings:
    return {"StopSignal": _one("STOPSIGNAL", rest)}


def _healthcheck(_: Settings, rest: str) -> Settings:
    if rest.upper() == "NONE":
        return {"Healthcheck": {"Test": ["NONE"]}}
    check: dict[str, Any] = {}
    while (match := re.match(r"--([a-z-]+)=(\S+)\s+", rest)) is not None:
        if (key := _HEALTH_FLAGS.get(match[1])) is None:
            raise BadRequest(f"HEALTHCHECK: unknown flag --{match[1]}")
        check[key] = _number(match[2]) if key == "Retries" else _duration(match[2])
        rest = rest[match.end() :]
    word, command = [*rest.split(" ", 1), ""][:2]
    if word.upper() != "CMD" or not command.strip():
        raise BadRequest("HEALTHCHECK is NONE, or CMD and a command")
    test = _list(command.strip())
    return {"Healthcheck": {"Test": ["CMD", *test] if test is not None else ["CMD-SHELL", command.strip()], **check}}


_INSTRUCTIONS: dict[str, Callable[[Settings, str], Settings]] = {
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "ONBUILD": _onbuild,
    "STOPSIGNAL": _stopsignal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}


def _command(settings: Settings, rest: str) -> list[str]:
    """The JSON form as it stands; anything else is a line for the shell."""
    words = _list(rest)
    return words if words is not None else [*(settings.get("Shell") or _SHELL), rest]


def _list(rest: str) -> list[str] | None:
    try:
        value = json.loads(rest)
    except ValueError:
        return None
    return value if isinstance(value, list) and all(isinstance(word, str) for word in value) else None


def _pairs(name: str, rest: str) -> list[tuple[str, str]]:
    """`key=value …`, or the old form `key value with spaces`."""
    words = _WORD.findall(rest)
    if words and "=" not in words[0]:
        key, _, value = rest.partition(" ")
        if not value.strip():
            raise BadRequest(f"{name} {key}: it has no value")
        return [(_unquote(key), _unquote(value.strip()) if name == "LABEL" else value.strip())]
    pairs = [
        (_unquote(key), _unquote(value)) for key, equals, value in (word.partition("=") for word in words) if equals
    ]
    if len(pairs) != len(words) or not all(key for key, _ in pairs):
        raise BadRequest(f"{name} {rest}: every word must be KEY=VALUE")
    return pairs


def _words(rest: str) -> list[str]:
    return [_unquote(word) for word in _WORD.findall(rest)]


def _one(name: str, rest: str) -> str:
    words = _words(rest)
    if len(words) != 1 or not words[0]:
        raise BadRequest(f"{name} takes exactly one argument")
    return words[0]


def _unquote(word: str) -> str:
    def plain(match: re.Match[str]) -> str:
        escaped, single, double, bare = match.groups()
        if double is not None:
            return re.sub(r'\\(["\\$])', r"\1", double)
        return next(part for part in (escaped, single, bare) if part is not None)

    return _PIECE.sub(plain, word)


def _ports(word: str) -> list[str]:
    match = _PORT.fullmatch(word)
    if match is None:
        raise BadRequest(f"EXPOSE {word}: a port is NUMBER[-NUMBER][/tcp|udp|sctp]")
    first, last = int(match[1]), int(match[2] or match[1])
    if not 0 < first <= last <= 65535:
        raise BadRequest(f"EXPOSE {word}: ports go from 1 to 65535, the smaller one first")
    return [f"{port}/{(match[3] or 'tcp').lower()}" for port in range(first, last + 1)]


def _number(text: str) -> int:
    if not text.isdigit():
        raise BadRequest(f"HEALTHCHECK: {text!r} is not a number")
    return int(text)


def _duration(text: str) -> int:
    """Go's durations in nanoseconds."""
    parts = re.findall(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise BadRequest(f"HEALTHCHECK: {text!r} is not a duration (1m30s)")
    return round(sum(float(number) * _UNITS[unit] for number, unit in parts))
