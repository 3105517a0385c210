"""cp between a container's tree and the host: docker's rules, and no way out of the tree."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from pathlib import Path

import attrs
import pytest

from lamina.containers.copy import copy_in, copy_out
from lamina.errors import BadArchive, BadRequest, NotFound


@attrs.frozen
class Sides:
    """A container's tree and a place of the host beside it."""

    root: Path
    host: Path

    def into(self, source: str, path: str, *, archive: bool = False, follow: bool = False) -> None:
        """Copy in, from a path below `host`."""
        copy_in(
            self.root, os.fsencode(self.host) + b"/" + source.encode(), path.encode(), archive=archive, follow=follow
        )

    def out(self, path: str, target: str, *, archive: bool = False, follow: bool = False) -> None:
        """Copy out, to a path below `host`."""
        copy_out(
            self.root, path.encode(), os.fsencode(self.host) + b"/" + target.encode(), archive=archive, follow=follow
        )


@pytest.fixture
def sides(tmp_path: Path) -> Sides:
    """A container with /etc/motd, /srv and /link -> /srv; a host with `note` and `dir/{a,sub/b}`."""
    root, host = tmp_path / "root", tmp_path / "host"
    for directory in (root / "etc", root / "srv", host / "dir/sub"):
        directory.mkdir(parents=True)
    (root / "etc/motd").write_text("welcome\n")
    (root / "link").symlink_to("/srv")
    (host / "note").write_text("carried\n")
    (host / "dir/a").write_text("a")
    (host / "dir/sub/b").write_text("b")
    return Sides(root, host)


def tar_of(*members: tuple[tarfile.TarInfo, bytes]) -> io.BytesIO:
    """A tar in memory."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for member, content in members:
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    stream.seek(0)
    return stream


def member(name: str, kind: bytes = tarfile.REGTYPE, **said: object) -> tarfile.TarInfo:
    """One entry of a tar."""
    info = tarfile.TarInfo(name)
    info.type = kind
    for field, value in said.items():
        setattr(info, field, value)
    return info


def test_a_file_gets_the_name_that_was_given(sides: Sides) -> None:
    sides.into("note", "/srv/other")

    assert (sides.root / "srv/other").read_text() == "carried\n"


def test_a_file_copied_to_a_directory_keeps_its_name(sides: Sides) -> None:
    sides.into("note", "/srv")
    sides.out("/etc/motd", ".")

    assert (sides.root / "srv/note").read_text() == "carried\n"
    assert (sides.host / "motd").read_text() == "welcome\n"


def test_a_file_replaces_a_file(sides: Sides) -> None:
    sides.into("note", "/etc/motd")

    assert (sides.root / "etc/motd").read_text() == "carried\n"
    assert os.listdir(sides.root / "etc") == ["motd"]


def test_a_directory_is_made_where_there_is_none_and_copied_into_where_there_is_one(sides: Sides) -> None:
    sides.into("dir", "/new")
    sides.into("dir", "/srv")

    assert (sides.root / "new/sub/b").read_text() == "b"
    assert (sides.root / "srv/dir/sub/b").read_text() == "b"


def test_slash_dot_copies_what_a_directory_holds(sides: Sides) -> None:
    os.chmod(sides.root / "srv", 0o1777)

    sides.into("dir/.", "/srv")

    assert sorted(os.listdir(sides.root / "srv")) == ["a", "sub"]
    assert stat.S_IMODE(os.stat(sides.root / "srv").st_mode) == 0o1777  # it was there, and stays as it is


def test_copying_again_replaces_files_and_keeps_the_others(sides: Sides) -> None:
    sides.into("dir", "/new")
    (sides.root / "new/sub/own").write_text("own")
    (sides.host / "dir/sub/b").write_text("changed")

    sides.into("dir/.", "/new")

    assert (sides.root / "new/sub/b").read_text() == "changed"
    assert (sides.root / "new/sub/own").read_text() == "own"


@pytest.mark.parametrize("target", ["/etc/motd", "/etc/motd/"])
def test_a_directory_does_not_replace_a_file(sides: Sides, target: str) -> None:
    with pytest.raises(BadRequest):
        sides.into("dir", target)

    assert (sides.root / "etc/motd").read_text() == "welcome\n"


def test_a_file_does_not_replace_a_directory_inside_the_tree(sides: Sides) -> None:
    (sides.root / "srv/dir/a/full").mkdir(parents=True)

    with pytest.raises(BadRequest, match="'a'"):
        sides.into("dir", "/srv")

    assert (sides.root / "srv/dir/a/full").is_dir()


@pytest.mark.parametrize(
    ("source", "target"), [("note", "/no/such/place"), ("note", "/new/"), ("missing", "/srv"), ("note/", "/srv")]
)
def test_what_is_not_there_is_said(sides: Sides, source: str, target: str) -> None:
    with pytest.raises(NotFound):
        sides.into(source, target)


def test_links_are_copied_unless_they_are_to_be_followed(sides: Sides) -> None:
    (sides.host / "short").symlink_to("note")

    sides.into("short", "/srv/link")
    sides.into("short", "/srv/file", follow=True)

    assert os.readlink(sides.root / "srv/link") == "note"
    assert not (sides.root / "srv/file").is_symlink()
    assert (sides.root / "srv/file").read_text() == "carried\n"


def test_a_link_of_the_container_leads_where_the_container_sees_it(sides: Sides) -> None:
    sides.into("note", "/link")
    sides.into("dir/a", "/link/renamed")

    assert sorted(os.listdir(sides.root / "srv")) == ["note", "renamed"]
    assert not os.path.lexists("/srv/note")


@pytest.mark.parametrize("way", ["../../../..", "/../..", "{host}"])
def test_no_link_leads_out_of_the_container(sides: Sides, way: str) -> None:
    (sides.root / "way").symlink_to(way.format(host=sides.host))

    with pytest.raises(NotFound):
        sides.out(f"/way/{sides.host}/note", "stolen")
    with pytest.raises(NotFound):
        sides.into("dir/a", f"/way/{sides.host}/note")

    assert (sides.host / "note").read_text() == "carried\n"
    assert not (sides.host / "stolen").exists()


def test_a_link_to_a_secret_of_the_host_copies_the_containers_file(sides: Sides) -> None:
    (sides.root / "passwd").symlink_to("/etc/motd")

    sides.out("/passwd", "copy", follow=True)

    assert (sides.host / "copy").read_text() == "welcome\n"


def test_a_link_in_a_circle_ends(sides: Sides) -> None:
    (sides.root / "one").symlink_to("two")
    (sides.root / "two").symlink_to("one")

    with pytest.raises(OSError, match="symbolic links"):
        sides.out("/one", "copy", follow=True)


def test_a_link_in_the_middle_of_a_tree_is_not_written_through(sides: Sides) -> None:
    (sides.root / "srv/dir").mkdir()
    (sides.root / "srv/dir/sub").symlink_to("/etc")

    with pytest.raises(BadRequest, match="'sub'"):
        sides.into("dir", "/srv")

    assert os.listdir(sides.root / "etc") == ["motd"]


@pytest.mark.needs_root
def test_owners_are_those_of_who_copies_unless_they_are_to_be_kept(sides: Sides) -> None:
    for path in (sides.host / "dir", sides.host / "dir/a"):
        os.chown(path, 1234, 4321)
    os.chmod(sides.host / "dir/a", 0o4750)

    sides.into("dir", "/plain")
    sides.into("dir", "/kept", archive=True)

    plain, kept = os.stat(sides.root / "plain/a"), os.stat(sides.root / "kept/a")
    assert (plain.st_uid, plain.st_gid) == (os.geteuid(), os.getegid())
    assert (kept.st_uid, kept.st_gid) == (1234, 4321)
    assert stat.S_IMODE(plain.st_mode) == stat.S_IMODE(kept.st_mode) == 0o4750
    assert os.stat(sides.root / "kept").st_uid == 1234


def test_modes_times_attributes_and_hard_links_are_kept(sides: Sides) -> None:
    os.link(sides.host / "dir/a", sides.host / "dir/sub/again")
    os.setxattr(sides.host / "dir/a", "user.note", b"kept")
    os.chmod(sides.host / "dir/a", 0o640)
    for path in (sides.host / "dir/a", sides.host / "dir/sub"):
        os.utime(path, ns=(1, 123_456_789))

    sides.into("dir", "/new")

    copy = os.stat(sides.root / "new/a")
    assert (copy.st_mtime_ns, stat.S_IMODE(copy.st_mode), copy.st_nlink) == (123_456_789, 0o640, 2)
    assert os.path.samestat(copy, os.stat(sides.root / "new/sub/again"))
    assert os.getxattr(sides.root / "new/a", "user.note") == b"kept"
    assert os.stat(sides.root / "new/sub").st_mtime_ns == 123_456_789


def test_a_copy_that_fails_leaves_the_old_file_and_nothing_else(sides: Sides) -> None:
    os.mkfifo(sides.host / "odd")
    with pytest.raises(BadRequest, match="odd"):
        sides.out("/etc/motd", "odd")

    stream = tar_of((member("motd"), b"x" * 4000))
    stream.truncate(1500)
    with pytest.raises(BadArchive, match="motd"):
        copy_in(sides.root, stream, b"/etc")

    assert stat.S_ISFIFO(os.stat(sides.host / "odd").st_mode)
    assert os.listdir(sides.root / "etc") == ["motd"]
    assert (sides.root / "etc/motd").read_text() == "welcome\n"


def test_a_tar_is_unpacked_into_a_directory_with_all_that_it_says(sides: Sides) -> None:
    stream = tar_of(
        (member("d", tarfile.DIRTYPE, mode=0o750, mtime=77), b""),
        (member("d/file", mode=0o4755, mtime=88), b"content"),
        (member("d/hard", tarfile.LNKTYPE, linkname="d/file"), b""),
        (member("d/soft", tarfile.SYMTYPE, linkname="file"), b""),
        (member("d/pipe", tarfile.FIFOTYPE, mode=0o600), b""),
        (member("deep/er/file"), b"made"),
    )

    copy_in(sides.root, stream, b"/link")

    made = sides.root / "srv/d"
    assert (made / "file").read_bytes() == b"content"
    assert stat.S_IMODE(os.stat(made / "file").st_mode) == 0o4755
    assert os.path.samefile(made / "file", made / "hard")
    assert os.readlink(made / "soft") == "file"
    assert stat.S_ISFIFO(os.lstat(made / "pipe").st_mode)
    assert (stat.S_IMODE(os.stat(made).st_mode), os.stat(made).st_mtime) == (0o750, 77)
    assert (sides.root / "srv/deep/er/file").read_bytes() == b"made"


def test_a_name_that_begins_with_wh_is_a_file_like_any_other(sides: Sides) -> None:
    copy_in(sides.root, tar_of((member(".wh.motd"), b"")), b"/etc")

    assert sorted(os.listdir(sides.root / "etc")) == [".wh.motd", "motd"]


@pytest.mark.parametrize(
    "hostile",
    [
        member("../stolen"),
        member("srv/../../stolen"),
        member("hard", tarfile.LNKTYPE, linkname="../../host/note"),
    ],
)
def test_an_entry_that_would_leave_the_directory_is_refused(sides: Sides, hostile: tarfile.TarInfo) -> None:
    with pytest.raises(BadArchive, match="outside"):
        copy_in(sides.root, tar_of((hostile, b"")), b"/srv")

    assert os.listdir(sides.root / "srv") == []


def test_a_tar_that_lays_a_link_and_goes_through_it_stays_inside(sides: Sides) -> None:
    stream = tar_of(
        (member("out", tarfile.SYMTYPE, linkname="/../../../../../.."), b""), (member("out/srv/file"), b"caught")
    )

    copy_in(sides.root, stream, b"/srv")

    assert (sides.root / "srv/file").read_bytes() == b"caught"


def test_an_absolute_name_lies_below_the_directory(sides: Sides) -> None:
    copy_in(sides.root, tar_of((member("/etc/motd"), b"other")), b"/srv")

    assert (sides.root / "srv/etc/motd").read_bytes() == b"other"
    assert (sides.root / "etc/motd").read_text() == "welcome\n"


def test_a_tar_needs_a_directory(sides: Sides) -> None:
    with pytest.raises(NotFound, match="motd"):
        copy_in(sides.root, tar_of((member("x"), b"")), b"/etc/motd")
