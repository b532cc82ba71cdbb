"""CPU time and memory of processes, from /proc (proc(5)) and the CPU clocks of the kernel.

The clock of a process (clock_getcpuclockid(3)) counts nanoseconds of all its threads, those
that ended too; ``stat`` adds the children that were reaped, in ticks of 10 ms.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path

_PROC = Path("/proc")
_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
_PPID, _CHILDREN_USER, _CHILDREN_SYSTEM = 1, 13, 14  # fields of stat behind the program's name


def family(roots: Iterable[int]) -> list[int]:
    """Return those of the processes that run, and all their descendants."""
    parents: dict[int, int] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            fields = _stat(int(entry.name))
            if fields:
                parents[int(entry.name)] = int(fields[_PPID])
    found: list[int] = []
    waiting = list(roots)
    while waiting:
        pid = waiting.pop()
        if pid in parents and pid not in found:
            found.append(pid)
            waiting += [child for child, parent in parents.items() if parent == pid]
    return found


def own_cpu_seconds(pid: int) -> float:
    """Return user and system time of a process, without that of any other."""
    # What clock_getcpuclockid(3) computes: ~pid, shifted, with CPUCLOCK_SCHED.
    return time.clock_gettime((~pid << 3) | 2)


def cpu_seconds(roots: Iterable[int]) -> float:
    """Add up user and system time of the processes and all their descendants."""
    total = 0.0
    for pid in family(roots):
        fields = _stat(pid)
        try:
            total += own_cpu_seconds(pid)
        except OSError:
            continue
        if fields:
            ticks = int(fields[_CHILDREN_USER]) + int(fields[_CHILDREN_SYSTEM])
            total += ticks / _TICKS_A_SECOND
    return total


def memory_mib(roots: Iterable[int]) -> tuple[float, float]:
    """Return RSS, and PSS (shared pages counted once), of the processes and descendants."""
    rss_kib = pss_kib = 0
    for pid in family(roots):
        rollup = (_PROC / str(pid) / "smaps_rollup").read_text()
        for line in rollup.splitlines():
            if line.startswith("Rss:"):
                rss_kib += int(line.split()[1])
            elif line.startswith("Pss:"):
                pss_kib += int(line.split()[1])
    return rss_kib / 1024, pss_kib / 1024


def program_of(pid: int) -> str | None:
    """Name a process's program; None when it does not run."""
    try:
        return (_PROC / str(pid) / "comm").read_text().strip()
    except OSError:
        return None


def _stat(pid: int) -> list[str] | None:
    try:
        return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
