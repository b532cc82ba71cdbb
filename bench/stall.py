"""Measure how long I/O stalls when a path is lost, beside os-brick's map, in the lab's machine.

    make bench-stall                                everything, some twenty minutes
    make bench-stall ARGS='--only reset --rounds 1'
    make bench-stall ARGS='--without os-brick'      quick, for work on the initiator

Exit status 1 when a demand is missed, something broke, or something of ours was left.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from bench.attach_samples import OS_BRICK, Samples
from bench.lab_run import ROOT, add_machine_options, measure, now, read_samples
from bench.stall_report import (
    AGENT,
    DEFAULT,
    DROPPED,
    FAST,
    RESET,
    broken,
    judge,
    table,
    write_json,
    write_readme,
)
from lab.os_brick_environment import ensure_os_brick

OUT = ROOT / "build" / "bench-stall"
DEFAULT_JSON = Path("build/bench-stall.json")
NAMES = {"os-brick": OS_BRICK, "default": DEFAULT, "fast": FAST}


def main() -> int:
    """Measure, print the table, write the JSON."""
    options = _parse_options()
    began = time.monotonic()
    status = measure("bench.stall_guest", _words(options), OUT, options)
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
        write_readme(samples, demands, machine)
    print(f"{options.json}: written; {time.monotonic() - began:.0f} s in all")
    wrong = broken(samples)
    for what in wrong:
        print(f"broken: {what}")
    return 1 if status or wrong or any(demand.is_missed for demand in demands) else 0


def _words(options: argparse.Namespace) -> list[str]:
    who = [name for short, name in NAMES.items() if short not in options.without]
    if options.with_agent:
        who.append(AGENT)
    python = ensure_os_brick() if OS_BRICK in who else Path(sys.executable)
    words = ["--os-brick-python", str(python), "--rounds", str(options.rounds), "--who", *who]
    return [*words, "--only", *options.only] if options.only else words


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.stall", description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=(DROPPED, RESET), default=[], metavar="FAULT")
    parser.add_argument("--without", nargs="+", choices=NAMES, default=[], metavar="NAME")
    parser.add_argument("--with-agent", action="store_true", help="the agent beside, as a row more")
    parser.add_argument("--rounds", type=int, default=5, help="of each fault [%(default)s]")
    parser.add_argument("--json", type=Path, default=DEFAULT_JSON, help="[%(default)s]")
    parser.add_argument("--readme", action="store_true", help="put the table into bench/README.md")
    add_machine_options(parser, time_limit_s=3600.0)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
