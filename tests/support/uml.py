"""Run a script as root of a second kernel: User-Mode Linux, which sees this machine's files read-only.

The guest is a process of this machine and needs no rights: device mapper, btrfs or aufs can be tried out wherever
Debian's `user-mode-linux` runs. Its root is the host's, read-only; what the script writes goes to a disk of its own
(the directory `$ROOM`, ext4, gone with the guest) or to `$OUT`, which is a directory of the host.
"""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Final

import attrs

TIME_RAN_OUT: Final = 124
DIED: Final = 125
_END: Final = re.compile(rb"\n\x01UML (\d+)\r?\n")
_QUICK: Final = Path("/dev/shm")  # where User-Mode Linux keeps its own memory; the guest flushes its disk often

# The lines are raw and carry bytes as they are. Modules are looked for where Debian's package has them; a kernel that
# has everything built in needs none. The last line is never left: the host ends the guest when it has read the mark.
_INIT: Final = r"""#!/bin/sh
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8
export ROOM=@IO@/room OUT=@IO@/out TMPDIR=@IO@/room/tmp DM_DISABLE_UDEV=1 PYTHONDONTWRITEBYTECODE=1
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t tmpfs -o mode=755 run /run
[ -c /dev/null ] || mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm /run/lock
mount -t devpts -o mode=620,ptmxmode=666 pts /dev/pts; mount -t tmpfs -o mode=1777 shm /dev/shm
[ -e /dev/fd ] || ln -s /proc/self/fd /dev/fd
stty -F /dev/ttyS0 raw -echo
exec >/dev/ttyS0 2>&1 </dev/null
kernel=$(uname -r); mkdir -p /run/kernel/lib/modules; ln -s /usr/lib/uml/modules/$kernel /run/kernel/lib/modules/
printf '#!/bin/sh\nexec modprobe -d /run/kernel "$@"\n' >/run/modprobe; chmod 755 /run/modprobe
if [ -e /proc/sys/kernel/modprobe ]; then  # not where everything is built in
    echo /run/modprobe >/proc/sys/kernel/modprobe
    for module in @MODULES@; do /run/modprobe -q $module; done
fi
mount -t hostfs -o @IO@/out out $OUT || echo "cannot write to the host"
mount -t ext4 -o noatime /dev/ubda $ROOM && mkdir -m 1777 $TMPDIR || echo "cannot mount the disk"
ip link set lo up; hostname uml; ulimit -n 4096; cd $ROOM
sh @IO@/script
status=$?
sync
printf '\n\001UML %d\n' $status
sleep 600
"""


@attrs.frozen
class Ended:
    """How a guest ended: the script's status (124: the time ran out, 125: the guest died), and what it wrote."""

    status: int
    output: str
    seconds: float


class Guest:
    """One User-Mode Linux, from `start` to its end. `out` holds what the script wrote to `$OUT`."""

    def __init__(self, kernel: str, script: str, *, seconds: float, disk: int = 2 << 30, memory: str = "1G") -> None:
        """Remember. `disk` is its size in bytes; it and the memory take room only as they are used."""
        self._kernel = kernel
        self._script = script
        self._seconds = seconds
        self._disk_size = disk
        self._memory = memory
        self._ended: Ended | None = None
        self._files = Path(tempfile.mkdtemp(prefix="lamina-uml-"))
        self._disk = Path(tempfile.mkstemp(prefix="lamina-uml-", dir=_QUICK)[1])
        self._thread = threading.Thread(target=self._live, name="lamina-uml", daemon=True)
        self._stopped = threading.Event()

    @property
    def out(self) -> Path:
        """The host's side of `$OUT`."""
        return self._files / "out"

    def start(self) -> None:
        """Boot, beside whatever else is going on."""
        for name in ("out", "room", "uml"):
            (self._files / name).mkdir()
        modules = "loop overlay dm-thin-pool btrfs xfs fuse aufs"
        init = _INIT.replace("@IO@", str(self._files)).replace("@MODULES@", modules)
        (self._files / "init").write_text(init)
        (self._files / "init").chmod(0o755)
        (self._files / "script").write_text(self._script)
        os.truncate(self._disk, self._disk_size)
        subprocess.run(["mkfs.ext4", "-q", "-F", self._disk], check=True)
        self._thread.start()

    def wait(self) -> Ended:
        """Return when it has ended, at the latest when its time is over."""
        self._thread.join()
        assert self._ended is not None
        return self._ended

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._thread.is_alive()

    def close(self) -> None:
        """End it, if it has not ended, and remove its files."""
        self._stopped.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._disk.unlink(missing_ok=True)
        shutil.rmtree(self._files, ignore_errors=True)

    def _live(self) -> None:
        began = time.monotonic()
        line, line_in = os.pipe()  # pipes: User-Mode Linux cannot poll files
        log, log_in = os.pipe()
        process = subprocess.Popen(
            self._argv(line_in, log_in),
            stdin=subprocess.DEVNULL,
            stdout=log_in,
            stderr=log_in,
            pass_fds=(line_in, log_in),
            start_new_session=True,
        )
        os.close(line_in)
        os.close(log_in)
        try:
            status, output = self._read(process, line, log, began + self._seconds)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            os.close(line)
            os.close(log)
        self._ended = Ended(status, output.decode(errors="replace"), time.monotonic() - began)

    def _argv(self, line: int, log: int) -> list[str]:
        guest = [
            *(self._kernel, f"mem={self._memory}", f"uml_dir={self._files}/uml", f"ubd0={self._disk}"),
            *("rootfstype=hostfs", "rootflags=/", "ro", f"init={self._files}/init"),
            *("con=null", f"con0=null,fd:{log}", "con1=null", f"ssl0=null,fd:{line}"),
            *("quiet", "noreboot", "panic=1"),
        ]
        if os.geteuid() != 0:
            return guest
        # in a process namespace of its own: with the first of its processes all of them end, and that one with us,
        # also if we are killed
        apart = "unshare --mount --propagation private --pid --fork --kill-child=KILL --mount-proc"
        return [*shlex.split(f"setpriv --pdeathsig KILL {apart}"), *guest]

    def _read(self, process: subprocess.Popen[bytes], line: int, log: int, deadline: float) -> tuple[int, bytes]:
        heard = {line: bytearray(), log: bytearray()}
        with selectors.DefaultSelector() as selector:
            for source in heard:
                selector.register(source, selectors.EVENT_READ)
            while selector.get_map():
                if time.monotonic() > deadline or self._stopped.is_set():
                    return TIME_RAN_OUT, bytes(heard[line])
                for key, _ in selector.select(0.5):
                    if not (some := os.read(key.fd, 1 << 16)):
                        selector.unregister(key.fd)
                    heard[key.fd] += some
                if end := _END.search(heard[line]):
                    return int(end[1]), bytes(heard[line][: end.start()])
                if process.poll() is not None or b"Kernel panic" in heard[log]:
                    break
        return DIED, bytes(heard[line] + b"\nThe guest died. Its kernel's last words:\n" + heard[log][-4000:])
