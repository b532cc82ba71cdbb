"""A libvirt beside that of the machine: one libvirtd in namespaces, with private folders.

It shares the network and the folder given to it with its starter, and nothing else that it writes:
it neither sees nor touches a libvirt of the machine. All in it, its guests too, ends with the first
process of its namespace. Needs root; neither systemd nor dbus. For the demo and for tests: other
libvirts reach it by plain TCP.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Self

from lunport.bootstrap.demo.needs import PACKAGES
from lunport.core.errors import HostLacks, HypervisorUnavailable
from lunport.core.portal import Portal
from lunport.host import runner
from lunport.host.clock import Deadline
from lunport.hypervisor.connection import LibvirtConnection

_WAIT_S = 60.0
_LOOK_S = 0.05
_SILENT_S = 10.0
_HOW = "see what its log says"
_pause = threading.Event()

# The private folders of a machine, and no control groups: those of the machine's libvirt have
# the same names.
_INIT = """
set -e
mount --make-rprivate /
[ ! -d /sys/fs/cgroup ] || mount -t tmpfs tmpfs /sys/fs/cgroup
for folder in /run /etc/libvirt /var/lib/libvirt /var/cache/libvirt /var/log/libvirt; do
    mkdir -p "$folder"
    mount -t tmpfs -o mode=755 tmpfs "$folder"
done
# Quirk(libvirt): without its default user it does not start, whatever user is configured; Debian
# makes that with a package of which nothing else is needed here.
for kind in passwd group; do
    cp "/etc/$kind" "$1/$kind"
    grep -q '^libvirt-qemu:' "$1/$kind" || case $kind in
        passwd) echo 'libvirt-qemu:x:64055:64055::/nonexistent:/usr/sbin/nologin' >>"$1/$kind" ;;
        group) echo 'libvirt-qemu:x:64055:' >>"$1/$kind" ;;
    esac
    mount --bind "$1/$kind" "/etc/$kind"
done
mkdir -p /run/libvirt /var/lib/libvirt/qemu
cp "$1/qemu.conf" /etc/libvirt/qemu.conf
touch "$1/ready"
while :; do sleep 3600 & wait $!; done
"""
_LIBVIRTD_CONF = """
host_uuid = "{uuid}"
unix_sock_dir = "{folder}/sock"
auth_unix_ro = "none"
auth_unix_rw = "none"
log_outputs = "2:file:{folder}/libvirtd.log"
"""
_QEMU_CONF = """
security_driver = "none"
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
cgroup_controllers = []
namespaces = []
stdio_handler = "file"
"""

# A libvirt that hangs is given up by another one after some eight seconds.
_LISTEN_CONF = """
listen_tls = 0
listen_tcp = 1
listen_addr = "{host}"
tcp_port = "{port}"
auth_tcp = "none"
"""
_QEMU_MOVES_CONF = """
migration_host = "{host}"
migration_address = "{host}"
keepalive_interval = 2
keepalive_count = 3
"""


class LibvirtHost:
    """One libvirtd and all that it starts; ``with`` ends it.

    ``folder``: an empty one, its path short enough for a socket (the caller removes it).
    ``uuid``: two that move guests between them differ in it. ``listen``: where others reach it.
    """

    def __init__(self, folder: Path, uuid: str, *, listen: Portal | None = None) -> None:
        self.folder = folder
        self._uuid = uuid
        self._listen = listen
        self._process: runner.Daemon | None = None
        self._init = 0

    @property
    def uri(self) -> str:
        """Where its guests are reached from outside of its namespaces."""
        return f"qemu+unix:///system?socket={self.folder}/sock/libvirt-sock"

    @property
    def migration_uri(self) -> str:
        """Where other libvirts reach it."""
        if self._listen is None:
            raise ValueError("it listens to nobody")
        return f"qemu+tcp://{self._listen}/system"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def start(self) -> None:
        """Start it and wait until it answers. Raises: HostLacks, CommandMissing."""
        (self.folder / "sock").mkdir(parents=True)
        qemu_conf = _QEMU_CONF
        config = _LIBVIRTD_CONF.format(uuid=self._uuid, folder=self.folder)
        if self._listen is not None:
            host, port = self._listen.host, self._listen.port
            qemu_conf += _QEMU_MOVES_CONF.format(host=host)
            config += _LISTEN_CONF.format(host=host, port=port)
        (self.folder / "qemu.conf").write_text(qemu_conf)
        (self.folder / "libvirtd.conf").write_text(config)
        namespaces = ["--mount", "--uts", "--ipc", "--pid", "--mount-proc", "--kill-child"]
        with (self.folder / "init.log").open("wb") as log:
            self._process = runner.start(
                ["unshare", *namespaces, "--fork", "bash", "-c", _INIT, "init", self.folder],
                output=log,
                package=PACKAGES["unshare"],
            )
        try:
            self._wait((self.folder / "ready").exists, "init.log")
            outer = self._process.pid
            children = Path(f"/proc/{outer}/task/{outer}/children").read_text().split()
            self._init = int(children[0])
            self.start_daemon()
        except BaseException:
            self.end()
            raise

    def end(self) -> None:
        """End it with its guests, at once. Idempotent."""
        if self._process is None:
            return
        if self._init and self._process.poll() is None:
            # The first process, and with it everything in its namespace; unshare reaps it and
            # ends. It is unshare's child until then, so the number is nobody else's.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._init, signal.SIGKILL)
        else:
            self._process.kill()
        self._process.wait(_WAIT_S)

    def start_daemon(self) -> None:
        """Start libvirtd and wait until it answers. Raises: HostLacks, CommandError."""
        listen = [] if self._listen is None else ["--listen"]
        config = str(self.folder / "libvirtd.conf")
        rest = ["--daemon", "--config", config, "--pid-file", "/run/libvirtd.pid"]
        self.inside("libvirtd", *listen, *rest)
        self._wait(self._answers, "libvirtd.log")

    def inside(self, *argv: str) -> str:
        """Run a program in its namespaces; return what it says. Raises: CommandError."""
        done = runner.run(
            ["nsenter", "--all", "--target", str(self._init), "--", *argv],
            Deadline.after(_WAIT_S),
            package=PACKAGES["nsenter"],
        )
        return done.stdout.strip()

    def _answers(self) -> bool:
        """Tell whether the daemon is past its start: only then does it talk."""
        connection = LibvirtConnection(self.uri)
        deadline = Deadline.after(_SILENT_S)
        try:
            return bool(connection.call("waiting", lambda one: one.isAlive(), deadline))
        except HypervisorUnavailable:
            return False
        finally:
            connection.close(Deadline.after(_SILENT_S))

    def _wait(self, is_so: Callable[[], bool], log: str) -> None:
        deadline = Deadline.after(_WAIT_S)
        while not is_so():
            is_gone = self._process is None or self._process.poll() is not None
            if is_gone or deadline.has_passed():
                raise HostLacks("A libvirt does not start here", self._last_words(log), _HOW)
            _pause.wait(_LOOK_S)

    def _last_words(self, log: str) -> str:
        file = self.folder / log
        said = file.read_text(errors="replace").strip() if file.exists() else ""
        return said.splitlines()[-1] if said else "it said nothing"
