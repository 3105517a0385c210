"""The images that everything is measured with: a real one of a few hundred MB in four layers, and a tiny one."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import attrs

from lamina_bench.buildah import Buildah
from lamina_bench.cleaning import clear, lacking, room
from lamina_bench.measuring import run
from lamina_bench.synthetic import write_layout

SUITE = "bookworm"
PACKAGES = ("python3", "perl", "gcc", "libc6-dev", "git", "ca-certificates")
RECIPE = 1  # part of the cache's name: a changed recipe makes a new image
TAG = "1"
_DEMO = Path(__file__).parents[2] / "demo/image.py"

Tell = Callable[[str], object]


@attrs.frozen
class Image:
    """One image in the forms in which the tools take it."""

    name: str  # as a short name, without a tag
    place: Path

    @property
    def layout(self) -> Path:
        """An OCI layout with gzip layers; the tag is `TAG`."""
        return self.place / "layout"

    @property
    def oci_archive(self) -> Path:
        """The layout as one tar, for those who do not read directories."""
        return self.place / "oci.tar"

    @property
    def facts(self) -> dict[str, int]:
        """How many layers, entries, whiteouts and bytes (packed, unpacked)."""
        facts: dict[str, int] = json.loads((self.place / "facts.json").read_text())
        return facts


def images(cache: Path, tell: Tell) -> tuple[Image, Image]:
    """The large and the tiny image, from the cache or built now."""
    large, tiny = Image("bench-large", cache / f"large-{RECIPE}"), Image("bench-tiny", cache / f"tiny-{RECIPE}")
    for image, build in ((large, _build_large), (tiny, _build_tiny)):
        if not (image.place / "facts.json").exists():
            clear(image.place)
            image.place.mkdir(parents=True)
            build(image, tell)
            _finish(image)
    return large, tiny


def _finish(image: Image) -> None:
    run(["tar", "--create", "--file", str(image.oci_archive), "--directory", str(image.layout), "."])
    (image.place / "facts.json").write_text(json.dumps(_facts(image.layout)))


def runnable(cache: Path, tell: Tell) -> Image:
    """A busybox that runs, as the demo has it: from the cache, or made now."""
    image = Image("bench-run", cache / f"run-{RECIPE}")
    if not (image.place / "facts.json").exists():
        clear(image.place)
        image.place.mkdir(parents=True)
        tell("building the image that runs")
        archive = image.place / "archive.tar"
        run([sys.executable, str(_DEMO), str(archive)])
        run(["skopeo", "copy", "--quiet", f"docker-archive:{archive}", f"oci:{image.layout}:{TAG}"])
        archive.unlink()
        _finish(image)
    return image


def _build_large(image: Image, tell: Tell) -> None:
    missing = lacking("mmdebstrap", "buildah")
    if missing:
        tell(f"NOTE: {' and '.join(missing)} not installed: the image is made of this machine's /usr instead")
        write_layout(image.layout, TAG)
        return
    tell("building the image: a Debian by mmdebstrap, packages, removals, metadata (once; some minutes)")
    with room(image.place / "building") as here:
        base = here / "base.tar"
        run(["mmdebstrap", "--quiet", "--variant=minbase", SUITE, str(base), *_sources()])
        with Buildah(here / "storage") as buildah:
            buildah.add_layer(None, "base", lambda tree: _unpack(base, tree))
            buildah.add_layer("base", "packages", _install)
            buildah.add_layer("packages", "slim", _slim)
            buildah.add_layer("slim", image.name, _touch_metadata)
            buildah.push(image.name, image.layout, TAG)


def _sources() -> list[str]:
    """Where this Debian gets its own packages from; where it does not say, mmdebstrap knows."""
    places = Path("/etc/apt/sources.list"), Path("/etc/apt/sources.list.d/debian.sources")
    return [str(place) for place in places if place.is_file()]


def _build_tiny(image: Image, tell: Tell) -> None:
    tell("building the tiny image")
    with room(image.place / "building") as here:
        if lacking("buildah"):
            write_layout(image.layout, TAG, tiny=True)
            return
        with Buildah(here / "storage") as buildah:
            buildah.add_layer(None, image.name, _be_tiny)
            buildah.push(image.name, image.layout, TAG)


def _unpack(tar: Path, tree: Path) -> None:
    run(["tar", "--extract", "--numeric-owner", "--xattrs", "--file", str(tar), "--directory", str(tree)])


def _install(tree: Path) -> None:
    """Packages, as a Dockerfile's RUN line would: the lists go again in the same layer."""
    resolv = tree / "etc/resolv.conf"
    resolv.write_bytes(Path("/etc/resolv.conf").read_bytes())
    line = (
        "export DEBIAN_FRONTEND=noninteractive; mount -t proc proc /proc; trap 'umount /proc' EXIT; set -e;"
        " apt-get update -qq; apt-get install -qq -y --no-install-recommends "
        f"{' '.join(PACKAGES)}; apt-get clean; rm -rf /var/lib/apt/lists/*"
    )
    run(["chroot", str(tree), "/bin/sh", "-c", line])
    resolv.unlink()


def _slim(tree: Path) -> None:
    """Removals in all layers below (whole directories and single files), and an application of many small files."""
    for name in ("usr/share/doc", "usr/share/man", "usr/share/locale", "var/cache/debconf"):
        run(["rm", "-rf", str(tree / name)])
    run(["find", str(tree / "usr/lib/python3.11"), "-name", "__pycache__", "-prune", "-exec", "rm", "-rf", "{}", "+"])
    (tree / "usr/share/doc").mkdir()  # what replaces a removed directory hides all of it
    (tree / "usr/share/doc/README").write_text("removed to save space\n")
    (tree / "srv").mkdir(exist_ok=True)
    run(["cp", "-a", str(tree / "usr/lib/python3.11"), str(tree / "srv/app")])


def _touch_metadata(tree: Path) -> None:
    """Owners, modes and times only; a layer repeats the whole files nevertheless."""
    run(["chown", "-R", "1000:1000", str(tree / "srv/app/json"), str(tree / "srv/app/email")])
    run(["chmod", "-R", "go-w", str(tree / "srv/app/xml")])
    run(["touch", "-h", "-d", "2001-02-03T04:05:06.123456789Z", str(tree / "etc/debian_version")])


def _be_tiny(tree: Path) -> None:
    for name in ("bin", "etc", "srv/app"):
        (tree / name).mkdir(parents=True)
    for number in range(20):  # as many as the work "commit" wants to change
        (tree / f"srv/app/{number}.txt").write_text(f"file {number}\n" * 100)
    (tree / "etc/motd").write_text("tiny\n")


def _facts(layout: Path) -> dict[str, int]:
    index = json.loads((layout / "index.json").read_text())
    manifest = json.loads(_blob(layout, index["manifests"][0]["digest"]).read_text())
    listings = [_list(_blob(layout, layer["digest"])) for layer in manifest["layers"]]
    entries = [line.split(None, 5) for listing in listings for line in listing]
    return {
        "layers": len(listings),
        "entries": len(entries),
        "removals": sum("/.wh." in f"/{entry[5]}" for entry in entries),
        "packed": sum(layer["size"] for layer in manifest["layers"]),
        "unpacked": sum(int(entry[2]) for entry in entries if entry[0].startswith("-")),
    }


def _list(layer: Path) -> list[str]:
    return run(["tar", "--list", "--verbose", "--gzip", "--file", str(layer)]).splitlines()


def _blob(layout: Path, digest: str) -> Path:
    return layout / "blobs" / digest.replace(":", "/")
