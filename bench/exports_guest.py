"""Take volumes on thin LVM behind LIO through their lives, in the lab's machine.

Leaves a line for each policy and step in ``$LAB_OUT/samples.jsonl``. The volumes are made once;
for each policy the service is started anew, and every volume is exported to one of ten hosts and
taken from it again. The one client looks into the service's database for what became of a
request: asking the service while LVM works would cost it time that is no part of the work.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from bench.client import Client, connector
from bench.process_accounting import Accounting, accounting
from bench.processes import own_cpu_seconds
from bench.service import MeasuredService
from lab import services
from lab.lvm import lvm, volume_group
from lunport.host.lio import ROOT

T = TypeVar("T")

GROUP = "bench"
GROUP_MIB = 512
HOSTS = 10
PARTS = 10
_PROGRAM = Path(sys.executable).with_name("lunport")
_CONFIG = """\
driver = "lvm"
helper = "lio"
volume_group = "{group}"
export = "{policy}"
"""
_PATIENCE_S = 300.0
_LOOK_S = 0.02
_CALIBRATION = 20_000


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds of one operation: the service's processor time, LVM's programs, and in all.

    ``calibration_s``: processor time of a fixed piece of work, done beside each operation. A busy
    host takes the processor from the machine, whose clocks go on.
    """

    service_s: float
    lvm_s: float
    whole_s: float
    calibration_s: float


@dataclass(frozen=True, slots=True)
class Bench:
    """The service as it runs now, and who looks on."""

    service: MeasuredService
    client: Client
    rows: sqlite3.Connection
    accounts: Accounting

    def run(self, act: Callable[[int], T], count: int) -> tuple[list[T], Cost, Cost]:
        """Do something with each; return what came of it, and the cost of the first and last."""
        part = max(1, count // PARTS)
        done: list[T] = []
        costs: list[Cost] = []
        for begin, end in ((0, part), (part, count - part), (count - part, count)):
            before = self._so_far()
            own_s = whole_s = 0.0
            for number in range(begin, end):
                done.append(act(number))
                began = time.monotonic()
                own_s += calibrate()
                whole_s += time.monotonic() - began
            service, programs, whole = (b - a for a, b in zip(before, self._so_far(), strict=True))
            totals = (service, programs, whole - whole_s, own_s)
            costs.append(Cost(*(total / max(1, end - begin) for total in totals)))
        return done, costs[0], costs[2]

    def create(self) -> str:
        """Make a volume."""
        asked = {"volume": {"size": 1}}
        volume: str = self.client.call("POST", "/volumes", asked)["volume"]["id"]
        self._await(volume, "available")
        return volume

    def delete(self, volume: str) -> None:
        """Delete a volume."""
        self.client.call("DELETE", f"/volumes/{volume}")
        self._await(volume, None)

    def ask(self, action: str, volume: str, number: int) -> None:
        """Connect or disconnect one of the hosts."""
        body = {action: {"connector": connector(number % HOSTS)}}
        self.client.call("POST", f"/volumes/{volume}/action", body)

    def require_nothing(self) -> None:
        """See that no export is left."""
        exports = self.client.call("GET", "/exports")["exports"]
        check = self.client.call("POST", "/exports/action", {"lunport:check": {"repair": False}})
        ours = [*ROOT.glob("iscsi/iqn.*"), *ROOT.glob("core/iblock_*/lunport-*")]
        if exports or ours or not check["whole"]:
            raise SystemExit(f"left: {len(exports)} exports, {ours}, {check}")

    def _await(self, volume: str, wanted: str | None) -> None:
        end = time.monotonic() + _PATIENCE_S
        while time.monotonic() < end:
            row = self.rows.execute("SELECT status FROM volumes WHERE id = ?", (volume,)).fetchone()
            status = None if row is None else row[0]
            if status == wanted:
                return
            if status is not None and status.startswith("error"):
                raise SystemExit(f"{volume} is {status}")
            time.sleep(_LOOK_S)
        raise SystemExit(f"{volume} is not {wanted or 'gone'} in {_PATIENCE_S:g} s")

    def _so_far(self) -> tuple[float, float, float]:
        (pid,) = self.service.pids()
        return own_cpu_seconds(pid), self.accounts.seconds_of_children(pid), time.monotonic()


def calibrate() -> float:
    """Do a fixed piece of work; return the processor time that it took."""
    began = time.thread_time()
    sum(number * number for number in range(_CALIBRATION))
    return time.thread_time() - began


def main() -> None:
    """Measure, and leave the samples."""
    parser = argparse.ArgumentParser(prog="bench.exports_guest")
    parser.add_argument("--volumes", type=int, required=True)
    parser.add_argument("--policies", nargs="+", required=True)
    options = parser.parse_args()
    services.load_modules()
    with (
        tempfile.TemporaryDirectory(prefix="lunport-bench-") as name,
        volume_group(GROUP, GROUP_MIB, by_udev=False),
        (Path(os.environ["LAB_OUT"]) / "samples.jsonl").open("w") as samples,
    ):

        def tell(policy: str, step: str, fewest: Cost, most: Cost) -> None:
            found = {"policy": policy, "step": step, "kernel": os.uname().release}
            sample = {**found, "fewest": asdict(fewest), "most": asdict(most)}
            print(json.dumps(sample), file=samples, flush=True)
            print(f"{policy} {step}: {fewest} {most}", flush=True)

        _live(Path(name), options.volumes, options.policies, tell)
        left = lvm("lvs", "--noheadings", "-o", "lv_name", GROUP).split()
        if any("volume-" in one for one in left):
            raise SystemExit(f"left: {left}")


def _live(
    folder: Path, count: int, policies: Sequence[str], tell: Callable[[str, str, Cost, Cost], None]
) -> None:
    volumes: list[str] = []
    for number, policy in enumerate(policies):
        with _serving(folder, policy) as bench:
            if number == 0:
                volumes, fewest, most = bench.run(lambda _: bench.create(), count)
                tell("any", "create", fewest, most)
            for step, action in (("export", "initialize"), ("terminate", "terminate")):
                _, first, last = bench.run(
                    lambda one: bench.ask(f"os-{action}_connection", volumes[one], one),  # noqa: B023
                    count,
                )
                fewest, most = (first, last) if step == "export" else (last, first)
                tell(policy, step, fewest, most)
            bench.require_nothing()
            if policy == policies[-1]:
                _, most, fewest = bench.run(lambda one: bench.delete(volumes[one]), count)  # noqa: B023
                tell("any", "delete", fewest, most)


@contextlib.contextmanager
def _serving(folder: Path, policy: str) -> Iterator[Bench]:
    config = _CONFIG.format(group=GROUP, policy=policy)
    service = MeasuredService(_PROGRAM, folder / "data", config, start_s=_PATIENCE_S)
    with contextlib.ExitStack() as stack:
        accounts = stack.enter_context(accounting(folder / f"accounts-{policy}"))
        stack.callback(service.end)
        service.start()
        database = f"file:{folder}/data/lunport.sqlite?mode=ro"
        rows = stack.enter_context(contextlib.closing(sqlite3.connect(database, uri=True)))
        client = stack.enter_context(Client(service.port))
        yield Bench(service, client, rows, accounts)


if __name__ == "__main__":
    main()
