"""The measurements of ``make bench-attach``; runs inside the lab, as root.

    python -m lab -- python -m bench.attach_guest --only healthy --rounds 3

Every sample is a line of ``samples.jsonl`` in the folder that the lab hands out. Implementations
take turns, round by round, on one SAN (LIO), each in a process of its own that lives as long as
the run; what the first one of a round is changes from round to round.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import mmap
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from bench import attach_scenarios
from bench.attach_client import Client, TooLate
from bench.attach_counts import ProcessCounter, calibrate, leftovers, settle
from bench.attach_floor import Floor
from bench.attach_worker import Volume
from lab import services
from lab.lio import Target
from lab.network import SanNetwork, san_network
from lab.san import San
from lunport.host.dead_portals import DeadPortals

BLOCK = 4096
PORTALS = 4
FLOOR = "floor"


class Guest:
    """The SAN, the implementations, and where samples go."""

    def __init__(self, san: San, options: argparse.Namespace, samples: TextIO) -> None:
        self.san = san
        self.rounds: int | None = options.rounds
        self.without = frozenset(options.without)
        self._os_brick_python: Path = options.os_brick_python
        self._samples = samples
        self._counter = ProcessCounter()
        self._clients: dict[str, Client] = {}
        self._floor = Floor()
        self._held: list[Mapping[str, Any]] | None = None

    # -- what scenarios use --------------------------------------------------------------

    def names(self, *wanted: str) -> list[str]:
        """Return those of the names that this run is not without."""
        return [name for name in wanted if name not in self.without]

    def in_turn(self, number: int, *wanted: str) -> list[str]:
        """Return the names in the order of this round."""
        names = self.names(*wanted)
        shift = number % len(names) if names else 0
        return names[shift:] + names[:shift]

    def target(self, name: str, portals: Sequence[int] = (), luns: int = 1) -> Target:
        """Make a target on these portals (from 1; none: all) with LUNs from 1."""
        made = self.san.target(name, portals=[self.san.portals[number - 1] for number in portals])
        for lun in range(1, luns + 1):
            self.san.add_lun(made, lun, size_mib=16)
        return made

    def volume(self, target: Target, lun: int = 1) -> Volume:
        """Describe one LUN as a volume service does, identity included."""
        portals = [str(portal) for portal in target.portals]
        data: Volume = {
            "target_discovered": False,
            "access_mode": "rw",
            "encrypted": False,
            "discard": False,
            "qos_specs": None,
            "target_portal": portals[0],
            "target_iqn": target.iqn,
            "target_lun": lun,
            "wwid": target.luns[lun].wwid,
        }
        if len(portals) > 1:
            data |= {
                "target_portals": portals,
                "target_iqns": [target.iqn] * len(portals),
                "target_luns": [lun] * len(portals),
            }
        return data

    def forget_dead_portals(self) -> None:
        """Clear the host's memory of dead portals."""
        shutil.rmtree(DeadPortals().directory, ignore_errors=True)

    def attach(
        self,
        scenario: str,
        name: str,
        volumes: Sequence[Volume],
        *,
        threads: int = 1,
        cap_s: float = 60.0,
        note: Mapping[str, Any] | None = None,
        look: bool = True,
    ) -> None:
        """Connect, read, and disconnect; ``look``: nothing may be left then."""
        more = {"calib_ms": round(calibrate(), 1), **(note or {})}
        self.connect(scenario, name, volumes, threads=threads, cap_s=cap_s, note=more)
        settle()
        self.disconnect(scenario, name, volumes, threads=threads, cap_s=cap_s, note=more, look=look)
        settle()

    def connect(self, scenario: str, name: str, volumes: Sequence[Volume], **how: Any) -> None:
        """Connect the volumes and read from each."""
        sample = self._measure(scenario, name, "connect", volumes, **how)
        for one in sample["volumes"]:
            if "error" not in one:
                one["error"] = _read_error(one["device"])
        errors = [one["error"] for one in sample["volumes"] if one.get("error")]
        devices = {one.get("device") for one in sample["volumes"]}
        if not errors and len(devices) != len(volumes):
            errors.append(f"{len(devices)} devices for {len(volumes)} volumes")
        self.emit({**sample, "errors": errors})

    def disconnect(
        self,
        scenario: str,
        name: str,
        volumes: Sequence[Volume],
        *,
        look: bool = True,
        **how: Any,
    ) -> None:
        """Disconnect the volumes; ``look``: nothing may be left then."""
        sample = self._measure(scenario, name, "disconnect", volumes, **how)
        errors = [one["error"] for one in sample["volumes"] if one.get("error")]
        self.emit({**sample, "errors": errors, "left": leftovers() if look else []})

    def client(self, name: str, kind: str = "") -> Client:
        """Return the process of an implementation, started when it is first needed."""
        if name not in self._clients:
            kind = kind or name
            python = self._os_brick_python if kind == "os-brick" else Path(sys.executable)
            client = Client(python, kind, before=self._counter.watch)
            self._clients[name] = client
            self.emit({"scenario": "start", "who": name, "version": client.version})
        return self._clients[name]

    def drop_client(self, name: str) -> None:
        """End an implementation's process, whatever it does."""
        client = self._clients.pop(name, None)
        if client is not None:
            client.kill()

    @contextlib.contextmanager
    def held(self) -> Iterator[list[Mapping[str, Any]]]:
        """Collect samples for whoever decides whether they count, instead of noting them."""
        held: list[Mapping[str, Any]] = []
        self._held = held
        try:
            yield held
        finally:
            self._held = None

    def emit(self, sample: Mapping[str, Any]) -> None:
        """Note a sample."""
        if self._held is not None:
            self._held.append(sample)
            return
        self._samples.write(json.dumps(sample) + "\n")
        self._samples.flush()
        if "s" in sample:
            errors = "; ".join(sample.get("errors", [])) or ""
            left = f" LEFT: {', '.join(sample['left'])}" if sample.get("left") else ""
            print(
                f"{sample['scenario']}, {sample['who']}, {sample['what']}: {sample['s']:.2f} s, "
                f"commands {sum(sample['commands'].values())}, programs {sample['programs']}, "
                f"processes of all {sample['processes']}, "
                f"calibration {sample.get('calib_ms', 0):.0f} ms{left} {errors}".rstrip(),
                flush=True,
            )

    def close(self) -> None:
        """End what was started."""
        for name in tuple(self._clients):
            self.drop_client(name)
        self._counter.close()

    # -- one measurement -----------------------------------------------------------------

    def _measure(
        self,
        scenario: str,
        name: str,
        what: str,
        volumes: Sequence[Volume],
        *,
        threads: int = 1,
        cap_s: float = 60.0,
        note: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        if name == FLOOR:
            root, order = os.getpid(), getattr(self._floor, what)
            if what == "connect":
                self._floor.prepare(volumes)
            self._counter.watch(root)
            self._counter.take()
            answer = order(volumes, threads)
        else:
            client = self.client(name)
            root = client.pid
            self._counter.take()
            order = {"do": what, "volumes": list(volumes), "threads": threads}
            try:
                answer = client.ask(order, cap_s)
            except TooLate as error:
                answer = {
                    "total_s": error.waited_s,
                    "volumes": [{"error": str(error)}],
                    "commands": {},
                    "is_late": True,
                }
                self.drop_client(name)
        started = self._counter.take([root])
        if name == FLOOR and what == "disconnect":
            self._floor.clear(volumes)
        return {
            "scenario": scenario,
            "who": name,
            "what": what,
            "s": answer["total_s"],
            "commands": answer["commands"],
            "programs": started.own,
            "processes": started.machine,
            "volumes": answer["volumes"],
            "is_late": answer.get("is_late", False),
            **(note or {}),
        }


def _read_error(device: str) -> str:
    """Read a block from a disk, past the page cache; say what is wrong, or nothing."""
    try:
        descriptor = os.open(device, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
        try:
            with mmap.mmap(-1, BLOCK) as block:
                count = os.preadv(descriptor, [block], 0)
        finally:
            os.close(descriptor)
    except OSError as error:
        return f"{device}: {error.strerror}"
    return "" if count == BLOCK else f"{device}: {count} bytes read"


@contextlib.contextmanager
def _guest(options: argparse.Namespace, samples: TextIO) -> Iterator[Guest]:
    services.load_modules()
    with contextlib.ExitStack() as undo:
        undo.enter_context(services.udevd())
        undo.enter_context(services.iscsid())
        network: SanNetwork = undo.enter_context(san_network(PORTALS))
        guest = Guest(undo.enter_context(San.on(network)), options, samples)
        undo.callback(guest.close)
        yield guest


def main() -> int:
    """Measure what was asked for."""
    options = _parse_options()
    folder = Path(os.environ["LAB_OUT"])
    failed = False
    with (folder / "samples.jsonl").open("w") as samples, _guest(options, samples) as guest:
        guest.emit({"scenario": "machine", **_machine()})
        for name, scenario in attach_scenarios.SCENARIOS.items():
            if options.only and name not in options.only:
                continue
            began = time.monotonic()
            failed |= not _run(guest, name, scenario)
            print(f"{name}: {time.monotonic() - began:.0f} s in all", flush=True)
    return 1 if failed else 0


def _run(guest: Guest, name: str, scenario: Callable[[Guest], None]) -> bool:
    try:
        scenario(guest)
    except Exception as error:  # the other scenarios are still worth measuring
        guest.emit({"scenario": name, "broken": f"{type(error).__name__}: {error}"})
        print(f"{name}: broken by {type(error).__name__}: {error}", flush=True)
        return False
    return True


def _machine() -> dict[str, Any]:
    asked = subprocess.run(["iscsiadm", "--version"], capture_output=True, text=True, check=True)
    return {
        "kernel": platform.release(),
        "python": platform.python_version(),
        "iscsiadm": asked.stdout.strip().removeprefix("iscsiadm version "),
        "cpus": os.cpu_count(),
        "calib_ms": round(calibrate(), 1),
    }


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.attach_guest")
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--without", nargs="*", default=[])
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--os-brick-python", type=Path, default=Path(sys.executable))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
