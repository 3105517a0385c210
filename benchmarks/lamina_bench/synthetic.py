"""An image without any tool: layers of this machine's own /usr, written as an OCI layout. Standard library only."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import platform
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

_WANTED = 400 << 20  # bytes of files, all in all
_USR = Path("/usr")
_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"

Member = tuple[str, Path | bytes]  # a name, and the file or the text that it shows


def write_layout(layout: Path, tag: str, *, tiny: bool = False) -> None:
    """The layout is there: one layer if it is tiny, else four, the third with removals, the fourth with new owners."""
    stack: list[list[Member]] = (
        [[(f"srv/app/{number}.txt", b"text\n" * 100) for number in range(20)]] if tiny else _large()
    )
    layers = [_layer(layout, members, owner=1000 * (number == 3)) for number, members in enumerate(stack)]
    config = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(machine := platform.machine(), machine),
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [diff_id for _, diff_id in layers]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": _store(layout, json.dumps(config).encode(), _CONFIG),
        "layers": [descriptor for descriptor, _ in layers],
    }
    pointer = _store(layout, json.dumps(manifest).encode(), _MANIFEST)
    pointer["annotations"] = {"org.opencontainers.image.ref.name": tag}
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [pointer]}))
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


def _large() -> list[list[Member]]:
    files = list(_files())
    half = len(files) // 2
    below, above = files[:half], files[half:]
    removals: list[Member] = [(_whiteout(name), b"") for name, _ in files[::17]]
    return [list(below), list(above), removals, list(files[1::50])]


def _files() -> Iterator[tuple[str, Path]]:
    size = 0
    for directory, inner, names in os.walk(_USR):
        inner.sort()
        for name in sorted(names):
            path = Path(directory, name)
            if path.is_file() or path.is_symlink():
                size += path.lstat().st_size
                yield str(path).lstrip("/"), path
        if size > _WANTED:
            return


def _whiteout(name: str) -> str:
    head, _, tail = name.rpartition("/")
    return f"{head}/.wh.{tail}"


def _layer(layout: Path, members: Iterable[Member], *, owner: int) -> tuple[dict[str, Any], str]:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, what in members:
            info = tar.gettarinfo(what, name) if isinstance(what, Path) else tarfile.TarInfo(name)
            info.uid = info.gid = owner or info.uid
            if isinstance(what, bytes):
                info.size = len(what)
                tar.addfile(info, io.BytesIO(what))
            elif info.isreg():
                with what.open("rb") as file:
                    tar.addfile(info, file)
            else:
                tar.addfile(info)
    plain = out.getvalue()
    return _store(layout, gzip.compress(plain, 6), _LAYER), f"sha256:{hashlib.sha256(plain).hexdigest()}"


def _store(layout: Path, data: bytes, media_type: str) -> dict[str, Any]:
    digest = hashlib.sha256(data).hexdigest()
    blobs = layout / "blobs/sha256"
    blobs.mkdir(parents=True, exist_ok=True)
    (blobs / digest).write_bytes(data)
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}
