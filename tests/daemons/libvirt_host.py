"""A libvirt of the tests' own: one libvirtd in namespaces, with private folders, and its guests.

It shares the network and /tmp with the test, and nothing else that it writes: it neither sees nor
touches a libvirt of the machine. All in it ends with the first process of its namespace. Needs
root; neither systemd nor dbus.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Self

from lunport.core.errors import HypervisorUnavailable
from lunport.core.portal import Portal
from lunport.host.clock import Deadline
from lunport.hypervisor.connection import LibvirtConnection

WAIT_S = 60.0
_LOOK_S = 0.05
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

    ``listen``: where other libvirts reach it, by plain TCP.
    """

    def __init__(
        self, uuid: str = "aaaaaaaa-0000-4000-8000-00000000000a", *, listen: Portal | None = None
    ) -> None:
        self._uuid = uuid
        self._listen = listen
        # Short: a socket's path has 108 bytes at most.
        self.folder = Path(tempfile.mkdtemp(prefix="lunport-libvirt-", dir="/tmp"))
        self._process: subprocess.Popen[bytes] | None = None
        self._init = 0

    @property
    def uri(self) -> str:
        """Where its guests are reached from the test's own namespace."""
        return f"qemu+unix:///system?socket={self.folder}/sock/libvirt-sock"

    @property
    def migration_uri(self) -> str:
        """Where other libvirts reach it."""
        assert self._listen is not None
        return f"qemu+tcp://{self._listen}/system"

    def __enter__(self) -> Self:
        (self.folder / "sock").mkdir()
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
            self._process = subprocess.Popen(
                ["unshare", *namespaces, "--fork", "bash", "-c", _INIT, "init", str(self.folder)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            self._wait((self.folder / "ready").exists, "init.log")
            outer = self._process.pid
            children = Path(f"/proc/{outer}/task/{outer}/children").read_text().split()
            self._init = int(children[0])
            self.start_daemon()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            # Its first process goes with it, and with that everything in the namespace.
            self._process.kill()
            self._process.wait(WAIT_S)
        shutil.rmtree(self.folder, ignore_errors=True)

    def start_daemon(self) -> None:
        """Start libvirtd and wait until it answers."""
        config = str(self.folder / "libvirtd.conf")
        listen = [] if self._listen is None else ["--listen"]
        argv = [
            "libvirtd",
            *listen,
            "--daemon",
            "--config",
            config,
            "--pid-file",
            "/run/libvirtd.pid",
        ]
        self._inside(*argv)
        self._wait(self._answers, "libvirtd.log")

    def kill_daemon(self) -> None:
        """Kill libvirtd; its guests live on."""
        pid = self._inside("cat", "/run/libvirtd.pid")
        self._inside("kill", "-KILL", pid)
        self._wait(lambda: not self._is_there(pid), "libvirtd.log")

    def hang_daemon(self) -> None:
        """Stop libvirtd in its tracks, as if it hung."""
        self._inside("kill", "-STOP", self._inside("cat", "/run/libvirtd.pid"))

    def wake_daemon(self) -> None:
        """Let libvirtd go on."""
        self._inside("kill", "-CONT", self._inside("cat", "/run/libvirtd.pid"))

    def kill_guest(self, name: str) -> None:
        """Kill a guest's process."""
        self._inside("kill", "-KILL", self._inside("cat", f"/run/libvirt/qemu/{name}.pid"))

    def _is_there(self, pid: str) -> bool:
        status = subprocess.run(self._entered("kill", "-0", pid), capture_output=True, check=False)
        return status.returncode == 0

    def _answers(self) -> bool:
        """Tell whether the daemon is past its start: only then does it talk."""
        connection = LibvirtConnection(self.uri)
        try:
            return bool(connection.call("waiting", lambda one: one.isAlive(), Deadline.after(10)))
        except HypervisorUnavailable:
            return False
        finally:
            connection.close(Deadline.after(10))

    def _inside(self, *argv: str) -> str:
        done = subprocess.run(self._entered(*argv), capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{argv}: {done.stderr}{self._log('libvirtd.log')}"
        return done.stdout.strip()

    def _entered(self, *argv: str) -> list[str]:
        return ["nsenter", "--all", "--target", str(self._init), "--", *argv]

    def _wait(self, is_so: Callable[[], bool], log: str) -> None:
        deadline = Deadline.after(WAIT_S)
        while not is_so():
            assert self._process is not None
            assert self._process.poll() is None, self._log(log)
            assert not deadline.has_passed(), self._log(log)
            _pause.wait(_LOOK_S)

    def _log(self, name: str) -> str:
        file = self.folder / name
        return file.read_text(errors="replace") if file.exists() else ""
