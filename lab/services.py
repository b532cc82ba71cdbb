"""Kernel modules and daemons: what this machine needs to be an initiator of the lab's SAN.

What runs already is used and left alone; what is started here is ended at the end, by its pid.
Runs on the machine itself only where somebody asked for that (``--here``); else in the guest.
modprobe(8), systemd-udevd(8), iscsid(8).
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from lab.errors import LabCannot
from lunport.core.errors import MultipathDown
from lunport.host import multipathd as multipathd_socket
from lunport.host.clock import Deadline
from lunport.host.runner import run

MODULES = (
    "iscsi_tcp", "sd_mod", "sg", "dm_mod", "dm_multipath", "scsi_dh_alua", "veth", "loop",
    "target_core_mod", "target_core_file", "target_core_iblock", "iscsi_target_mod",
    "nf_tables", "nft_chain_nat", "nft_ct", "nft_reject_inet",
)  # fmt: skip
PROGRAMS = {
    "iscsid": "open-iscsi", "iscsiadm": "open-iscsi", "udevadm": "udev", "modprobe": "kmod",
    "nft": "nftables", "ip": "iproute2", "losetup": "mount", "tgtd": "tgt",
}  # fmt: skip
INITIATOR_FILE = Path("/etc/iscsi/initiatorname.iscsi")
GUEST_INITIATOR = "iqn.2026-11.io.lunport.lab:host"

_UDEVD = ("/lib/systemd/systemd-udevd", "/usr/lib/systemd/systemd-udevd")
_ISCSID = ("iscsid", "-f")
_MULTIPATH_CONF = Path("/etc/multipath.conf")
_MULTIPATH_FOLDER = Path("/etc/multipath")
_MULTIPATHD_SOCKET = "@/org/kernel/linux/storage/multipathd"
_CONFIGFS = Path("/sys/kernel/config")
_STEP_S = 180.0
_LOOK_S = 0.02

_pause = threading.Event()


def is_guest() -> bool:
    """Tell whether we are in the throw-away machine."""
    return os.environ.get("LAB_HERE") == "guest"


def wait_until(
    condition: Callable[[], object], what: str, limit_s: float = _STEP_S, look_s: float = _LOOK_S
) -> None:
    """Look every ``look_s`` until something holds. Raises: LabCannot at the limit."""
    deadline = Deadline.after(limit_s)
    while not condition():
        if deadline.has_passed():
            raise LabCannot(f"waited {limit_s:g} s for {what}")
        _pause.wait(look_s)


def what_is_missing() -> list[str]:
    """List what this machine lacks to run the lab's tests itself; loads no module."""
    missing = [] if os.geteuid() == 0 else ["root"]
    missing += [
        f"{program} (Debian: {package})"
        for program, package in PROGRAMS.items()
        if shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is None
    ]
    absent = [name for name in MODULES if not _has_module(name)]
    if absent:
        missing.append(f"in kernel {os.uname().release}: {', '.join(absent)}")
    if not missing:
        shown = run(["ip", "-oneline", "address"], _soon()).stdout
        taken = sorted(set(re.findall(r"inet6? ((?:10\.0\.[1-8]\.|fd00:[1-8]::)\S+)", shown)))
        missing += [f"addresses for the SAN: {', '.join(taken)} is in use"] if taken else []
    return missing


def load_modules(names: Sequence[str] = MODULES) -> None:
    """Load kernel modules and mount configfs."""
    run(["modprobe", "-a", *names], Deadline.after(_STEP_S), package="kmod")
    if not (_CONFIGFS / "target").exists():
        run(["mount", "-t", "configfs", "configfs", str(_CONFIGFS)], Deadline.after(_STEP_S))


@contextlib.contextmanager
def udevd() -> Iterator[None]:
    """Have udev's daemon run, with all present devices known to it."""
    if Path("/run/udev/control").exists():
        yield
        return
    program = next((path for path in _UDEVD if Path(path).exists()), None)
    if program is None:
        raise LabCannot("no systemd-udevd (Debian: udev)")
    with _daemon([program]):
        wait_until(Path("/run/udev/control").exists, "udevd's socket")
        run(["udevadm", "trigger", "--action=add", "--subsystem-match=block"], _soon())
        run(["udevadm", "settle", "--timeout=20"], _soon())
        yield
        run(["udevadm", "settle", "--timeout=20"], _soon())


@contextlib.contextmanager
def iscsid() -> Iterator[str]:
    """Have iscsid run; give this machine's initiator name."""
    if is_guest():
        for known in ("/etc/iscsi/nodes", "/etc/iscsi/send_targets", "/var/lib/iscsi"):
            shutil.rmtree(known, ignore_errors=True)
        INITIATOR_FILE.write_text(f"InitiatorName={GUEST_INITIATOR}\n")
    name = _initiator_name()
    if _iscsid_answers():
        yield name
        return
    Path("/run/lock/iscsi").mkdir(parents=True, exist_ok=True)
    with _daemon(_ISCSID):
        wait_until(_iscsid_answers, "iscsid's socket")
        yield name


@contextlib.contextmanager
def without_iscsid(*, is_killed: bool = False) -> Iterator[None]:
    """Have the lab's iscsid not run for a while; sessions stay. Raises: LabCannot.

    ``is_killed``: it ends by SIGKILL.
    """
    running = _running.get(_ISCSID[0])
    if running is None:
        raise LabCannot("iscsid is this machine's own, and is left alone")
    end = running.kill if is_killed else running.stop
    end()
    wait_until(lambda: not _iscsid_answers(), "the end of iscsid")
    try:
        yield
    finally:
        running.start()
        wait_until(_iscsid_answers, "iscsid's socket")


class Multipathd:
    """The lab's multipathd, to be ended and started again in the course of a test."""

    def __init__(self) -> None:
        self._daemon = _Daemon(("multipathd", "-d", "-s"))

    @property
    def pid(self) -> int | None:
        """Its process; None while it does not run."""
        return self._daemon.pid

    def start(self) -> None:
        """Start it, and wait until it has looked at all disks. Idempotent."""
        if self._daemon.pid is None:
            self._daemon.start()
            wait_until(lambda: _has_socket(_MULTIPATHD_SOCKET), "multipathd's socket")
            wait_until(_multipathd_is_idle, "multipathd's first look at all disks")

    def stop(self) -> None:
        """End it as an operator does; maps stay. Idempotent."""
        self._daemon.stop()
        wait_until(lambda: not _has_socket(_MULTIPATHD_SOCKET), "the end of multipathd")

    def kill(self) -> None:
        """End it by SIGKILL; maps stay. Idempotent."""
        self._daemon.kill()
        wait_until(lambda: not _has_socket(_MULTIPATHD_SOCKET), "the end of multipathd")

    def restart(self) -> None:
        """End it and start it, which reads its configuration."""
        self.stop()
        self.start()


@contextlib.contextmanager
def multipathd(
    find_multipaths: str = "no", user_friendly_names: str = "no", extra: str = ""
) -> Iterator[Multipathd]:
    """Have multipathd run, by default making a map of every disk; ``extra``: more sections.

    It knows no identity and no name from before. Raises: LabCannot where one runs.
    """
    if _MULTIPATH_CONF.exists() or _has_socket(_MULTIPATHD_SOCKET):
        raise LabCannot("multipathd is this machine's own, and is left alone")
    _MULTIPATH_CONF.write_text(
        "defaults {\n"
        f" find_multipaths {find_multipaths}\n"
        f" user_friendly_names {user_friendly_names}\n"
        f"}}\n{extra}"
    )
    made = Multipathd()
    try:
        made.start()
        yield made
    finally:
        made.stop()
        _MULTIPATH_CONF.unlink()
        if is_guest():
            shutil.rmtree(_MULTIPATH_FOLDER, ignore_errors=True)


def _multipathd_is_idle() -> bool:
    try:
        shown = multipathd_socket.Multipathd().ask("show daemon", _soon())  # pid 812 configure
    except MultipathDown:  # it has its socket, and listens in a moment
        return False
    return shown.endswith(("idle", "running"))


def _initiator_name() -> str:
    for line in INITIATOR_FILE.read_text().splitlines():
        if line.startswith("InitiatorName="):
            return line.partition("=")[2].strip()
    raise LabCannot(f"{INITIATOR_FILE} names no initiator")


def _iscsid_answers() -> bool:
    return _has_socket("@ISCSIADM_ABSTRACT_NAMESPACE")


def _has_socket(name: str) -> bool:
    return name in Path("/proc/net/unix").read_text()


class _Daemon:
    """A program of ours that runs until it is stopped, and may be started again."""

    def __init__(self, argv: Sequence[str]) -> None:
        self._argv = argv
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Its process; None while it does not run."""
        return None if self._child is None or self._child.poll() is not None else self._child.pid

    def start(self) -> None:
        """Start it; what it says goes to a file below /run."""
        log = Path("/run") / f"lab-{Path(self._argv[0]).name}.log"
        with log.open("ab") as output:
            self._child = subprocess.Popen(
                self._argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def stop(self) -> None:
        """End it. Idempotent."""
        child, self._child = self._child, None
        if child is None:
            return
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(5)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait(5)

    def kill(self) -> None:
        """End it by SIGKILL. Idempotent."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.wait(5)


_running: dict[str, _Daemon] = {}


@contextlib.contextmanager
def _daemon(argv: Sequence[str]) -> Iterator[None]:
    daemon = _running[argv[0]] = _Daemon(argv)
    try:
        daemon.start()
        yield
    finally:
        daemon.stop()
        del _running[argv[0]]


def _has_module(name: str) -> bool:
    loaded = Path("/sys/module") / name
    folder = Path("/lib/modules") / os.uname().release
    index = [folder / "modules.dep", folder / "modules.builtin"]
    text = "".join(path.read_text() for path in index if path.exists()).replace("-", "_")
    return loaded.exists() or f"/{name}.ko" in text


def _soon() -> Deadline:
    return Deadline.after(_STEP_S)
