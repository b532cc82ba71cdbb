"""Measure the API of a service that is started for it, and show the peer beside it.

    make bench-api                      everything, some five minutes
    make bench-api ARGS=--quick         fewer operations, once each
    python -m bench.api --only show     some rows

The data directory is new, on a disk (``--folder``), with a target daemon on three portals;
everything is taken away at the end. Exit status 1 when a binding demand is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from bench import scenarios
from bench.client import Client
from bench.load import Measured, median
from bench.processes import memory_mib
from bench.report import (
    Memory,
    Result,
    Row,
    Start,
    read_peer,
    shortfalls,
    table,
    write_json,
    write_readme,
)
from bench.scenarios import Scenario
from bench.service import MeasuredService

CONCURRENCIES = (1, 8)
STORED = 10_000
EXPORTS = 50
STARTS = 7
DEFAULT_JSON = Path("build/bench-api.json")

FRESH: Mapping[str, Scenario] = {
    "initialize": scenarios.INITIALIZE,
    "attach": scenarios.ATTACH,
    "cycle": scenarios.CYCLE,
    "snapshot": scenarios.SNAPSHOT,
}


class Bench:
    """One call of the measurement: the service, and the rows found so far."""

    def __init__(self, service: MeasuredService, options: argparse.Namespace) -> None:
        self.service = service
        self.rows: list[Row] = []
        self.starts: list[Start] = []
        self.memory: list[Memory] = []
        self._options = options
        self._share = 0.3 if options.quick else 1.0
        self._peer = read_peer()

    def run(self) -> None:
        """Measure everything, from the empty service to the full one."""
        self._measure_starts("nothing stored", is_fresh=True)
        self.service.start()
        self._note_memory("nothing stored")
        self._seed(10)
        self._scenario("version", scenarios.VERSION)
        self._scenario("detail-10", scenarios.DETAIL, ", 10 volumes")
        self._scenario("show-11", scenarios.SHOW, ", 11 volumes")
        self._scenario("show-attached", scenarios.SHOW_ATTACHED)
        self._creations("")
        for key, scenario in FRESH.items():
            self._scenario(key, scenario)
        if self._options.small:
            return
        self._seed(1000)
        self._scenario("detail-1000", scenarios.DETAIL_PAGE, ", 1 000 volumes")
        self._seed(STORED)
        attachments = scenarios.export(self.service, EXPORTS)
        full = ", 10 000 volumes"
        self._scenario("detail-10000", scenarios.DETAIL_PAGE, f"{full}, first page of 1 000")
        self._scenario("walk-10000", scenarios.WALK, full)
        self._scenario("show-10000", scenarios.SHOW, full)
        self._creations("-10000", full)
        self._note_memory(f"10 000 volumes and {EXPORTS} exports, after the load")
        self.service.stop()
        self._measure_starts(f"10 000 volumes, tgtd still there with {EXPORTS} exports")
        self._measure_starts(f"10 000 volumes, {EXPORTS} exports, tgtd gone", reboots=True)
        self.service.start()
        self._note_memory("the same after a restart")
        scenarios.close(self.service, attachments)

    # -- rows ----------------------------------------------------------------------------

    def _scenario(self, key: str, scenario: Scenario, more: str = "") -> None:
        if self._is_wanted(key):
            for workers in scenario.counts:
                runs = [
                    scenario.run(self.service, workers, self._share)
                    for _ in range(self._options.repeats)
                ]
                self._note(key, scenario.title + more, workers, median(runs))

    def _creations(self, suffix: str, more: str = "") -> None:
        if not self._is_wanted(f"create{suffix}"):
            return
        for workers in CONCURRENCIES:
            runs = [
                scenarios.create_and_delete(self.service, workers, self._share)
                for _ in range(self._options.repeats)
            ]
            for title, key, found in zip(
                ("POST volumes to available", "DELETE volumes to gone"),
                (f"create{suffix}", f"delete{suffix}"),
                zip(*runs, strict=True),
                strict=True,
            ):
                self._note(key, title + more, workers, median(found))

    def _seed(self, wanted: int) -> None:
        found = scenarios.seed(self.service, wanted)
        if found is not None and found.count > 1000:
            self._note("seed", f"creating {found.count} named volumes", 8, found)

    def _note(self, key: str, title: str, workers: int, found: Measured) -> None:
        row = Row(key, title, workers, found, self._peer.get((key, workers)))
        self.rows.append(row)
        beside = f"  ({row.rate_times:.0f}x, CPU {row.cpu_times:.0f}x)" if row.peer else ""
        _say(
            f"{title}, c={workers}: {found.per_s:.0f}/s, p50 {found.p50_ms:.2f} ms, "
            f"CPU {found.cpu_ms:.2f} ms{beside}"
        )

    def _is_wanted(self, key: str) -> bool:
        only = self._options.only
        return not only or any(key.startswith(prefix) for prefix in only)

    # -- start and memory ----------------------------------------------------------------

    def _measure_starts(self, title: str, *, is_fresh: bool = False, reboots: bool = False) -> None:
        seconds = []
        for _ in range(self._options.starts):
            if reboots:
                self.service.kill_target_daemons()
            seconds.append(self.service.start())
            self.service.stop()
            if is_fresh:
                shutil.rmtree(self.service.folder)
        if seconds:
            self.starts.append(Start(title, statistics.median(seconds), max(seconds), len(seconds)))
            _say(f"start, {title}: {statistics.median(seconds):.2f} s (worst {max(seconds):.2f})")

    def _note_memory(self, title: str) -> None:
        # One request first: what a start puts off is loaded by then.
        with Client(self.service.port) as client:
            client.fetch("/volumes/detail")
        rss, pss = memory_mib(self.service.pids())
        self.memory.append(Memory(title, rss, pss))
        _say(f"memory, {title}: RSS {rss:.0f} MiB, PSS {pss:.0f} MiB")


def main() -> int:
    """Measure, print the table, write the JSON."""
    options = _parse_options()
    begin = time.monotonic()
    with _measured_service(options) as service:
        bench = Bench(service, options)
        bench.run()
    result = Result(
        _machine(service.folder, options.repeats), bench.rows, bench.starts, bench.memory
    )
    print(f"\n{table(result)}\n")
    binding, goals = shortfalls(result)
    for miss in goals:
        print(f"goal missed: {miss}")
    for miss in binding:
        print(f"binding demand missed: {miss}")
    write_json(result, options.json)
    if options.readme:
        write_readme(result)
    print(f"{options.json}: written; {time.monotonic() - begin:.0f} s in all")
    return 1 if binding else 0


@contextlib.contextmanager
def _measured_service(options: argparse.Namespace) -> Iterator[MeasuredService]:
    folder = Path(tempfile.mkdtemp(prefix="lunport-bench-", dir=options.folder))
    service = MeasuredService(options.program, folder / "data")
    try:
        yield service
    finally:
        service.end()
        shutil.rmtree(folder)


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.api", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer operations, each row once")
    parser.add_argument("--small", action="store_true", help="stop before 1 000 volumes are made")
    parser.add_argument("--only", nargs="*", metavar="KEY", help="only rows whose key begins so")
    parser.add_argument("--repeats", type=int, help="runs of a row, the median counts [3]")
    parser.add_argument("--starts", type=int, help=f"starts of a kind [{STARTS}]")
    parser.add_argument("--json", type=Path, default=DEFAULT_JSON, help="[%(default)s]")
    parser.add_argument("--readme", action="store_true", help="put the table into bench/README.md")
    parser.add_argument(
        "--folder", type=Path, default=Path("/var/tmp"), help="where the data goes [%(default)s]"
    )
    parser.add_argument(
        "--program",
        type=Path,
        default=Path(sys.executable).with_name("lunport"),
        help="the lunport to measure [%(default)s]",
    )
    options = parser.parse_args()
    options.repeats = options.repeats or (1 if options.quick else 3)
    if options.starts is None:
        options.starts = 3 if options.quick else STARTS
    return options


def _machine(folder: Path, repeats: int) -> dict[str, object]:
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpus": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "folder": str(folder),
        "load": os.getloadavg(),
        "repeats": repeats,
    }


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
