"""Put load on the service: so many operations over so many connections, each one timed."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bench.client import Client
from bench.processes import cpu_seconds

# One operation: (connection, what the worker's preparation returned). It may return the
# seconds that count; None counts the whole call.
Step = Callable[[Client, Any], float | None]
Preparation = Callable[[Client], Any]
Ending = Callable[[Client, Any], object]


@dataclass(frozen=True, slots=True)
class Measured:
    """What one run gave; times in milliseconds."""

    count: int
    per_s: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    cpu_ms: float
    load1: float


def measure(
    port: int,
    pids: Sequence[int],
    step: Step,
    *,
    count: int,
    workers: int,
    prepare: Preparation | None = None,
    finish: Ending | None = None,
    warm: int = 2,
) -> Measured:
    """Run ``step`` ``count`` times over ``workers`` connections; any failure ends it."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Client(port)) for _ in range(workers)]
        states = [prepare(client) if prepare else None for client in clients]
        for client, state in zip(clients, states, strict=True):
            for _ in range(warm):
                step(client, state)
        turns = itertools.islice(itertools.count(), count)
        lock, gate = threading.Lock(), threading.Barrier(workers + 1)
        seconds: list[float] = []
        failures: list[Exception] = []

        def work(client: Client, state: Any) -> None:
            mine: list[float] = []
            gate.wait()
            try:
                while not failures:
                    with lock:
                        if next(turns, None) is None:
                            break
                    begin = time.perf_counter()
                    counted = step(client, state)
                    mine.append(time.perf_counter() - begin if counted is None else counted)
            except Exception as error:  # raised again below
                failures.append(error)
            with lock:
                seconds.extend(mine)

        threads = [
            threading.Thread(target=work, args=pair) for pair in zip(clients, states, strict=True)
        ]
        for thread in threads:
            thread.start()
        cpu_before = cpu_seconds(pids)
        gate.wait()
        begin = time.perf_counter()
        for thread in threads:
            thread.join()
        wall_s = time.perf_counter() - begin
        cpu_s = cpu_seconds(pids) - cpu_before
        if failures:
            raise failures[0]
        for client, state in zip(clients, states, strict=True):
            if finish:
                finish(client, state)
    seconds.sort()
    return Measured(
        count=count,
        per_s=count / wall_s,
        p50_ms=1000 * _quantile(seconds, 0.5),
        p90_ms=1000 * _quantile(seconds, 0.9),
        p99_ms=1000 * _quantile(seconds, 0.99),
        cpu_ms=1000 * cpu_s / count,
        load1=os.getloadavg()[0],
    )


def median(runs: Sequence[Measured]) -> Measured:
    """Take the median of each figure on its own."""
    return Measured(
        count=runs[0].count,
        **{
            name: statistics.median(getattr(run, name) for run in runs)
            for name in ("per_s", "p50_ms", "p90_ms", "p99_ms", "cpu_ms", "load1")
        },
    )


def _quantile(ordered: Sequence[float], part: float) -> float:
    """Return the smallest value that is not below that part of all."""
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)]
