"""The demo as a whole: a folder and a network of its own around the act, and nothing after.

Two processes: this one keeps the folder and watches; the other plays the act alone in its own
network, mounts and processes. However either of them ends, the kernel ends the rest; a folder
left by a run that was killed is removed by the next.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lunport.bootstrap.demo import story
from lunport.bootstrap.demo.leftovers import expect_none
from lunport.bootstrap.demo.needs import ADDRESSES, expect_guest_parts
from lunport.bootstrap.demo.telling import Line, Mark, Teller
from lunport.core.errors import HostLacks, LunportError, PromiseBroken
from lunport.host import iproute, nftables, qemu_img, tgtd
from lunport.host.clock import Deadline
from lunport.host.isolation import isolated
from lunport.host.runner import find_program
from lunport.host.scratch_folder import remove_abandoned, scratch_folder

FOLDER_PREFIX = "lunport-demo-"
_NEEDED_BYTES = 320 << 20  # three times the data, the reserve of the driver, and some
_MORE_BYTES = 192 << 20  # a kernel, unpacked, and what a guest writes
_LIMIT_S = 120.0
_MORE_S = 300.0
_COMPLAINT = "complaint"
_ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PROGRAMS = (tgtd, qemu_img, nftables, iproute)


@dataclass(frozen=True, slots=True)
class Ending:
    """How it went: an exit status, and why it is not 0."""

    status: int
    complaint: str | None = None


def perform(teller: Teller, *, is_quick: bool) -> Ending:
    """Play the demo and leave nothing. ``is_quick``: the first act alone.

    Raises: HostLacks (it cannot be played here).
    """
    _check_host()
    if not is_quick:
        expect_guest_parts()
    needed_bytes = _NEEDED_BYTES + (0 if is_quick else _MORE_BYTES)
    limit_s = _LIMIT_S + (0 if is_quick else _MORE_S)
    with _signals_as_descriptor() as (alarm, received):
        remove_abandoned(FOLDER_PREFIX)
        with scratch_folder(FOLDER_PREFIX, needed_bytes) as folder:
            with isolated(partial(_act, folder, teller, is_quick=is_quick)) as process:
                status = process.wait(Deadline.after(limit_s), also=alarm)
                process.kill()
                survivors = process.survivors()
            complaint = _read_complaint(folder)
        expect_none("processes", survivors)
        _expect_gone(folder)
    if received:
        return Ending(128 + received[0], f"stopped by {received[0].name}; nothing is left")
    if status is None:
        return Ending(1, f"not done within {limit_s:.0f} s")
    if status != 0:
        return Ending(1, complaint or f"its inner process ended with status {status}")
    said = "removed; namespace, and all that was in it, gone"
    teller.add([Line("folder", said, Mark.GOOD)])
    return Ending(0)


def _act(folder: Path, teller: Teller, *, is_quick: bool) -> int:
    try:
        story.prepare_network(folder, ADDRESSES)
        story.play(folder, teller)
        if not is_quick:
            _second_act(folder, teller)
        sys.stdout.flush()
    except LunportError as error:
        (folder / _COMPLAINT).write_text(str(error))
        return 1
    except (BrokenPipeError, SystemExit):
        (folder / _COMPLAINT).write_text("nobody reads any more what it tells")
        return 1
    except OSError as error:
        (folder / _COMPLAINT).write_text(f"the system refuses: {error}")
        return 1
    return 0


def _second_act(folder: Path, teller: Teller) -> None:
    from lunport.bootstrap.demo import moving  # noqa: PLC0415 - it needs libvirt's binding

    moving.play(folder, story.PORTALS, teller)


def _check_host() -> None:
    missing = [module for module in _PROGRAMS if find_program(module.PROGRAM) is None]
    if missing:
        raise HostLacks(
            "Programs are missing",
            ", ".join(module.PROGRAM for module in missing),
            f"apt-get install {' '.join(module.PACKAGE for module in missing)}",
        )
    if os.geteuid() != 0:
        raise HostLacks(
            "The demo makes a network of its own", "only root may", "run it as root: sudo make demo"
        )


def _read_complaint(folder: Path) -> str | None:
    with contextlib.suppress(OSError):
        return (folder / _COMPLAINT).read_text()
    return None


def _expect_gone(folder: Path) -> None:
    if folder.exists():
        raise PromiseBroken("Nothing is left", f"{folder} cannot be removed")
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    expect_none("mounts", [line for line in mounts if str(folder) in line])


@contextlib.contextmanager
def _signals_as_descriptor() -> Iterator[tuple[int, list[signal.Signals]]]:
    """Collect signals that end programs; the descriptor can be read once there is one."""
    received: list[signal.Signals] = []
    alarm, woken = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    # A signal that our starter ignores (nohup, a job in the background) stays ignored.
    taken = [one for one in _ENDING_SIGNALS if signal.getsignal(one) is not signal.SIG_IGN]
    before = {one: signal.getsignal(one) for one in taken}
    child_before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # or nobody could wait
    for one in taken:
        signal.signal(one, lambda number, _: received.append(signal.Signals(number)))
    wakeup_before = signal.set_wakeup_fd(woken)
    try:
        yield alarm, received
    finally:
        signal.set_wakeup_fd(wakeup_before)
        for one, handler in before.items():
            signal.signal(one, handler)
        signal.signal(signal.SIGCHLD, child_before)
        os.close(alarm)
        os.close(woken)
