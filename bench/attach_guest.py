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
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from bench import attach_multipath, attach_scenarios
from bench.attach_client import Client, TooLate
from bench.attach_counts import ProcessCounter, Started, calibrate, leftovers, settle
from bench.attach_floor import Floor
from bench.attach_floor_maps import MapsFloor
from bench.attach_maps import is_map, members, version
from bench.attach_worker import How, Volume
from lab import services
from lab.lio import Target
from lab.network import SanNetwork, san_network
from lab.san import San
from lunport.host.dead_portals import DeadPortals

BLOCK = 4096
PORTALS = 4
FLOOR = "floor"
BACKGROUND_S = 30.0
PATH_SELECTORS = ("dm_service_time", "dm_round_robin")  # else the first map pays for loading them

_LOOK_S = 0.01
_pause = threading.Event()


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
        self._floors: Mapping[bool, Floor | MapsFloor] = {False: Floor(), True: MapsFloor()}
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

    @contextlib.contextmanager
    def targets(
        self, name: str, count: int = 1, portals: Sequence[int] = ()
    ) -> Iterator[list[Target]]:
        """Have targets for a while, so that a discovery finds no others."""
        made = [self.target(f"{name}-{number}", portals) for number in range(count)]
        try:
            yield made
        finally:
            for target in made:
                self.san.remove_target(target)

    def target(self, name: str, portals: Sequence[int] = (), luns: int = 1) -> Target:
        """Make a target on these portals (from 1; none: all) with LUNs from 1."""
        made = self.san.target(name, portals=[self.san.portals[number - 1] for number in portals])
        for lun in range(1, luns + 1):
            self.san.add_lun(made, lun, size_mib=16)
        return made

    def volume(self, target: Target, lun: int = 1, *, discovery: bool = False) -> Volume:
        """Describe one LUN as a volume service does; ``discovery``: it names one portal only."""
        portals = [str(portal) for portal in target.portals]
        data: Volume = {
            "target_discovered": discovery,  # os-brick does not look at it
            "access_mode": "rw",
            "encrypted": False,
            "discard": False,
            "qos_specs": None,
            "target_portal": portals[0],
            "target_iqn": target.iqn,
            "target_lun": lun,
            "wwid": target.luns[lun].wwid,
        }
        if len(portals) > 1 and not discovery:
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

    def connect(
        self, scenario: str, name: str, volumes: Sequence[Volume], **order: Any
    ) -> dict[str, Any]:
        """Connect the volumes and read from each; return the sample."""
        sample = self._measure(scenario, name, "connect", volumes, **order)
        must_be_map = order.get("how", {}).get("multipath", False)
        for one in sample["volumes"]:
            if "error" not in one:
                one["error"] = _read_error(one["device"])
            if not one["error"] and must_be_map and not is_map(one["device"]):
                one["error"] = f"{one['device']} is no map"
        errors = [one["error"] for one in sample["volumes"] if one.get("error")]
        devices = {one.get("device") for one in sample["volumes"]}
        if not errors and len(devices) != len(volumes):
            errors.append(f"{len(devices)} devices for {len(volumes)} volumes")
        self.emit({**sample, "errors": errors})
        return {**sample, "errors": errors}

    def disconnect(
        self,
        scenario: str,
        name: str,
        volumes: Sequence[Volume],
        *,
        look: bool = True,
        what: str = "disconnect",
        **order: Any,
    ) -> None:
        """Disconnect the volumes; ``look``: nothing may be left, once the background has ended."""
        sample = self._measure(scenario, name, "disconnect", volumes, **order)
        errors = [one["error"] for one in sample["volumes"] if one.get("error")]
        if look:
            self.wait_for_background(name)
        self.emit({**sample, "what": what, "errors": errors, "left": leftovers() if look else []})

    def has_background(self, name: str) -> bool:
        """Tell whether a process that one of ours started still runs."""
        client = self._clients.get(name)
        if client is None or client.kind == "os-brick":  # its privileged daemon lives on
            return False
        return bool(self._counter.living(client.pid))

    def wait_for_background(self, name: str, limit_s: float = BACKGROUND_S) -> bool:
        """Wait until nothing that was started runs any more; tell whether it is so."""
        end = time.monotonic() + limit_s
        while self.has_background(name):
            if time.monotonic() > end:
                return False
            _pause.wait(_LOOK_S)
        return True

    def started(self, name: str) -> Started:
        """Return what was started since the last measurement."""
        client = self._clients.get(name)
        return self._counter.take([client.pid if client else os.getpid()])

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
        if "s" in sample and "io_errors" not in sample:
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
        how: How | None = None,
    ) -> dict[str, Any]:
        floor = self._floors[bool(how and how.get("multipath"))]
        if name == FLOOR:
            root, order = os.getpid(), getattr(floor, what)
            if what == "connect":
                floor.prepare(volumes)
            self._counter.watch(root)
            self._counter.take()
            began = time.monotonic()
            answer = order(volumes, threads)
        else:
            client = self.client(name)
            root = client.pid
            self._counter.take()
            order = {"do": what, "volumes": list(volumes), "threads": threads, "how": how or {}}
            began = time.monotonic()
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
        devices = [one["device"] for one in answer["volumes"] if "device" in one]
        paths = [members(device) for device in devices]
        started = self._counter.take([root])
        if name == FLOOR and what == "disconnect":
            floor.clear(volumes)
        return {
            "scenario": scenario,
            "who": name,
            "what": what,
            "s": answer["total_s"],
            "commands": answer["commands"],
            "programs": started.own,
            "processes": started.machine,
            "volumes": answer["volumes"],
            "began": began,
            "paths": paths,
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
def guest_on_san(options: argparse.Namespace, samples: TextIO) -> Iterator[Guest]:
    services.load_modules((*services.MODULES, *PATH_SELECTORS))
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
    with (folder / "samples.jsonl").open("w") as samples, guest_on_san(options, samples) as guest:
        guest.emit({"scenario": "machine", **describe_machine()})
        scenarios = {**attach_scenarios.SCENARIOS, **attach_multipath.SCENARIOS}
        for name, scenario in scenarios.items():
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


def describe_machine() -> dict[str, Any]:
    """Say what is measured on."""
    asked = subprocess.run(["iscsiadm", "--version"], capture_output=True, text=True, check=True)
    return {
        "kernel": platform.release(),
        "python": platform.python_version(),
        "iscsiadm": asked.stdout.strip().removeprefix("iscsiadm version "),
        "multipath": version(),
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
