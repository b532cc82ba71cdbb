"""``lunport demo``, run as a person runs it: from a shell, on a terminal, and killed at will.

Each run gets a folder of its own for temporary files. What must not change is looked at from
outside: processes in the run's network namespace, mounts, rules and addresses.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import select
import shutil
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import lunport
from lunport.bootstrap.demo.watched import run_watched
from lunport.core.errors import PromiseBroken
from lunport.core.secret import Secret
from lunport.host.clock import Deadline
from lunport.host.runner import run as run_program

pytestmark = pytest.mark.needs("root", "tgtd", "nft", "ip", "qemu-img", "unshare", "setsid")

guests = pytest.mark.needs("libvirtd", "qemu-system-x86_64", "gcc", "busybox", "iscsiadm")

WHOLE = [sys.executable, "-c", "from lunport.cli.main import main; main()", "demo"]
DEMO = [*WHOLE, "--quick"]
OK = re.compile(r"demo: ok in \d+\.\d s")
ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
LIMIT_S = 60
WHOLE_S = 150
SEED = 20261
KILLS = 8


@dataclass
class Run:
    """One run of the demo, and its network namespace held open so that it can be recognised."""

    process: subprocess.Popen[bytes]
    output: Path
    folder: Path
    inner: int | None = None
    networks: list[int] = field(default_factory=list)

    def find_inner(self) -> int | None:
        """Find the process that plays the act, if it is there."""
        pid = self.process.pid
        with contextlib.suppress(OSError):
            for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
                network = os.open(f"/proc/{child}/ns/net", os.O_RDONLY)
                if os.path.samestat(os.fstat(network), Path("/proc/self/ns/net").stat()):
                    os.close(network)
                    continue
                self.networks.append(network)
                self.inner = int(child)
        return self.inner

    def inhabitants(self) -> list[str]:
        """List the processes that live in its networks."""
        ours = [os.fstat(network) for network in self.networks]
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                there = (entry / "ns/net").stat()
                if any(os.path.samestat(there, one) for one in ours):
                    found.append(f"{entry.name} {(entry / 'comm').read_text().strip()}")
        return found

    def is_deserted(self) -> bool:
        """Tell whether nobody lives there any more."""
        return not self.inhabitants()

    def text(self) -> str:
        """Return what it has said so far."""
        return self.output.read_text()

    def finish(self, limit_s: float = LIMIT_S) -> int:
        """Wait for its end and return its status."""
        return self.process.wait(limit_s)

    def close(self) -> None:
        """End it, if it runs still."""
        self.process.kill()
        self.process.wait(LIMIT_S)
        for network in self.networks:
            os.close(network)


def environment(folder: Path, **extra: str) -> dict[str, str]:
    """Make the environment of a run: nothing of the tester's taste in colours."""
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "TERM")}
    source = str(Path(lunport.__file__).parents[1])
    return {**kept, "TMPDIR": str(folder), "PYTHONPATH": source, "TERM": "xterm", **extra}


@contextlib.contextmanager
def running(
    tmp_path: Path,
    name: str = "run",
    around: Sequence[str] = (),
    command: Sequence[str] = tuple(DEMO),
) -> Iterator[Run]:
    """Start the demo with its output in a file."""
    folder, output = tmp_path / "temporary", tmp_path / f"{name}.out"
    folder.mkdir(exist_ok=True)
    with output.open("wb") as stream:
        process = subprocess.Popen(
            [*around, *command],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            env=environment(folder),
            start_new_session=True,
        )
    run = Run(process, output, folder)
    try:
        yield run
    finally:
        run.close()


def wait_until(check: Callable[[], object], seconds: float = 10.0) -> bool:
    """Ask again and again; tell whether it became true in time."""
    pause, end = threading.Event(), time.monotonic() + seconds
    while not check():
        if time.monotonic() > end:
            return False
        pause.wait(0.005)
    return True


def marks_of_demo(folder: Path) -> tuple[list[str], list[str], list[str]]:
    """Return what a demo could leave in this namespace: mounts, rules, addresses."""
    mountinfo = Path("/proc/self/mountinfo").read_text()
    points = [line.split()[4] for line in mountinfo.splitlines()]
    mounts = [point for point in points if point == "/proc" or point.startswith(str(folder))]
    rules = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True)
    addresses = subprocess.run(["ip", "-o", "addr"], capture_output=True, text=True, check=True)
    return (
        mounts,
        [line for line in rules.stdout.splitlines() if "lunport" in line],
        re.findall(r"10\.0\.[123]\.2/32", addresses.stdout),
    )


@pytest.fixture(autouse=True)
def _same_machine(tmp_path: Path) -> Iterator[None]:
    yield
    assert marks_of_demo(tmp_path) == (["/proc"], [], [])


def test_demo_twice_in_a_row(tmp_path: Path) -> None:
    """Two runs, one after the other, end with success, and nothing stays on the disk."""
    for name in ("first", "second"):
        with running(tmp_path, name) as run:
            assert run.finish() == 0, run.text()
            lines = run.text().splitlines()
            assert OK.fullmatch(lines[-1])
            assert "64 MiB, the same to the last byte" in run.text()
            assert not ANSI.search(run.text())
            assert max(map(len, lines)) <= 80
            assert list(run.folder.iterdir()) == []


@guests
def test_both_acts(tmp_path: Path) -> None:
    """A guest of libvirt moves to a host with another target; its log is whole, nothing is left."""
    with running(tmp_path, command=WHOLE) as run:
        assert run.finish(WHOLE_S) == 0, run.text()
        text = run.text()
        assert OK.fullmatch(text.splitlines()[-1])
        assert max(map(len, text.splitlines())) <= 80
        targets = set(re.findall(r"host-[0-9a-f]{32}", text))
        assert len(targets) == 2, text
        assert "none lost" in text
        assert list(run.folder.iterdir()) == []


def test_demo_names_every_portals_fate(tmp_path: Path) -> None:
    """The main portal is silent, the second refuses, the third is used; then the second is."""
    with running(tmp_path) as run:
        assert run.finish() == 0, run.text()
    portals = re.findall(r"^ {4}. 10\.0\.(\d)\.2:3260 +(.*)", run.text(), re.MULTILINE)
    fates = [f"{number} {words.split()[0].rstrip(':,')}" for number, words in portals]
    start = fates.index("1 no")
    assert fates[start : start + 3] == ["1 no", "2 refused", "3 chosen"]
    assert fates[-3:] == ["1 no", "2 chosen", "3 no"]


def test_two_demos_at_once(tmp_path: Path) -> None:
    """Two runs beside each other, with the same addresses and ports, both succeed."""
    with running(tmp_path, "one") as one, running(tmp_path, "two") as two:
        assert (one.finish(), two.finish()) == (0, 0), one.text() + two.text()
        assert list(one.folder.iterdir()) == []


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_demo_stopped_by_a_signal_leaves_nothing(tmp_path: Path, signum: signal.Signals) -> None:
    """A stopped run says so in one line, has the signal's status, and leaves no folder."""
    with running(tmp_path) as run:
        assert wait_until(lambda: "A volume is created" in run.text())
        assert run.find_inner() is not None
        assert run.inhabitants()
        os.killpg(run.process.pid, signum)
        assert run.finish() == 128 + signum
        assert run.inhabitants() == []
        assert run.text().splitlines()[-1] == f"demo: stopped by {signum.name}; nothing is left"
        assert "Traceback" not in run.text()
        assert list(run.folder.iterdir()) == []


def test_demo_whose_inner_process_dies_leaves_nothing(tmp_path: Path) -> None:
    """When the process in the namespaces is killed, the outer one cleans up and fails."""
    with running(tmp_path) as run:
        assert wait_until(lambda: "A volume is created" in run.text())
        inner = run.find_inner()
        assert inner is not None
        os.kill(inner, signal.SIGKILL)
        assert run.finish() == 1
        assert run.inhabitants() == []
        assert run.text().splitlines()[-1] == "demo: its inner process ended with status 137"
        assert list(run.folder.iterdir()) == []


def test_demo_killed_at_random_moments(tmp_path: Path) -> None:
    """Whatever is killed, and when: no process survives, and the next run is clean."""
    moments = random.Random(SEED)
    for number in range(KILLS):
        with running(tmp_path, f"killed-{number}") as run:
            wait_until(run.find_inner, 3.0)
            victim = run.inner if number % 2 and run.inner else run.process.pid
            with contextlib.suppress(subprocess.TimeoutExpired):
                run.process.wait(moments.uniform(0.0, 3.5))
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
            run.finish()
            assert wait_until(run.is_deserted), run.inhabitants()
            assert "Traceback" not in run.text()
    with running(tmp_path, "clean") as run:
        assert run.finish() == 0, run.text()
        assert list(run.folder.iterdir()) == []


def on_terminal(tmp_path: Path, **extra: str) -> tuple[subprocess.Popen[bytes], int, Path]:
    """Start the demo on a terminal of 80 columns; return it, and the terminal's other side."""
    folder = tmp_path / "temporary"
    folder.mkdir(exist_ok=True)
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    process = subprocess.Popen(
        ["setsid", "--ctty", *DEMO],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment(folder, **extra),
    )
    os.close(theirs)
    return process, ours, folder


def read_terminal(terminal: int, until: str | None = None) -> str:
    """Read what a terminal shows, to its end or to a text."""
    shown, end = b"", time.monotonic() + LIMIT_S
    while time.monotonic() < end and (until is None or until.encode() not in shown):
        select.select([terminal], [], [], end - time.monotonic())
        try:
            more = os.read(terminal, 65536)
        except OSError:  # EIO: nobody has it open any more
            break
        if not more:
            break
        shown += more
    return shown.decode()


def test_demo_on_a_terminal(tmp_path: Path) -> None:
    """A terminal gets colours, and no line of it is longer than its 80 columns."""
    process, terminal, folder = on_terminal(tmp_path)
    shown = read_terminal(terminal)
    os.close(terminal)
    assert process.wait(LIMIT_S) == 0, shown
    assert "\x1b[32m" in shown
    plain = ANSI.sub("", shown)
    assert max(map(len, re.split(r"[\r\n]+", plain))) <= 80
    assert OK.fullmatch(plain.splitlines()[-1])
    assert list(folder.iterdir()) == []


def test_demo_honours_no_color(tmp_path: Path) -> None:
    """With NO_COLOR set a terminal gets no colours."""
    process, terminal, _ = on_terminal(tmp_path, NO_COLOR="1")
    shown = read_terminal(terminal)
    os.close(terminal)
    assert process.wait(LIMIT_S) == 0, shown
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", shown)


def test_demo_whose_terminal_is_closed_leaves_nothing(tmp_path: Path) -> None:
    """Closing the terminal ends all of it, and the folder is removed."""
    process, terminal, folder = on_terminal(tmp_path)
    read_terminal(terminal, "A volume is created")
    run = Run(process, tmp_path / "none", folder)
    try:
        assert run.find_inner() is not None
        os.close(terminal)
        assert process.wait(LIMIT_S) != 0
        assert run.inhabitants() == []
        assert list(folder.iterdir()) == []
    finally:
        run.close()


def test_demo_into_a_closed_pipe(tmp_path: Path) -> None:
    """A reader that stops reading ends the demo without a traceback."""
    words = ["bash", "-c", '"$@" 2>err | head -1; exit ${PIPESTATUS[0]}', "bash", *DEMO]
    done = subprocess.run(
        words,
        env=environment(tmp_path),
        cwd=tmp_path,
        timeout=LIMIT_S,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1
    assert (tmp_path / "err").read_text() == "demo: nobody reads any more what it tells\n"
    assert [path.name for path in tmp_path.iterdir()] == ["err"]


HIDE = 'mount --bind /dev/null "$(readlink -f "$0")" && exec "$@"'


def hidden(path: str) -> list[str]:
    """Return what goes before a command so that a file is not there for it."""
    return ["unshare", "--mount", "bash", "-c", HIDE, path]


def refused(tmp_path: Path, around: Sequence[str], command: Sequence[str] = tuple(DEMO)) -> str:
    """Run a demo that cannot be played; return the one line it says."""
    with running(tmp_path, around=around, command=command) as run:
        assert run.finish() != 0
        assert list(run.folder.iterdir()) == []
        lines = run.text().splitlines()
    assert len(lines) == 1, run.text()
    return lines[0]


def test_demo_without_root(tmp_path: Path) -> None:
    """Somebody who is not root is told to be, in one line."""
    line = refused(tmp_path, ["unshare", "--user", "--map-user=1000"])
    assert "sudo make demo" in line


def test_demo_where_namespaces_are_forbidden(tmp_path: Path) -> None:
    """A root without the right to isolate gets one line that says what is missing."""
    line = refused(tmp_path, ["setpriv", "--bounding-set", "-sys_admin"])
    assert "cannot isolate a process" in line
    assert "Operation not permitted" in line


def test_demo_without_nftables_in_the_kernel(tmp_path: Path) -> None:
    """A kernel that cannot filter packets is named, in one line."""
    fake = tmp_path / "bin" / "nft"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\necho 'netlink: Error: Protocol not supported' >&2\nexit 1\n")
    fake.chmod(0o755)
    path = f"PATH={fake.parent}:{os.environ['PATH']}"
    line = refused(tmp_path, ["env", path])
    assert "Protocol not supported" in line
    assert "nf_tables" in line


@pytest.mark.parametrize(
    "program,package",
    [("tgtd", "tgt"), ("qemu-img", "qemu-utils"), ("nft", "nftables"), ("ip", "iproute2")],
)
def test_demo_without_a_program(tmp_path: Path, program: str, package: str) -> None:
    """A program that is not installed is named with the package that brings it."""
    found = subprocess.run(
        ["bash", "-c", f"PATH=$PATH:/usr/sbin:/sbin command -v {program}"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    line = refused(tmp_path, hidden(found.stdout.strip()))
    assert program in line
    assert f"apt-get install {package}" in line


@pytest.mark.parametrize("program", ["libvirtd", "qemu-system-x86_64"])
def test_whole_demo_without_a_guest_s_programs(tmp_path: Path, program: str) -> None:
    """Without libvirt or QEMU the packages are named at once, and the way without them."""
    found = shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    assert found is not None
    line = refused(tmp_path, hidden(found), WHOLE)
    assert f"What a guest needs is missing ({program})" in line
    assert "make demo-quick" in line


def test_demo_without_qemus_initiator(tmp_path: Path) -> None:
    """A QEMU without its iSCSI module is named with the package that brings it."""
    [module] = Path("/usr/lib").glob("*/qemu/block-iscsi.so")
    assert "apt-get install qemu-block-extra" in refused(tmp_path, hidden(str(module)))


CORRUPT = """
/usr/bin/qemu-img "$@" || exit
[[ $* == *"-O raw"* ]] && printf X | dd of="${@: -1}" bs=1 seek=40000000 conv=notrunc status=none
exit 0
"""
LINGER = """
setsid sleep 300 </dev/null >/dev/null 2>&1 &
exec /usr/bin/qemu-img "$@"
"""


@pytest.mark.parametrize(
    "script,complaint",
    [
        (CORRUPT, "demo: What was written is read does not hold: 67108864 bytes, "),
        (LINGER, "demo: Nothing is left does not hold: 3 processes: sleep "),
    ],
    ids=["one byte differs", "a process lingers"],
)
def test_demo_fails_when_its_promise_is_broken(tmp_path: Path, script: str, complaint: str) -> None:
    """Data that differ in one byte, or a process that stays, fail the demo."""
    fake = tmp_path / "bin" / "qemu-img"
    fake.parent.mkdir()
    fake.write_text(f"#!/bin/bash\n{script}")
    fake.chmod(0o755)
    with running(tmp_path, around=["env", f"PATH={fake.parent}:{os.environ['PATH']}"]) as run:
        assert run.finish() == 1
        assert run.text().splitlines()[-1].startswith(complaint), run.text()
        assert list(run.folder.iterdir()) == []


def test_secret_in_an_argv_is_seen() -> None:
    """A program that shows the secret in its arguments is found while it runs."""
    words = ["bash", "-c", "sleep 0.3; true", "bash", "a-secret-4-the-test"]
    with pytest.raises(PromiseBroken, match="bash shows it"):
        run_watched(lambda: run_program(words, Deadline.after(10)), Secret(words[-1]))
