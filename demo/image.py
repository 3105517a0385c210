"""Write a docker archive of three layers around Debian's busybox: `image.py FILE`. Standard library only."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import subprocess
import sys
import tarfile
from pathlib import Path

BUSYBOX = Path("/bin/busybox")
WHEN = 1_700_000_000  # the same input gives the same image
NAME = "demo/busybox:latest"

Entry = tuple[str, int, bytes | str | None]  # name, mode, and contents, the target of a symbolic link, or a directory


def main(target: str) -> None:
    """Write the archive."""
    layers = [layer(base()), layer(greeting()), layer(poem())]
    with tarfile.open(target, "w") as archive:
        for number, tar in enumerate(layers):
            add(archive, f"{number}/layer.tar", tar)
        config = json.dumps(document(layers)).encode()
        name = f"{hashlib.sha256(config).hexdigest()}.json"
        add(archive, name, config)
        manifest = [{"Config": name, "RepoTags": [NAME], "Layers": [f"{n}/layer.tar" for n in range(len(layers))]}]
        add(archive, "manifest.json", json.dumps(manifest).encode())


def base() -> list[Entry]:
    """A system that runs: busybox, and a link for each of its commands."""
    applets = subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True).stdout.split()
    directories: list[Entry] = [
        (name, 0o755, None) for name in ("bin", "dev", "etc", "proc", "root", "usr", "usr/share")
    ]
    return [
        *directories,
        ("tmp", 0o1777, None),
        ("bin/busybox", 0o755, BUSYBOX.read_bytes()),
        *((f"bin/{applet}", 0o777, "busybox") for applet in applets if applet != "busybox"),
        ("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\n"),
        ("etc/draft", 0o644, b"to be removed by the next layer\n"),
    ]


def greeting() -> list[Entry]:
    """A file more and one less: `.wh.` before a name says that it is gone."""
    return [("etc", 0o755, None), ("etc/motd", 0o644, b"hello from the second layer\n"), ("etc/.wh.draft", 0o644, b"")]


def poem() -> list[Entry]:
    """Something to remove in a container. Like every builder, we write the directories above, too."""
    return [
        ("usr", 0o755, None),
        ("usr/share", 0o755, None),
        ("usr/share/poem", 0o644, b"One layer upon another,\neach remembers its mother.\n"),
    ]


def layer(entries: list[Entry]) -> bytes:
    """The tar of one layer."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, mode, what in entries:
            info = tarfile.TarInfo(name)
            info.mode, info.mtime = mode, WHEN
            if what is None:
                info.type = tarfile.DIRTYPE
            elif isinstance(what, str):
                info.type, info.linkname = tarfile.SYMTYPE, what
            else:
                info.size = len(what)
            tar.addfile(info, io.BytesIO(what) if isinstance(what, bytes) else None)
    return out.getvalue()


def document(layers: list[bytes]) -> dict[str, object]:
    """The image's config."""
    steps = ["ADD busybox /", "RUN echo hello > /etc/motd && rm /etc/draft", "COPY poem /usr/share/"]
    created = "2023-11-14T22:13:20Z"
    return {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(machine := platform.machine(), machine),
        "os": "linux",
        "created": created,
        "config": {"Cmd": ["sh"], "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(tar).hexdigest()}" for tar in layers]},
        "history": [{"created": created, "created_by": step} for step in steps],
    }


def add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    """Append one file."""
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode = len(data), WHEN, 0o644
    archive.addfile(info, io.BytesIO(data))


if __name__ == "__main__":
    main(sys.argv[1])
