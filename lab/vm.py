"""Run a command as root in a throw-away machine that has this machine's files.

QEMU boots Debian's kernel. The guest's root is this machine's root, read-only (9p) under an
overlay in the guest's memory: every installed program and this checkout are there, and nothing
that the guest writes comes back, except what it leaves in ``/run/lab/out`` (:attr:`Run.out`).

A run succeeds only by an exit status that was written from inside after a word chosen for this
run; a panic, a crash, silence or the time limit raise. QEMU is ended by its own pid, and dies
with us. It has no network card. Programs: qemu-system-x86_64(1).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import secrets
import select
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from lab.accelerator import Accelerator, choose_accelerator
from lab.errors import GuestDied, LabCannot, TimeIsUp
from lab.initramfs import initramfs_for
from lab.kernels import lab_kernel
from lunport.host.linux_kernel import Kernel, unpacked_image

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / ".cache" / "lab"
QEMU = "qemu-system-x86_64"

_INIT = Path(__file__).resolve().parent / "guest" / "init"
_KERNEL_LINE = (
    "console=ttyS0 quiet loglevel=4 panic=-1 oops=panic mitigations=off nokaslr audit=0 "
    "tsc=reliable random.trust_cpu=on "
    # a processor that is stuck in the kernel for a minute and a half ends the guest
    "sysctl.kernel.panic_on_rcu_stall=1 sysctl.kernel.max_rcu_stall_to_panic=2"
)
# What the firmware says of the machine; without one, programs differ in what they make of that.
_SYSTEM_UUID = "6c756e70-6f72-7400-8000-6c6162000001"
_PASSED_IN = re.compile(r"(LUNPORT|BENCH)_\w+|TERM|COLUMNS")
_LAST_LINES = 60
_CRASH = re.compile(r"\bBUG\b|\bOops\b|general protection fault|rcu_preempt|Kernel panic")
_ENDING_S = 5.0


@dataclass(frozen=True, slots=True)
class Machine:
    """How large the guest is and how long it may live."""

    time_limit_s: float = 600.0
    memory_mib: int = 3072
    processors: int = 2
    kernel_words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Run:
    """One command: what runs in which folder, and where its files are wanted."""

    command: Sequence[str]
    folder: Path = field(default_factory=Path.cwd)
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    out: Path | None = None


def run(what: Run, machine: Machine = Machine(), output: BinaryIO | None = None) -> int:
    """Boot, run the command, pass its output on as it comes, and return its exit status.

    Raises: LabCannot, TimeIsUp, GuestDied.
    """
    kernel = lab_kernel()
    initramfs = initramfs_for(kernel, CACHE)
    accelerator = choose_accelerator(qemu(), kernel, CACHE)
    with tempfile.TemporaryDirectory(prefix="lunport-lab-") as name:
        shared = Path(name)
        token = secrets.token_hex(8)
        (shared / "out").mkdir()
        (shared / "token").write_text(f"{token}\n")
        (shared / "command").write_text(_script(what))
        argv = _argv(kernel, initramfs, accelerator, machine, shared)
        try:
            ended = _stream(argv, machine.time_limit_s, output or sys.stdout.buffer)
        finally:
            if what.out is not None:
                shutil.copytree(shared / "out", what.out, dirs_exist_ok=True)
        status = _status(shared / "status", token)
        if status is not None:
            return status
        console = _last_lines(shared / "console")
        if ended is None:
            raise TimeIsUp(
                f"the time limit of {machine.time_limit_s:g} s is over; the guest was ended"
                f"{console}"
            )
        raise GuestDied(f"the guest died before the command ended (QEMU: {ended}){console}")


def qemu() -> Path:
    """Find QEMU. Raises: LabCannot."""
    found = shutil.which(QEMU)
    if found is None:
        raise LabCannot(f"no {QEMU} (Debian: qemu-system-x86)")
    return Path(found)


def _script(what: Run) -> str:
    lines = [f"cd {shlex.quote(str(what.folder))} || exit 126"]
    if not sys.stdout.isatty():
        lines.append("export NO_COLOR=1 PY_COLORS=0")
    lines += [
        f"export {name}={shlex.quote(value)}"
        for name, value in sorted(what.environment.items())
        if _PASSED_IN.fullmatch(name)
    ]
    return "\n".join([*lines, f"exec {shlex.join(what.command)}", ""])


def _argv(
    kernel: Kernel, initramfs: Path, accelerator: Accelerator, machine: Machine, shared: Path
) -> list[str]:
    words = (_KERNEL_LINE, f"lab.init={_INIT}", *machine.kernel_words)
    options = f"""
        {accelerator.options} -smp {machine.processors} -m {machine.memory_mib}
        -M q35 -nodefaults -no-user-config -display none -no-reboot -uuid {_SYSTEM_UUID}
        -device virtio-serial-pci -device virtconsole,chardev=out -device virtio-rng-pci
        -device virtio-9p-pci,fsdev=root,mount_tag=root
        -device virtio-9p-pci,fsdev=run,mount_tag=run
    """.split()
    return [
        str(qemu()), *options,
        "-kernel", str(unpacked_image(kernel, CACHE)), "-initrd", str(initramfs),
        "-append", " ".join(words),
        "-serial", f"file:{shared / 'console'}",
        "-chardev", "stdio,id=out,signal=off",
        "-fsdev", "local,id=root,path=/,security_model=none,readonly=on,multidevs=remap",
        "-fsdev", f"local,id=run,path={shared},security_model=none",
    ]  # fmt: skip


def _stream(argv: Sequence[str], limit_s: float, output: BinaryIO) -> str | None:
    """Pass on what QEMU writes until it ends; say how it ended, or None if it had to be."""
    end = time.monotonic() + limit_s
    with _started(argv) as child:
        assert child.stdout is not None
        source = child.stdout.fileno()
        while (left := end - time.monotonic()) > 0:
            if not select.select([source], [], [], left)[0]:
                break
            piece = os.read(source, 1 << 16)
            if not piece:
                child.wait(timeout=max(0.1, end - time.monotonic()))
                return _how_it_ended(child.returncode)
            output.write(piece)
            output.flush()
    return None


@contextlib.contextmanager
def _started(argv: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Start QEMU through a pipe of its own: it makes what it writes to non-blocking."""
    child = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=die_with_parent,  # noqa: PLW1509  (we have no threads)
    )
    try:
        yield child
    finally:
        if child.poll() is None:
            child.kill()
        if child.stdout is not None:
            child.stdout.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=_ENDING_S)


def die_with_parent() -> None:
    """Have this process killed once its parent is gone: for a child's first moment."""
    ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _how_it_ended(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"


def _status(path: Path, token: str) -> int | None:
    # 5f0c1d2e3a4b5c6d 0
    try:
        said = path.read_text()
    except OSError:
        return None
    match = re.fullmatch(rf"{token} (\d{{1,3}})\n", said)
    return int(match[1]) if match else None


def _last_lines(console: Path) -> str:
    try:
        lines = console.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    # of a crash, its first report (what failed, and the call trace) says more than its end
    crash = next((n for n, line in enumerate(lines) if _CRASH.search(line)), None)
    start = max(0, len(lines) - _LAST_LINES) if crash is None else crash
    lines = lines[start : start + _LAST_LINES]
    return "".join(f"\n  console: {line.rstrip()}" for line in lines if line.strip())
