"""Images between docker and lamina: what one saves the other loads and runs, and both write the same of a commit."""

from __future__ import annotations

import json
import shlex
import tarfile
from pathlib import Path
from typing import Any

import pytest
from desk import Desk

pytestmark = pytest.mark.needs_root
COMMIT = shlex.split(
    "commit -a 'Ada <ada@example.org>' -m 'a message'"
    ' -c \'CMD ["-c", "id -u; cat /made; pwd"]\' -c \'ENTRYPOINT ["sh"]\''
    " -c 'ENV A=b' -c 'EXPOSE 80' -c 'LABEL x=y' -c 'ONBUILD RUN true' -c 'USER 1000' -c 'VOLUME /data'"
    " -c 'WORKDIR /tmp' box made:1"
)
# docker 20.10 writes into the settings of an image what is a container's, and once was the daemon's; later ones do not
OF_CONTAINERS = {
    *("AttachStderr", "AttachStdin", "AttachStdout", "Domainname", "Hostname", "Image", "NetworkDisabled"),
    *("OpenStdin", "StdinOnce", "Tty"),
}
OLD_FIELDS = {"container", "container_config", "docker_version"}  # as above; OCI has no such fields


def make(desk: Desk) -> Path:
    """The same image by the same words; the archive of it."""
    desk.does("pull", "-q", "busybox")
    desk.does("run", "--name", "box", "-e", "B=c", "busybox", "sh", "-c", "echo hello > /made; rm /etc/motd")
    desk.does(*COMMIT)
    desk.does("save", "-o", "made.tar", "made:1")
    return desk.path / "made.tar"


def config_in(archive: Path) -> Any:
    with tarfile.open(archive) as tar:
        (entry,) = json.load(tar.extractfile("manifest.json") or pytest.fail("no manifest"))
        return json.load(tar.extractfile(entry["Config"]) or pytest.fail("no config"))


def test_both_write_the_same_config_and_history(docker: Desk, lamina: Desk) -> None:
    theirs, ours = config_in(make(docker)), config_in(make(lamina))

    assert set(theirs) - set(ours) == OLD_FIELDS
    assert set(ours) <= set(theirs)
    settings = {name: value for name, value in theirs["config"].items() if value is not None}
    assert {name: settings[name] for name in settings.keys() - OF_CONTAINERS} == ours["config"]
    for name in ("architecture", "os", "author"):
        assert ours[name] == theirs[name]
    assert len(ours["rootfs"]["diff_ids"]) == len(theirs["rootfs"]["diff_ids"]) == 4
    assert ours["rootfs"]["diff_ids"][:3] == theirs["rootfs"]["diff_ids"][:3]
    assert [steps(config) for config in (ours, theirs)] == [steps(theirs)] * 2


def steps(config: Any) -> list[Any]:
    """The history without the times of what was just done."""
    return [
        *config["history"][:-1],
        {name: value for name, value in config["history"][-1].items() if name != "created"},
    ]


def test_what_lamina_saves_docker_loads_and_runs_and_the_other_way_round(docker: Desk, lamina: Desk) -> None:
    for desk in (docker, lamina):
        make(desk)

    for giver, taker, name in ((docker, lamina, "here:1"), (lamina, docker, "there:1")):
        giver.does("tag", "made:1", name)
        giver.does("save", "-o", "given.tar", name)
        assert taker.does("load", "-i", giver.path / "given.tar") == f"Loaded image: {name}\n"
        assert taker.does("run", "--rm", name) == "1000\nhello\n/tmp\n"
        ids = [json.loads(desk.does("inspect", name))[0]["Id"] for desk in (giver, taker)]
        assert ids[0] == ids[1]
