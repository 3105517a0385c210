"""Images in and out of files: load, save, import."""

from __future__ import annotations

from pathlib import Path

import click

from lamina.cli import complete
from lamina.cli.options import place, reading, writing
from lamina.cli.output import escape
from lamina.cli.progress import shown
from lamina.cli.session import Session, pass_session
from lamina.images.records import Form


@click.command
@click.option("-i", "--input", "source", metavar="PATH", help="A file, or the directory of an OCI layout; else stdin.")
@click.option("--platform", metavar="OS/ARCH", help="Which image of an index to take; this machine's by default.")
@click.option("--name", metavar="NAME", help="The repository for images that the bundle calls only by a tag.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@pass_session
def load(session: Session, source: str | None, platform: str | None, name: str | None, *, quiet: bool) -> None:
    """Bring in images: a docker archive, an OCI archive (both also compressed) or an OCI layout."""
    with session.images() as store, shown(quiet=quiet, lasting=True) as progress:
        if source is not None and (Path(source).is_dir() or Path(source).is_file()):
            loaded = store.load(place(source), platform=platform, name=name, progress=progress)
        else:
            with reading(source) as stream:
                loaded = store.load(stream, platform=platform, name=name, progress=progress)
    for each in loaded:
        click.echo("\n".join(escape(line) for line in str(each).splitlines()))


@click.command
@click.argument("names", nargs=-1, required=True, shell_complete=complete.images)
@click.option("-o", "--output", "target", metavar="PATH", help="The file or, for oci-dir, the directory; else stdout.")
@click.option(
    "--format",
    "form",
    type=click.Choice([form.value for form in Form]),
    default=Form.DOCKER_ARCHIVE.value,
    show_default=True,
    help="The shape of the bundle.",
)
@click.option(
    "--compress",
    type=click.Choice(["none", "gzip", "zstd"]),
    default="none",
    show_default=True,
    help="Compress layers that are not.",
)
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@pass_session
def save(
    session: Session, names: tuple[str, ...], target: str | None, form: str, compress: str, *, quiet: bool
) -> None:
    """Write images as one bundle that docker, podman, skopeo and containerd read."""
    wanted = Form(form)
    if target in {None, "-"} and wanted is Form.OCI_DIR:
        raise click.UsageError("a directory cannot go to stdout: say where by -o")
    with session.images() as store, shown(quiet=quiet) as progress:
        if target is None or target == "-":
            with writing(target) as stream:
                store.save(names, stream, form=wanted, compression=compress, progress=progress)
        else:
            store.save(names, place(target), form=wanted, compression=compress, progress=progress)


@click.command("import")
@click.argument("source", metavar="FILE|-")
@click.argument("name", required=False)
@click.option("-c", "--change", "changes", metavar="INSTRUCTION", multiple=True, help="A Dockerfile instruction.")
@click.option("-m", "--message", help="A word on where it comes from, for the history.")
@click.option("--platform", metavar="OS/ARCH", help="For which machines it is; this one by default.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@pass_session
def import_(
    session: Session,
    source: str,
    name: str | None,
    changes: tuple[str, ...],
    message: str | None,
    platform: str | None,
    *,
    quiet: bool,
) -> None:
    """Make an image of one layer from the tar of a root filesystem."""
    with session.images() as store, shown(quiet=quiet) as progress, reading(source) as tar:
        image = store.import_tar(tar, name, changes=changes, message=message, platform=platform, progress=progress)
    click.echo(image.id)
