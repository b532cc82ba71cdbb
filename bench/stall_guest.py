"""The measurements of ``make bench-stall``; runs inside the lab, as root.

    python -m lab -- python -m bench.stall_guest --only reset --rounds 1

A map of two portals (LIO), eight threads that write; then the first portal falls silent, or
answers with resets, and stays so until everybody writes again; then it is healed. Every sample
is a line of ``samples.jsonl`` in the folder that the lab hands out.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.attach_counts import calibrate, settle
from bench.attach_guest import Guest, describe_machine, guest_on_san
from bench.attach_maps import active_paths, fresh_multipathd, wait_for_paths
from bench.attach_samples import DIRECT, OS_BRICK
from bench.attach_worker import Volume
from bench.stall_report import AGENT, DEFAULT, DROPPED, FAST, NEVER_S, RESET, STALL
from lab.faults import HasNetwork, portal_drops, portal_refuses
from lunport.client.agent import socket_path
from lunport.core.portal import Portal

THREADS = 8
PATHS = 2
BEFORE_S = 2.0
DURING_S = 10.0  # at least, so that a second stall is seen
AFTER_S = 2.0  # of everybody writing again
CAP_S = 90.0
CONNECT_S = 60.0
AGENT_S = 20.0
_LOOK_S = 0.1
_ANSWER_S = 10.0
_SESSIONS = Path("/sys/class/iscsi_session")
_CONNECTIONS = Path("/sys/class/iscsi_connection")

Fault = Callable[[HasNetwork, Portal], contextlib.AbstractContextManager[None]]
FAULTS: Mapping[str, Fault] = {DROPPED: portal_drops, RESET: portal_refuses}

_pause = threading.Event()


class Writers:
    """The threads that write, in a process of their own."""

    def __init__(self, device: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.stall_writers", device, str(THREADS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )

    def order(self, what: str) -> None:
        """Say something that has no answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{what}\n".encode())
        self._process.stdin.flush()

    def ask(self, what: str = "report") -> dict[str, Any]:
        """Ask for the account."""
        assert self._process.stdout is not None
        self.order(what)
        if not select.select([self._process.stdout], [], [], _ANSWER_S)[0]:
            raise TimeoutError("the writers do not answer")
        found: dict[str, Any] = json.loads(self._process.stdout.readline())
        return found

    def close(self) -> None:
        """End them; one in a write that never ends is left to the kernel."""
        self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_ANSWER_S)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


def measure(guest: Guest, fault: str, who: str, volume: Volume, portal: Portal) -> None:
    """Connect, write, break, heal, disconnect: one round of one."""
    name = OS_BRICK if who == OS_BRICK else DIRECT
    how = {"multipath": True, "ready": None, "stall": "fast" if who == FAST else "default"}
    guest.forget_dead_portals()
    with contextlib.ExitStack() as undo:
        undo.enter_context(fresh_multipathd())
        if who == AGENT:
            undo.enter_context(_agent())
        note = {"calib_ms": round(calibrate(), 1)}
        sample = guest.connect(fault, name, [volume], how=how, cap_s=CONNECT_S, note=note)
        if not sample["errors"]:
            device = sample["volumes"][0]["device"]
            if wait_for_paths([device], PATHS, CONNECT_S):
                guest.wait_for_background(name)
                settle()
                found = {"who": who, **_stall(guest, fault, device, portal)}
                guest.emit(found)
                back = (
                    "not back" if found["back_s"] is None else f"back after {found['back_s']:.1f} s"
                )
                print(
                    f"{fault}, {who}: stalled {found['s']:.2f} s, "
                    f"{found['io_errors']} I/O errors, path {back}",
                    flush=True,
                )
            else:
                guest.emit({"scenario": fault, "broken": f"{who}: {PATHS} paths did not come"})
        guest.disconnect(fault, name, [volume], how=how, cap_s=CAP_S)
        settle()


def _stall(guest: Guest, fault: str, device: str, portal: Portal) -> dict[str, Any]:
    settings = {"recovery": _recovery(), "ping": _ping()}
    writers = Writers(device)
    try:
        _pause.wait(BEFORE_S)
        before = writers.ask()
        writers.order("mark")
        with FAULTS[fault](guest.san, portal):
            is_late = not _moves_again(writers)
            left = active_paths(device)
        healed = time.monotonic()
        back_s = None
        while back_s is None and time.monotonic() < healed + NEVER_S:
            if active_paths(device) >= PATHS:
                back_s = time.monotonic() - healed
            _pause.wait(_LOOK_S)
        again = _recovery()
        after = writers.ask("stop")
    finally:
        writers.close()
    return {
        "scenario": fault,
        "what": STALL,
        "s": after["longest_s"],
        "before_s": before["longest_s"],
        "is_late": is_late,
        "io_errors": after["errors"],
        "io_error": after["error"],
        "writes": after["writes"],
        "back_s": back_s,
        "commands": {},
        "programs": None,
        "processes": None,
        "volumes": [],
        "errors": [f"the fault cost no path: {left} are in use"] if left >= PATHS else [],
        "recovery_again": again,
        **settings,
    }


def _moves_again(writers: Writers) -> bool:
    """Wait until nobody is stuck, for a while, and long enough; tell whether it came to that."""
    began = free_since = time.monotonic()
    while True:
        now = time.monotonic()
        if writers.ask()["stuck"]:
            free_since = now
        if now - began >= DURING_S and now - free_since >= AFTER_S:
            return True
        if now - began >= CAP_S:
            return False
        _pause.wait(_LOOK_S)


def _recovery() -> list[str]:
    return [place.read_text().strip() for place in sorted(_SESSIONS.glob("*/recovery_tmo"))]


def _ping() -> list[str]:
    """Return the pause between pings and the patience with each, of every connection."""
    return [
        f"{place.read_text().strip()}/{place.with_name('ping_tmo').read_text().strip()}"
        for place in sorted(_CONNECTIONS.glob("*/recv_tmo"))
    ]


@contextlib.contextmanager
def _agent() -> Iterator[None]:
    """Have the agent run."""
    program = Path(sys.executable).with_name("lunport")
    with (Path(os.environ["LAB_OUT"]) / "agent.log").open("ab") as log:
        process = subprocess.Popen([str(program), "agent"], stdout=log, stderr=log)
    try:
        end = time.monotonic() + AGENT_S
        while not socket_path().exists():
            if process.poll() is not None or time.monotonic() > end:
                raise TimeoutError("the agent does not run")
            _pause.wait(_LOOK_S)
        yield
    finally:
        process.terminate()
        try:
            process.wait(AGENT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(AGENT_S)


def main() -> int:
    """Measure what was asked for."""
    options = _parse_options()
    folder = Path(os.environ["LAB_OUT"])
    failed = False
    with (folder / "samples.jsonl").open("w") as samples, guest_on_san(options, samples) as guest:
        guest.emit({"scenario": "machine", **describe_machine()})
        with guest.targets("stall", portals=range(1, PATHS + 1)) as (target,):
            volume = guest.volume(target)
            for fault in options.only or FAULTS:
                for number in range(options.rounds):
                    for who in _in_turn(options.who, number):
                        failed |= not _run(guest, fault, who, volume, target.portals[0])
    return 1 if failed else 0


def _in_turn(who: Sequence[str], number: int) -> list[str]:
    shift = number % len(who)
    return [*who[shift:], *who[:shift]]


def _run(guest: Guest, fault: str, who: str, volume: Volume, portal: Portal) -> bool:
    try:
        measure(guest, fault, who, volume, portal)
    except Exception as error:  # the other rounds are still worth measuring
        guest.emit({"scenario": fault, "broken": f"{who}: {type(error).__name__}: {error}"})
        print(f"{fault}, {who}: broken by {type(error).__name__}: {error}", flush=True)
        return False
    return True


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.stall_guest")
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--who", nargs="+", default=[OS_BRICK, DEFAULT, FAST])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--os-brick-python", type=Path, default=Path(sys.executable))
    parser.set_defaults(without=[])
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
