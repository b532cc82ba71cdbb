"""Measure attaching beside os-brick, in one throw-away machine, round by round in turn.

    make bench-attach                               everything, some forty minutes
    make bench-attach ARGS='--only healthy --rounds 3'
    make bench-attach ARGS='--only maps maps-discovered'    several paths, nothing wrong
    make bench-attach ARGS='--without os-brick'     quick, for work on the initiator

The machine is the lab's; os-brick comes from ``requirements/bench-attach.lock`` into an
environment of its own. Exit status 1 when a binding demand is missed or something broke.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from bench.attach_report import judge, table, write_json, write_readme
from bench.attach_samples import Samples
from bench.lab_run import ROOT, add_machine_options, measure, now, read_samples
from lab.os_brick_environment import ensure_os_brick

OUT = ROOT / "build" / "bench-attach"
DEFAULT_JSON = Path("build/bench-attach.json")
SINGLE = ("healthy", "failover", "many", "present", "apart")
MULTIPATH = ("maps", "maps-discovered", "maps-many", "maps-silent")
SCENARIOS = (*SINGLE, *MULTIPATH)
NAMES = ("os-brick", "lunport", "lunport-direct", "floor")


def main() -> int:
    """Measure, print the tables, write the JSON."""
    options = _parse_options()
    began = time.monotonic()
    python = Path(sys.executable) if "os-brick" in options.without else ensure_os_brick()
    status = _measure(options, python)
    samples = Samples(read_samples(OUT))
    demands = judge(samples)
    print(f"\n{table(samples)}\n")
    for demand in demands:
        if demand.found is not None:
            print(demand)
    missing = sum(demand.found is None for demand in demands)
    if missing:
        print(f"{missing} of {len(demands)} demands were not measured")
    machine = {**samples.machine, **now()}
    write_json(samples, demands, machine, options.json)
    if options.readme:
        of_maps = bool(options.only) and set(options.only) <= set(MULTIPATH)
        name = "attach results of maps" if of_maps else "attach results"
        write_readme(name, samples, demands, machine)
    print(f"{options.json}: written; {time.monotonic() - began:.0f} s in all")
    broken = samples.broken()
    for what in broken:
        print(f"broken: {what}")
    return 1 if status or broken or any(demand.is_missed for demand in demands) else 0


def _measure(options: argparse.Namespace, os_brick_python: Path) -> int:
    words = ["--os-brick-python", str(os_brick_python)]
    for name in ("only", "without"):
        if getattr(options, name):
            words += [f"--{name}", *getattr(options, name)]
    if options.rounds:
        words += ["--rounds", str(options.rounds)]
    return measure("bench.attach_guest", words, OUT, options)


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.attach", description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=SCENARIOS, default=[], metavar="SCENARIO")
    parser.add_argument("--without", nargs="+", choices=NAMES, default=[], metavar="NAME")
    parser.add_argument("--rounds", type=int, help="of each scenario [7, 5, 3 or 2]")
    parser.add_argument("--json", type=Path, default=DEFAULT_JSON, help="[%(default)s]")
    parser.add_argument(
        "--readme",
        action="store_true",
        help="put the table into bench/README.md: maps alone have a table of their own",
    )
    add_machine_options(parser, time_limit_s=5400.0)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
