"""A tiny blob that inflates to more than the disk: a typed error, bounded memory, and the store as it was."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from desk import Desk
from registries import Asked, Reply, serving

from lamina.conformance.smalldisk import tmpfs
from lamina.errors import NoSpace
from lamina.images.manifest import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, digest_of

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

pytestmark = pytest.mark.needs_root
SIZE = 1 << 30
BLOCK = os.urandom(1 << 10) * (1 << 10)  # no zeros: those may become a hole, which needs no disk
PACK: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "zstd": zstd.compress}
MOST = 200  # MiB of memory


def bomb(form: str) -> bytes:
    """A layer of one file: its header, and then one piece again and again, each packed by itself."""
    member = tarfile.TarInfo("file")
    member.size = SIZE
    piece = PACK[form](BLOCK)
    return b"".join([PACK[form](member.tobuf()), *[piece] * (SIZE // len(BLOCK)), PACK[form](bytes(1024))])


def documents(form: str, layer: bytes) -> tuple[bytes, bytes]:
    """Manifest and config of an image of this layer."""
    rootfs = {"type": "layers", "diff_ids": [digest_of(b"who knows")]}
    config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": rootfs}).encode()
    kinds = ((OCI_CONFIG, config), (f"{OCI_LAYER}+{form}", layer))
    pointers = [{"mediaType": kind, "digest": digest_of(blob), "size": len(blob)} for kind, blob in kinds]
    manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": pointers[0], "layers": pointers[1:]}
    return json.dumps(manifest).encode(), config


@pytest.mark.parametrize("form", PACK)
def test_a_bomb_is_refused_when_the_disk_is_full_and_nothing_of_it_stays(
    form: str, desk: Desk, archive: Path, tmp_path: Path
) -> None:
    layer = bomb(form)
    manifest, config = documents(form, layer)
    blobs = {digest_of(blob): blob for blob in (manifest, config, layer)}
    layout(desk.path / "layout", manifest, blobs)

    def answer(asked: Asked) -> Reply:
        if "/manifests/" in asked.path:
            return Reply(200, manifest, {"content-type": OCI_MANIFEST})
        return Reply(200, blobs[asked.path.rpartition("/")[2]] if "/blobs/" in asked.path else b"{}")

    (tmp_path / "disk").mkdir()
    with tmpfs(tmp_path / "disk", 64) as place, serving(answer) as host:
        desk.environ["LAMINA_ROOT"] = str(place / "store")
        desk.does("load", "-q", "-i", archive)
        before = state(desk, place)

        for words in (["pull", f"{host}/bomb:1"], ["load", "-i", "layout"]):
            code, megabytes, told = measured(desk, words)

            assert (code, len(told.splitlines())) == (NoSpace.exit_code, 1), told
            assert megabytes < MOST
            assert state(desk, place) == before


def layout(place: Path, manifest: bytes, blobs: dict[str, bytes]) -> None:
    """The image as an OCI layout."""
    (place / "blobs/sha256").mkdir(parents=True)
    for digest, blob in blobs.items():
        (place / "blobs/sha256" / digest.removeprefix("sha256:")).write_bytes(blob)
    pointer = {"mediaType": OCI_MANIFEST, "digest": digest_of(manifest), "size": len(manifest)}
    (place / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [pointer]}))
    (place / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


def state(desk: Desk, place: Path) -> tuple[str, list[str], list[str]]:
    """What the store says it has, which blobs lie there, and of which layers there are files."""
    files = sorted(path.name for path in (place / "store/blobs").rglob("*") if path.is_file())
    return desk.does("images", "-q"), files, desk.does("snapshot", "ls", "-q").split()


# A child's peak begins with its parent's size, and pytest's is large: so a small process has the child.
_MEASURING = """
import resource, subprocess, sys
status = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
print(status, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10)
"""


def measured(desk: Desk, words: list[str]) -> tuple[int, int, str]:
    """The exit code, the most memory that was used, in MiB, and what was said."""
    argv = [sys.executable, "-c", _MEASURING, *desk.program, *words]
    ran = subprocess.run(argv, cwd=desk.path, env=desk.environ, capture_output=True, text=True, check=True)
    code, megabytes = map(int, ran.stdout.split())
    return code, megabytes, ran.stderr
