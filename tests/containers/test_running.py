"""Containers that run, through a real runtime and a real monitor, typed as people type it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from desk import PROGRAM, Desk

pytestmark = pytest.mark.needs_root

FOREVER = ("sh", "-c", "trap 'exit 9' TERM; echo ready; while :; do sleep 0.1; done")
Eventually = Callable[[Callable[[], bool]], None]


def known(desk: Desk, name: str) -> Any:
    (document,) = json.loads(desk.does("inspect", name))
    return document


def serve(desk: Desk, eventually: Eventually, *options: str, name: str = "box") -> str:
    """A container that runs until it is told to end, and has begun."""
    made = desk.does("run", "-d", "--name", name, *options, "demo/busybox", *FOREVER).strip()
    log = Path(desk.environ["LAMINA_ROOT"], "containers", made, "log")
    eventually(lambda: "ready" in log.read_text())
    return made


# run


def test_a_command_runs_on_a_copy_of_the_image_and_its_code_is_ours(any_desk: Desk) -> None:
    told = any_desk.run("run", "--rm", "demo/busybox", "sh", "-c", "cat /etc/motd; echo mine > /etc/motd; exit 7")

    assert (told.stdout, told.returncode) == (b"hello from the second layer\n", 7)
    assert any_desk.does("run", "--rm", "demo/busybox", "cat", "/etc/motd") == "hello from the second layer\n"
    assert any_desk.does("ps", "-aq") == ""


@pytest.mark.parametrize(("command", "code"), [("no-such-command", 127), ("/etc", 126), ("/etc/motd", 126)])
def test_what_cannot_be_run_has_dockers_codes(each_runtime: Desk, command: str, code: int) -> None:
    assert each_runtime.fails("run", "--rm", "demo/busybox", command)[0] == code
    assert each_runtime.does("ps", "-aq") == ""


def test_a_command_that_a_signal_ends_has_128_and_its_number(desk: Desk) -> None:
    assert desk.run("run", "--rm", "demo/busybox", "sh", "-c", "sh -c 'kill -9 $$'; exit $?").returncode == 137


def test_our_own_failures_are_not_taken_for_the_commands(desk: Desk) -> None:
    assert desk.fails("run", "--pull", "never", "no/such/image")[0] == 125
    assert desk.fails("run", "--network", "bridge", "demo/busybox", "true")[0] == 125


def test_both_streams_arrive_apart_and_input_goes_in(each_runtime: Desk) -> None:
    told = each_runtime.run("run", "--rm", "-i", "demo/busybox", "sh", "-c", "cat; echo err >&2", stdin=b"a\nb\n")

    assert (told.stdout, told.stderr) == (b"a\nb\n", b"err\n")


def test_a_lot_of_input_comes_back_unharmed(desk: Desk) -> None:
    data = os.urandom(1 << 20)

    assert desk.run("run", "--rm", "-i", "demo/busybox", "cat", stdin=data).stdout == data


def test_settings_are_what_was_asked_for(desk: Desk) -> None:
    script = "pwd; id -u; id -g; hostname; echo $A $HOME; tail -1 /etc/hosts"
    words = ("-w", "/new/dir", "-u", "1000:1001", "-h", "host", "-e", "A=b", "demo/busybox", "sh", "-c", script)

    told = desk.does("run", "--rm", *words).splitlines()

    assert told == ["/new/dir", "1000", "1001", "host", "b /", "127.0.0.1\thost"]


def test_privileges_are_those_that_docker_leaves(each_runtime: Desk) -> None:
    read = ("demo/busybox", "sed", "-n", "s/CapEff:\t//p", "/proc/self/status")

    assert each_runtime.does("run", "--rm", *read) == "00000000a80425fb\n"
    assert each_runtime.does("run", "--rm", "--cap-drop", "ALL", "--cap-add", "CHOWN", *read) == "0000000000000001\n"
    assert each_runtime.does("run", "--rm", "-u", "7", *read) == "0000000000000000\n"


def test_the_kernel_is_hidden_and_calls_are_filtered(desk: Desk) -> None:
    script = "echo x > /proc/sys/kernel/hostname; ls /sys/firmware; grep Seccomp: /proc/self/status; echo y > /sys/x"
    told = desk.run("run", "--rm", "demo/busybox", "sh", "-c", script)

    assert told.stdout.split() == [b"Seccomp:", b"2"]
    assert told.stderr.count(b"Read-only file system") + told.stderr.count(b"nonexistent directory") == 2


def test_a_read_only_container_cannot_write_and_a_volume_can(desk: Desk) -> None:
    (desk.path / "data").mkdir()
    script = "echo x > /mine || echo no > /data/said"

    desk.run("run", "--rm", "--read-only", "-v", f"{desk.path}/data:/data", "demo/busybox", "sh", "-c", script)
    refused = desk.run("run", "--rm", "-v", f"{desk.path}/data:/data:ro", "demo/busybox", "touch", "/data/more")

    assert (desk.path / "data/said").read_text() == "no\n"
    assert b"Read-only" in refused.stderr


def test_limits_are_set_where_the_kernel_has_them(desk: Desk) -> None:
    limits = ("--memory", "64m", "--pids-limit", "17", "--cpus", "0.5")
    script = "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes pids/pids.max cpu/cpu.cfs_quota_us 2>/dev/null"
    script += " || cat memory.max pids.max cpu.max"

    told = desk.run("run", "--rm", *limits, "demo/busybox", "sh", "-c", script)

    if b"is not limited" in told.stderr:
        pytest.skip("this machine limits nothing, and lamina says so")
    assert told.stdout.split()[:3] == [b"67108864", b"17", b"50000"]


def test_the_network_is_none_or_the_hosts(desk: Desk) -> None:
    read = ("demo/busybox", "readlink", "/proc/self/ns/net")

    assert desk.does("run", "--rm", "--network", "host", *read).strip() == os.readlink("/proc/self/ns/net")
    assert desk.does("run", "--rm", *read).strip() != os.readlink("/proc/self/ns/net")


# a life


def test_a_container_lives_on_without_us_until_it_is_stopped(any_desk: Desk, eventually: Eventually) -> None:
    made = serve(any_desk, eventually)

    assert re.fullmatch(r"[0-9a-f]{64}", made)
    line = any_desk.does("ps").splitlines()[1]
    assert re.fullmatch(r'[0-9a-f]{12} +demo/busybox +"sh -c .* ago +Up \S.* box', line)
    assert any_desk.does("stop", "box") == "box\n"
    assert known(any_desk, "box")["State"]["ExitCode"] == 9
    assert re.search(r"Exited \(9\) .* ago", any_desk.does("ps", "-a"))
    assert any_desk.does("wait", "box") == "9\n"


def test_what_does_not_end_when_asked_is_killed(desk: Desk) -> None:
    desk.does("run", "-d", "--name", "deaf", "demo/busybox", "sh", "-c", "trap '' TERM; while :; do sleep 0.1; done")

    desk.does("stop", "-t", "0.2", "deaf")

    assert known(desk, "deaf")["State"]["ExitCode"] == 137


def test_a_container_is_started_again_with_what_it_had_written(any_desk: Desk) -> None:
    any_desk.does("create", "--name", "box", "demo/busybox", "sh", "-c", "echo x >> /count; wc -l < /count")

    assert [any_desk.does("start", "-a", "box") for _ in range(3)] == ["1\n", "2\n", "3\n"]
    assert any_desk.does("logs", "box") == "1\n2\n3\n"
    assert any_desk.does("logs", "--tail", "1", "box") == "3\n"


def test_a_container_is_killed_by_the_signal_of_ones_choice(desk: Desk, eventually: Eventually) -> None:
    serve(desk, eventually)

    assert desk.does("kill", "-s", "TERM", "box") == "box\n"

    assert desk.does("wait", "box") == "9\n"
    assert desk.fails("kill", "box")[0] == 2


def test_a_paused_container_stands_still(each_runtime: Desk, eventually: Eventually) -> None:
    serve(each_runtime, eventually)

    each_runtime.does("pause", "box")

    assert "(Paused)" in each_runtime.does("ps")
    assert each_runtime.fails("exec", "box", "true")[0] == 125
    each_runtime.does("unpause", "box")
    assert each_runtime.does("exec", "box", "echo", "on") == "on\n"
    each_runtime.does("pause", "box")
    assert each_runtime.does("rm", "-f", "box") == "box\n"


def test_what_runs_is_not_removed_unless_forced(desk: Desk, eventually: Eventually) -> None:
    serve(desk, eventually)

    assert desk.fails("rm", "box")[0] == 6
    assert desk.fails("rmi", "demo/busybox")[0] == 6
    assert desk.does("rm", "-f", "box") == "box\n"
    assert not list((Path(desk.environ["LAMINA_ROOT"]) / "containers").iterdir())


def test_a_container_with_rm_is_gone_when_it_has_ended(desk: Desk, eventually: Eventually) -> None:
    desk.does("run", "-d", "--rm", "demo/busybox", "true")

    eventually(lambda: desk.does("ps", "-aq") == "")


def test_logs_are_followed_until_the_end(desk: Desk) -> None:
    desk.does(
        "run", "-d", "--name", "talker", "demo/busybox", "sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.1; done"
    )

    assert desk.does("logs", "-f", "talker") == "1\n2\n3\n"
    assert re.fullmatch(r"(\d{4}-\S+ \d\n){3}", desk.does("logs", "-t", "talker"))


# within


def test_another_command_runs_within(each_runtime: Desk, eventually: Eventually) -> None:
    serve(each_runtime, eventually, "-e", "A=b")

    told = each_runtime.run(
        "exec", "-i", "-e", "C=d", "-w", "/tmp", "box", "sh", "-c", "echo $A$C; pwd; cat; exit 5", stdin=b"in\n"
    )

    assert (told.stdout, told.returncode) == (b"bd\n/tmp\nin\n", 5)
    assert each_runtime.fails("exec", "box", "no-such-command")[0] == 127


def test_a_detached_command_goes_on(desk: Desk, eventually: Eventually) -> None:
    serve(desk, eventually)

    desk.does("exec", "-d", "box", "sh", "-c", "sleep 0.2; touch /done")

    eventually(lambda: desk.run("exec", "box", "ls", "/done").returncode == 0)


def test_only_what_the_container_wrote_is_a_difference(any_desk: Desk, eventually: Eventually) -> None:
    serve(any_desk, eventually)

    any_desk.does("exec", "box", "touch", "/root/new")

    assert set(any_desk.does("diff", "box").splitlines()) == {"C /root", "A /root/new"}


def test_files_are_copied_while_it_runs(any_desk: Desk, eventually: Eventually) -> None:
    serve(any_desk, eventually)
    (any_desk.path / "note").write_text("carried\n")

    any_desk.does("cp", "note", "box:/tmp/note")

    assert any_desk.does("exec", "box", "cat", "/tmp/note") == "carried\n"
    any_desk.does("cp", "box:/tmp/note", "back")
    assert (any_desk.path / "back").read_text() == "carried\n"


def test_a_running_container_is_committed_standing_still_and_the_image_runs(
    any_desk: Desk, eventually: Eventually
) -> None:
    serve(any_desk, eventually)
    any_desk.does("exec", "box", "sh", "-c", "echo committed > /etc/motd")

    any_desk.does("commit", "-p", "-a", "Ada", "-m", "say more", "-c", 'CMD ["cat", "/etc/motd"]', "box", "new:1")

    assert any_desk.does("run", "--rm", "new:1") == "committed\n"
    assert known(any_desk, "new:1")["Author"] == "Ada"
    assert known(any_desk, "box")["State"]["Status"] == "running"
    assert len(any_desk.does("diff", "new:1").splitlines()) <= 3


# signals and crashes


def test_our_signals_are_handed_on(desk: Desk) -> None:
    words = [*PROGRAM, "run", "--name", "box", "demo/busybox", *FOREVER]
    with subprocess.Popen(words, cwd=desk.path, env=desk.environ, stdout=subprocess.PIPE) as ours:
        assert ours.stdout is not None
        assert ours.stdout.readline() == b"ready\n"

        ours.send_signal(signal.SIGTERM)

        assert ours.wait(20) == 9
    assert known(desk, "box")["State"]["ExitCode"] == 9


def test_a_container_outlives_the_lamina_that_was_attached(desk: Desk) -> None:
    words = [*PROGRAM, "run", "--name", "box", "demo/busybox", *FOREVER]
    with subprocess.Popen(words, cwd=desk.path, env=desk.environ, stdout=subprocess.PIPE) as ours:
        assert ours.stdout is not None
        assert ours.stdout.readline() == b"ready\n"
        ours.kill()

    assert known(desk, "box")["State"]["Status"] == "running"
    desk.does("stop", "box")
    assert known(desk, "box")["State"]["ExitCode"] == 9


def test_a_container_with_rm_is_gone_also_when_lamina_died_before_it(desk: Desk, eventually: Eventually) -> None:
    words = [*PROGRAM, "run", "--rm", "--name", "box", "demo/busybox", *FOREVER]
    with subprocess.Popen(words, cwd=desk.path, env=desk.environ, stdout=subprocess.PIPE) as ours:
        assert ours.stdout is not None
        assert ours.stdout.readline() == b"ready\n"
        ours.kill()

    desk.does("kill", "box")

    eventually(lambda: not list((Path(desk.environ["LAMINA_ROOT"]) / "containers").iterdir()))


def monitor_of(desk: Desk, made: str) -> int:
    return int((Path(desk.environ["LAMINA_ROOT"]) / "containers" / made / "monitor.pid").read_text())


def test_a_container_that_lost_its_monitor_is_named_and_can_be_stopped(any_desk: Desk, eventually: Eventually) -> None:
    made = serve(any_desk, eventually)
    os.kill(monitor_of(any_desk, made), signal.SIGKILL)

    told = any_desk.run("ps")

    assert b"container box runs, but its monitor died" in told.stderr
    assert b"Up" in told.stdout
    assert any_desk.run("ps").stderr == b""  # said once
    any_desk.does("rm", "-f", "box")


def test_an_end_that_nobody_saw_is_repaired_and_named(any_desk: Desk, eventually: Eventually) -> None:
    made = serve(any_desk, eventually)
    pid = known(any_desk, "box")["State"]["Pid"]
    os.kill(monitor_of(any_desk, made), signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not Path(f"/proc/{pid}/root/etc").exists())

    told = any_desk.run("ps", "-a")

    assert b"container box had ended" in told.stderr
    assert b"Exited (255)" in told.stdout
    assert "not known" in known(any_desk, "box")["State"]["Error"]
    assert any_desk.does("start", "box") == "box\n"


@pytest.mark.parametrize("step", ["monitor.create", "runtime.start"])
def test_a_start_that_was_cut_short_is_undone_and_named(desk: Desk, step: str) -> None:
    desk.does("create", "--name", "box", "demo/busybox", "sleep", "100")
    program = f"""
import os, signal, sys
from lamina.cli import main
from lamina.containers import monitor, runtime
def dies(*_, **__): os.kill(os.getpid(), signal.SIGKILL)
if {step!r} == "monitor.create": monitor.create = dies
else: runtime.Runtime.start = dies
sys.exit(main.run(["start", "box"]))
"""
    died = subprocess.run(
        [PROGRAM[0], "-c", program], cwd=desk.path, env=desk.environ, capture_output=True, check=False
    )

    assert died.returncode == -signal.SIGKILL
    told = desk.run("ps", "-a")
    assert b"its start was cut short" in told.stderr
    assert b"Created" in told.stdout
    assert desk.does("start", "box") == "box\n"


@pytest.mark.parametrize("step", ["create", "start"])
def test_a_runtime_that_dies_in_the_middle_of_a_start_leaves_the_container_as_it_was(
    new_desk: Callable[[str, str], Desk], tmp_path: Path, step: str
) -> None:
    real = shutil.which("crun")
    (tmp_path / "crun").write_text(
        f'#!/bin/sh\nfor word; do [ "$word" != {step} ] || [ ! -e "$0.dies" ] || kill -9 $$; done\nexec {real} "$@"\n'
    )
    (tmp_path / "crun").chmod(0o755)
    desk = new_desk("overlay", f"{tmp_path}/crun")
    desk.does("create", "--name", "box", "demo/busybox", "sh", "-c", "exit 3")
    (tmp_path / "crun.dies").touch()

    code, line = desk.fails("start", "-a", "box")

    assert (code, known(desk, "box")["State"]["Status"]) == (125, "created"), line
    (tmp_path / "crun.dies").unlink()
    assert desk.run("start", "-a", "box").returncode == 3


def test_a_missing_runtime_says_what_to_install(new_desk: Callable[[str, str], Desk]) -> None:
    desk = new_desk("vfs", "no-such-runtime")

    code, line = desk.fails("run", "--rm", "demo/busybox", "true")

    assert code == 125
    assert "no-such-runtime" in line
    assert desk.does("ps", "-aq") == ""
