"""Measure moving a guest: our orchestration beside libvirt's own call, in turn, on one machine.

    make bench-migrate                        everything: 20 pairs, then eight volumes, ten minutes
    make bench-migrate ARGS='--pairs 2 --rounds 1'

Exit status 1 when a demand is missed, or something of ours lies between a guest's stop and its
start. Two hosts with a libvirt and an agent each, and a service: tests/daemons/moving_site.py.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.lab_run import now
from bench.migrate_report import judge, table, write_readme
from bench.migrate_sides import OURS, PLAIN, Ours, Plain, Sample, Stops
from tests.daemons.moving_site import MovingSite, moving_site, soon

DEFAULT_JSON = Path("build/bench-migrate.json")
MANY = 8


def main() -> int:
    """Measure, print the table, write the JSON."""
    options = _parse_options()
    began = time.monotonic()
    samples: list[Sample] = []
    versions = ""
    with tempfile.TemporaryDirectory(prefix="lunport-bench-") as folder:
        with moving_site(Path(folder) / "one", debug=True) as site:
            versions = _versions(site)
            samples += _pairs(site, options.pairs)
        if options.rounds:
            with moving_site(Path(folder) / "many", volumes=MANY, debug=True) as site:
                samples += _many(site, options.rounds)
    demands = judge(samples)
    print(f"\n{table(samples)}\n")
    for demand in demands:
        print(demand)
    machine = {**now(), "kernel": platform.release(), "cpus": os.cpu_count(), "versions": versions}
    options.json.parent.mkdir(parents=True, exist_ok=True)
    document = {"machine": machine, "samples": [asdict(one) for one in samples]}
    options.json.write_text(json.dumps(document, indent=1))
    if options.readme:
        write_readme(samples, demands, machine)
    print(f"{options.json}: written; {time.monotonic() - began:.0f} s in all")
    return 1 if any(demand.is_missed for demand in demands) else 0


def _pairs(site: MovingSite, count: int) -> list[Sample]:
    """Move two guests in turn, each while the other one stands still: to and fro."""
    samples: list[Sample] = []
    with Stops(site.hosts) as stops, Plain(site, stops) as plain:
        ours = Ours(site, stops)
        for number in range(count):
            sides = (ours, plain) if number % 2 else (plain, ours)
            for side in sides:
                sample = side.measured(number % 2)
                samples.append(sample)
                print(f"{number + 1:>3}/{count} {sample}", flush=True)
        ours.expect_whole()
        plain.expect_whole()
    return samples


def _versions(site: MovingSite) -> str:
    def ask(connection: Any) -> str:
        numbers = connection.getLibVersion(), connection.getVersion()
        named = zip(("libvirt", "QEMU"), numbers, strict=True)
        return ", ".join(
            f"{name} {one // 1_000_000}.{one // 1000 % 1000}.{one % 1000}" for name, one in named
        )

    return site.hosts[0].connection.call("asking for versions", ask, soon())


def _many(site: MovingSite, count: int) -> list[Sample]:
    samples = []
    with Stops(site.hosts) as stops:
        ours = Ours(site, stops)
        for number in range(count):
            samples.append(ours.measured(number % 2))
            print(f"{number + 1:>3}/{count} {samples[-1]}", flush=True)
        ours.expect_whole()
    return samples


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.migrate", description=__doc__.partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=20, help=f"{OURS} and {PLAIN} [%(default)s]")
    parser.add_argument("--rounds", type=int, default=6, help=f"with {MANY} volumes [%(default)s]")
    parser.add_argument("--json", type=Path, default=DEFAULT_JSON, help="[%(default)s]")
    parser.add_argument("--readme", action="store_true", help="put the table into bench/README.md")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
