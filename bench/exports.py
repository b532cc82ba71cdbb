"""Measure whether many exports make each one dearer, on files and tgt, by each policy.

    make bench-exports                          1 000 volumes, ten hosts: some five minutes
    make bench-exports ARGS='--volumes 200'
    make bench-exports ARGS='--lab'             100 volumes on thin LVM behind LIO, in the lab

Every volume is made, exported to one of ten hosts, taken from it again, and deleted, one after the
other by one client. A step's figure is the processor time of the service for each of the twentieth
of the volumes beside which most others are there, divided by that for the twentieth beside which
there are fewest: how much dearer it becomes. The target daemon's own time is shown apart: it walks
lists of its targets and accounts. At the end nothing may be left: no volume, export, target, image.
Exit status 1 when a step's ratio is over its limit, or something is left.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from bench import exports_lab
from bench.client import Client, connector
from bench.demand import Demand
from bench.lab_run import add_machine_options
from bench.processes import cpu_seconds
from bench.service import MeasuredService

T = TypeVar("T")

HOSTS = 10
PARTS = 20
LIMIT = 1.5
POLICIES = ("target_per_volume", "target_per_host")
LAB_POLICIES = (*POLICIES, "shared_target")
_PROGRAM = Path(sys.executable).with_name("lunport")


def main() -> int:
    """Measure each policy, print a table and the verdicts."""
    parser = argparse.ArgumentParser(prog="bench.exports", description=__doc__.partition("\n")[0])
    parser.add_argument("--volumes", type=int, metavar="N", help="[1000, in the lab 100]")
    parser.add_argument("--policies", nargs="+", choices=LAB_POLICIES, default=[])
    parser.add_argument("--lab", action="store_true", help="on LVM and LIO, in the lab's machine")
    parser.add_argument("--readme", action="store_true", help="put the lab's table into the README")
    add_machine_options(parser, time_limit_s=7200.0)
    options = parser.parse_args()
    return _in_lab(options) if options.lab else _here(options)


def _in_lab(options: argparse.Namespace) -> int:
    volumes, policies = options.volumes or 100, options.policies or LAB_POLICIES
    status, samples = exports_lab.run(volumes, policies, options)
    print(f"\n{exports_lab.table(samples)}\n")
    if options.readme and not status:
        exports_lab.write_readme(samples, volumes)
    return _say(exports_lab.judge(samples)) or status


def _here(options: argparse.Namespace) -> int:
    demands: list[Demand] = []
    print("| policy | step | CPU ms, fewest | most | × | tgtd, fewest | most |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for policy in options.policies or POLICIES:
        for step, (fewest, most) in measure(policy, options.volumes or 1000).items():
            ratio = most.service_s / fewest.service_s
            print(
                f"| {policy} | {step} | {fewest.service_ms} | {most.service_ms} | {ratio:.2f} "
                f"| {fewest.daemon_ms} | {most.daemon_ms} |"
            )
            demands.append(Demand(f"{policy}, {step}: most to fewest", ratio, LIMIT, "x"))
    print()
    return _say(demands)


def _say(demands: Sequence[Demand]) -> int:
    for demand in demands:
        print(demand)
    return 1 if any(demand.is_missed for demand in demands) else 0


@dataclass(frozen=True, slots=True)
class Cost:
    """Processor seconds of one operation: of the service, and of its target daemon."""

    service_s: float
    daemon_s: float

    @classmethod
    def so_far(cls, service: MeasuredService) -> Cost:
        """Read what both have used since they began."""
        own, *daemons = service.pids()
        of_daemons = cpu_seconds(daemons)
        return cls(cpu_seconds([own, *daemons]) - of_daemons, of_daemons)

    def since(self, before: Cost, count: int) -> Cost:
        """Return what each of several operations has used."""
        return Cost(
            (self.service_s - before.service_s) / count, (self.daemon_s - before.daemon_s) / count
        )

    @property
    def service_ms(self) -> str:
        """For people."""
        return f"{1e3 * self.service_s:.2f}"

    @property
    def daemon_ms(self) -> str:
        """For people."""
        return f"{1e3 * self.daemon_s:.2f}"


def measure(policy: str, count: int) -> dict[str, tuple[Cost, Cost]]:
    """Take many volumes through their lives; return each step's seconds with few and with many."""
    with tempfile.TemporaryDirectory(prefix="lunport-bench-", dir="/var/tmp") as name:
        service = MeasuredService(_PROGRAM, Path(name) / "data", f'export = "{policy}"')
        service.start()
        try:
            with Client(service.port) as client:
                found = _live(client, service, count)
            if [*service.folder.glob("backends/*/images/*")]:
                raise SystemExit("left: images")
        finally:
            service.end()
    return found


def _live(client: Client, service: MeasuredService, count: int) -> dict[str, tuple[Cost, Cost]]:
    def run(act: Callable[[int], T]) -> tuple[list[T], Cost, Cost]:
        """Do something with each; return what came of it, and the cost of the first and last."""
        part = max(1, count // PARTS)
        done: list[T] = []
        costs = []
        for begin, end in ((0, part), (part, count - part), (count - part, count)):
            before = Cost.so_far(service)
            done += [act(number) for number in range(begin, end)]
            costs.append(Cost.so_far(service).since(before, end - begin))
        return done, costs[0], costs[2]

    volumes, *create = run(lambda _: client.create_volume())

    def ask(action: str) -> Callable[[int], object]:
        return lambda number: client.call(
            "POST",
            f"/volumes/{volumes[number]}/action",
            {action: {"connector": connector(number % HOSTS)}},
        )

    _, *export = run(ask("os-initialize_connection"))
    _, *terminate = run(ask("os-terminate_connection"))
    _, *delete = run(lambda number: client.delete_volume(volumes[number]))
    left = client.call("GET", "/volumes")["volumes"]
    exports = client.call("GET", "/exports")["exports"]
    check = client.call("POST", "/exports/action", {"lunport:check": {"repair": False}})
    if left or exports or not check["whole"]:
        raise SystemExit(f"left: {len(left)} volumes, {len(exports)} exports, {check}")
    return {
        "create": (create[0], create[1]),
        "export": (export[0], export[1]),
        "terminate": (terminate[1], terminate[0]),
        "delete": (delete[1], delete[0]),
    }


if __name__ == "__main__":
    sys.exit(main())
