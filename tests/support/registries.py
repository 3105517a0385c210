"""Registries for tests: docker-registry in every mode, a token server, and a server that does what it is told."""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import re
import shutil
import subprocess
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest

USER, PASSWORD = "alice", "s3cret-of-alice"
_PATIENCE = 20.0
_CONFIG = {
    "version": 0.1,
    "log": {"level": "info", "accesslog": {"disabled": True}},
    "validation": {"manifests": {"urls": {"allow": ["^https?://"]}}},
}


@attrs.define
class RunningRegistry:
    """A docker-registry on loopback; `stop` kills it, `start` brings it back at the same port with what it stored."""

    place: Path
    config: dict[str, Any]
    port: int = 0
    _process: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        self.config["http"]["addr"] = f"127.0.0.1:{self.port}"
        (self.place / "config.yml").write_text(json.dumps(self.config))  # JSON is YAML
        log = self.place / "log"
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                [tool("docker-registry"), "serve", self.place / "config.yml"],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
        deadline = time.monotonic() + _PATIENCE
        while (found := re.search(r"listening on 127\.0\.0\.1:(\d+)", log.read_text())) is None:
            assert self._process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, "docker-registry does not listen"
            time.sleep(0.01)  # there is nothing to wait on but its log
        self.port = int(found[1])

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@contextlib.contextmanager
def registry(place: Path, **more: Any) -> Iterator[RunningRegistry]:
    """One that runs within the block."""
    place.mkdir(parents=True, exist_ok=True)
    http_config = {"addr": "127.0.0.1:0", **more.pop("http", {})}
    storage = {"filesystem": {"rootdirectory": str(place / "data")}, "delete": {"enabled": True}}
    running = RunningRegistry(place, {**_CONFIG, "storage": storage, "http": http_config, **more})
    running.start()
    try:
        yield running
    finally:
        running.stop()


def htpasswd(place: Path) -> dict[str, Any]:
    """Basic authentication for one user."""
    place.mkdir(parents=True, exist_ok=True)
    made = subprocess.run([tool("htpasswd"), "-Bbn", USER, PASSWORD], capture_output=True, text=True, check=True).stdout
    (place / "users").write_text(made)
    return {"htpasswd": {"realm": "test", "path": str(place / "users")}}


def certificate(place: Path) -> tuple[Path, Path]:
    """A certificate that vouches for itself, for this machine, and its key."""
    place.mkdir(parents=True, exist_ok=True)
    cert, key = place / "tls.crt", place / "tls.key"
    argv: list[str | Path] = [
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=lamina tests",
    ]
    names: list[str | Path] = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", key, "-out", cert]
    subprocess.run([tool("openssl"), *argv, *names], capture_output=True, check=True)
    return cert, key


@contextlib.contextmanager
def token_server(cert: Path, key: Path) -> Iterator[TokenServer]:
    """It gives anybody tokens to pull, and alice tokens to push."""

    def answer(asked: Asked) -> Reply:
        form = urllib.parse.parse_qs(asked.body.decode()) if asked.body else {}
        query = asked.query | form
        basic = asked.headers.get("authorization", "").removeprefix("Basic ")
        user, _, password = base64.b64decode(basic).decode().partition(":")
        known = password == PASSWORD or query.get("refresh_token") == [server.refresh]
        if user and not known:
            return Reply(401, b"{}")
        scopes = [scope for text in query.get("scope", []) for scope in text.split()]
        token = _sign(cert, key, [_granted(scope, known=known) for scope in scopes])
        server.tokens.append(token)
        document = {"token": token, "expires_in": 300}
        if "offline_token" in query:
            document["refresh_token"] = server.refresh
        return Reply(200, json.dumps(document).encode())

    with serving(answer) as host:
        server = TokenServer(host)
        yield server


@attrs.define
class TokenServer:
    """Where it is, and what it gave out."""

    host: str
    refresh: str = "a-refresh-token"
    tokens: list[str] = attrs.field(factory=list)

    def auth(self, cert: Path) -> dict[str, Any]:
        """What a registry that trusts it is told."""
        realm = f"http://{self.host}/token"
        return {"token": {"realm": realm, "service": "tests", "issuer": "tests", "rootcertbundle": str(cert)}}


def _granted(scope: str, *, known: bool) -> dict[str, Any]:
    kind, _, rest = scope.partition(":")
    name, _, actions = rest.rpartition(":")
    return {"type": kind, "name": name, "actions": [each for each in actions.split(",") if known or each == "pull"]}


def _sign(cert: Path, key: Path, access: list[dict[str, Any]]) -> str:
    der = subprocess.run([tool("openssl"), "x509", "-in", cert, "-outform", "DER"], capture_output=True, check=True)
    now = int(time.time())
    header = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(der.stdout).decode()]}
    claims = {"iss": "tests", "sub": "", "aud": "tests", "exp": now + 300, "nbf": now - 5, "iat": now, "jti": str(now)}
    text = f"{_packed(json.dumps(header).encode())}.{_packed(json.dumps({**claims, 'access': access}).encode())}"
    argv: list[str | Path] = [tool("openssl"), "dgst", "-sha256", "-sign", key]
    signed = subprocess.run(argv, input=text.encode(), capture_output=True, check=True).stdout
    return f"{text}.{_packed(signed)}"


def _packed(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def publish(archive: Path, name: str, *flags: str) -> None:
    """Let skopeo push a docker archive to HOST/REPOSITORY:TAG, a registry that need not have a certificate."""
    ways = [f"docker-archive:{archive}", f"docker://{name}"]
    subprocess.run([tool("skopeo"), "copy", "-q", "--dest-tls-verify=false", *flags, *ways], check=True)


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.fail(f"{name} is not installed; `make test` installs it")
    return found


# a server that does what it is told


@attrs.frozen
class Asked:
    """One request."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: Mapping[str, str]  # names in lower case
    body: bytes


@attrs.frozen
class Reply:
    """One answer; `body` may also write to the connection by itself, for as long as it likes."""

    status: int = 200
    body: bytes | Callable[[Callable[[bytes], object]], object] = b""
    headers: Mapping[str, str] = attrs.field(factory=dict)


@contextlib.contextmanager
def serving(answer: Callable[[Asked], Reply]) -> Iterator[str]:
    """A server on loopback; HOST:PORT."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one_request(self) -> None:
            with contextlib.suppress(ConnectionError):  # a client that has seen enough
                super().handle_one_request()

        def reply(self) -> None:
            url = urllib.parse.urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("content-length", "0")))
            headers = {name.lower(): value for name, value in self.headers.items()}
            asked = Asked(self.command, url.path, urllib.parse.parse_qs(url.query), headers, body)
            told = answer(asked)
            self.send_response(told.status)
            for name, value in told.headers.items():
                self.send_header(name, value)
            if callable(told.body):
                self.close_connection = True
                self.end_headers()
                told.body(self.wfile.write)
                return
            if "content-length" not in told.headers:
                self.send_header("content-length", str(len(told.body)))
            else:
                self.close_connection = True
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(told.body)

        do_GET = do_POST = do_PUT = do_PATCH = do_HEAD = do_DELETE = reply  # noqa: N815  # http.server's names

        def log_message(self, *_: object) -> None:
            """Nothing is said."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
