"""Measure attaching beside os-brick, in one throw-away machine, round by round in turn.

    make bench-attach                               everything, some eight minutes
    make bench-attach ARGS='--only healthy --rounds 3'
    make bench-attach ARGS='--without os-brick'     quick, for work on the initiator

The machine is the lab's; os-brick comes from ``requirements/bench-attach.lock`` into an
environment of its own. Exit status 1 when a binding demand is missed or something broke.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.attach_report import Samples, judge, table, write_json, write_readme
from lab import vm
from lab.errors import LabError
from lab.os_brick_environment import ensure_os_brick

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "build" / "bench-attach"
DEFAULT_JSON = Path("build/bench-attach.json")
SCENARIOS = ("healthy", "failover", "many", "present", "apart")
NAMES = ("os-brick", "lunport", "lunport-direct", "floor")


def main() -> int:
    """Measure, print the tables, write the JSON."""
    options = _parse_options()
    began = time.monotonic()
    python = Path(sys.executable) if "os-brick" in options.without else ensure_os_brick()
    status = _measure(options, python)
    samples = Samples(_read_samples())
    demands = judge(samples)
    print(f"\n{table(samples)}\n")
    for demand in demands:
        if demand.found is not None:
            print(demand)
    missing = sum(demand.found is None for demand in demands)
    if missing:
        print(f"{missing} of {len(demands)} demands were not measured")
    machine = {
        **samples.machine,
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "load": os.getloadavg(),
    }
    write_json(samples, demands, machine, options.json)
    if options.readme:
        write_readme(samples, demands, machine)
    print(f"{options.json}: written; {time.monotonic() - began:.0f} s in all")
    broken = samples.broken()
    for what in broken:
        print(f"broken: {what}")
    return 1 if status or broken or any(demand.is_missed for demand in demands) else 0


def _measure(options: argparse.Namespace, os_brick_python: Path) -> int:
    shutil.rmtree(OUT, ignore_errors=True)
    command = [sys.executable, "-m", "bench.attach_guest"]
    command += ["--os-brick-python", str(os_brick_python)]
    for name in ("only", "without"):
        if getattr(options, name):
            command += [f"--{name}", *getattr(options, name)]
    if options.rounds:
        command += ["--rounds", str(options.rounds)]
    what = vm.Run(command, folder=ROOT, out=OUT)
    try:
        return vm.run(what, vm.Machine(time_limit_s=options.time_limit))
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return error.exit_status


def _read_samples() -> list[dict[str, Any]]:
    try:
        lines = (OUT / "samples.jsonl").read_text().splitlines()
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in lines]


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.attach", description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=SCENARIOS, default=[], metavar="SCENARIO")
    parser.add_argument("--without", nargs="+", choices=NAMES, default=[], metavar="NAME")
    parser.add_argument("--rounds", type=int, help="of each scenario [7, 3 or 2]")
    parser.add_argument("--json", type=Path, default=DEFAULT_JSON, help="[%(default)s]")
    parser.add_argument("--readme", action="store_true", help="put the table into bench/README.md")
    parser.add_argument("--time-limit", type=float, default=900.0, metavar="S")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
