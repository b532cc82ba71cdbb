"""Threads that write 4 KiB past the page cache, and how long the longest write took.

    python -m bench.stall_writers /dev/dm-0 8

Orders on standard input, a line each: ``mark`` forgets what was before, ``report`` answers,
``stop`` answers and ends. An answer, a line of JSON, counts a write that has not ended too:

    {"longest_s": 2.41, "stuck": 0, "errors": 0, "writes": 512, "error": ""}

Each thread writes its own block again and again, with a pause after each. It is a process of its
own, so that a write that never ends holds up nobody else; it ends without waiting for any.
"""

from __future__ import annotations

import json
import mmap
import os
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

BLOCK = 4096
PAUSE_S = 0.05
STUCK_S = 0.5


@dataclass(slots=True)
class Writer:
    """One thread's account; written by it alone, but for :meth:`mark`."""

    longest_s: float = 0.0
    began: float | None = None
    writes: int = 0
    errors: int = 0
    error: str = ""

    def begin(self, now: float) -> None:
        """A write begins."""
        self.began = now

    def end(self, now: float, error: str = "") -> None:
        """It has ended, with an error or without."""
        began = self.began
        if began is not None:
            self.longest_s = max(self.longest_s, now - began)
        self.began = None
        self.writes += 1
        if error:
            self.errors += 1
            self.error = self.error or error

    def mark(self) -> None:
        """Forget how long writes took until now."""
        self.longest_s = 0.0


def report(writers: Sequence[Writer], now: float) -> dict[str, Any]:
    """Sum the accounts up, writes under way included."""
    under_way = [now - began for began in [one.began for one in writers] if began is not None]
    return {
        "longest_s": max([one.longest_s for one in writers] + under_way),
        "stuck": sum(seconds > STUCK_S for seconds in under_way),
        "errors": sum(one.errors for one in writers),
        "writes": sum(one.writes for one in writers),
        "error": next((one.error for one in writers if one.error), ""),
    }


def main() -> int:
    """Write until told to stop."""
    device, count = sys.argv[1], int(sys.argv[2])
    stop = threading.Event()
    writers = [Writer() for _ in range(count)]
    for number, writer in enumerate(writers):
        arguments = (writer, device, number * BLOCK, stop)
        threading.Thread(target=_write, args=arguments, daemon=True).start()
    for line in sys.stdin:
        order = line.strip()
        if order == "mark":
            for writer in writers:
                writer.mark()
        else:
            print(json.dumps(report(writers, time.monotonic())), flush=True)
        if order == "stop":
            break
    os._exit(0)


def _write(writer: Writer, device: str, place: int, stop: threading.Event) -> None:
    descriptor = os.open(device, os.O_RDWR | os.O_DIRECT | os.O_CLOEXEC)
    block = mmap.mmap(-1, BLOCK)
    while not stop.is_set():
        writer.begin(time.monotonic())
        error = ""
        try:
            os.pwritev(descriptor, [block], place)
        except OSError as failed:
            error = failed.strerror or str(failed)
        writer.end(time.monotonic(), error)
        stop.wait(PAUSE_S)


if __name__ == "__main__":
    sys.exit(main())
