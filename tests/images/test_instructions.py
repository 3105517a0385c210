"""`commit -c` takes Dockerfile instructions as docker does."""

from __future__ import annotations

from typing import Any

import pytest

from lamina.errors import BadRequest
from lamina.images.instructions import apply_changes


@pytest.mark.parametrize(
    ("line", "setting", "value"),
    [
        ('CMD ["a", "b c"]', "Cmd", ["a", "b c"]),
        ("cmd echo $HOME && true", "Cmd", ["/bin/sh", "-c", "echo $HOME && true"]),
        ("CMD [broken", "Cmd", ["/bin/sh", "-c", "[broken"]),
        ('ENTRYPOINT ["/x"]', "Entrypoint", ["/x"]),
        ("ENTRYPOINT exec top", "Entrypoint", ["/bin/sh", "-c", "exec top"]),
        ('ENV A=1 B=\'two words\' C="x\\"y"', "Env", ["A=1", "B=two words", 'C=x"y']),
        ("ENV OLD form with spaces", "Env", ["OLD=form with spaces"]),
        ("ENV A=b\\ c D=", "Env", ["A=b c", "D="]),
        ('LABEL a=b "c d"="e f"', "Labels", {"a": "b", "c d": "e f"}),
        ("EXPOSE 80 443/TCP 53/udp", "ExposedPorts", {"443/tcp": {}, "53/udp": {}, "80/tcp": {}}),
        ("EXPOSE 8000-8002", "ExposedPorts", {"8000/tcp": {}, "8001/tcp": {}, "8002/tcp": {}}),
        ('VOLUME ["/a", "/b c"]', "Volumes", {"/a": {}, "/b c": {}}),
        ("VOLUME /a /b", "Volumes", {"/a": {}, "/b": {}}),
        ("USER 1000:1000", "User", "1000:1000"),
        ("WORKDIR /a/../b", "WorkingDir", "/b"),
        ("ONBUILD RUN make", "OnBuild", ["RUN make"]),
        ("STOPSIGNAL SIGINT", "StopSignal", "SIGINT"),
        ("HEALTHCHECK NONE", "Healthcheck", {"Test": ["NONE"]}),
        (
            'HEALTHCHECK --interval=1m30s --retries=3 CMD ["x"]',
            "Healthcheck",
            {"Test": ["CMD", "x"], "Interval": 90_000_000_000, "Retries": 3},
        ),
        ("HEALTHCHECK CMD curl -f x", "Healthcheck", {"Test": ["CMD-SHELL", "curl -f x"]}),
    ],
)
def test_an_instruction_sets_what_docker_sets(line: str, setting: str, value: Any) -> None:
    assert apply_changes({}, [line])[setting] == value


def test_changes_build_on_what_the_image_has_and_on_each_other() -> None:
    before = {"Env": ["PATH=/bin", "A=0"], "WorkingDir": "/srv", "Labels": {"keep": "1"}, "Shell": ["/bin/ash", "-ec"]}

    after = apply_changes(before, ["ENV A=1 Z=2", "WORKDIR app", "LABEL new=2", "CMD run it"])

    assert after["Env"] == ["PATH=/bin", "A=1", "Z=2"]
    assert after["WorkingDir"] == "/srv/app"
    assert after["Labels"] == {"keep": "1", "new": "2"}
    assert after["Cmd"] == ["/bin/ash", "-ec", "run it"]
    assert before["Env"] == ["PATH=/bin", "A=0"]


def test_a_new_entrypoint_makes_the_old_command_void_but_not_a_new_one() -> None:
    assert apply_changes({"Cmd": ["old"]}, ["ENTRYPOINT x"])["Cmd"] is None
    assert apply_changes({"Cmd": ["old"]}, ['CMD ["new"]', 'ENTRYPOINT ["x"]'])["Cmd"] == ["new"]
    assert apply_changes({"Cmd": ["old"]}, ['ENTRYPOINT ["x"]', 'CMD ["new"]'])["Cmd"] == ["new"]


def test_several_instructions_may_stand_in_one_change() -> None:
    after = apply_changes({}, ["ENV A=1\nUSER me\nENV B=2 \\\n C=3"])

    assert after == {"Env": ["A=1", "B=2", "C=3"], "User": "me"}


@pytest.mark.parametrize(
    "line",
    [
        "RUN make",
        "FROM x",
        "CMD",
        "USER",
        "USER a b",
        "ENV A",
        "ENV A=1 B",
        "EXPOSE web",
        "EXPOSE 0",
        "EXPOSE 70000",
        "EXPOSE 9-8",
        "ONBUILD ONBUILD RUN x",
        "ONBUILD FROM x",
        "HEALTHCHECK sometimes",
        "HEALTHCHECK --interval=soon CMD x",
        "HEALTHCHECK --colour=red CMD x",
        'VOLUME [""]',
    ],
)
def test_what_docker_refuses_is_refused(line: str) -> None:
    with pytest.raises(BadRequest):
        apply_changes({}, [line])
