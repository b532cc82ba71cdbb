"""What a test needs of the machine, and whether its absence is an excuse.

A need is the name of a program, ``root``, or ``kernel:PART`` (a file system, or ``loop``).
``LUNPORT_REQUIRE`` names what must be there: needs, ``kernel`` for every kernel part, and
``all`` for everything that ``make setup`` can bring. What is required and absent fails the
test; only what no package can bring, the kernel's parts, may be absent under ``all``.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

_SBIN = "/usr/local/sbin:/usr/sbin:/sbin"


def required(environment: str) -> frozenset[str]:
    """Split ``LUNPORT_REQUIRE``."""
    return frozenset(word.strip() for word in environment.split(",") if word.strip())


def lacking(needs: Iterable[str]) -> tuple[str, ...]:
    """List the needs that this machine does not meet."""
    return tuple(need for need in needs if not _is_met(need))


def may_skip(absent: Iterable[str], require: frozenset[str]) -> bool:
    """Tell whether a test that lacks these may be skipped; one that lacks nothing may not."""
    if "all" not in require:
        return not any(_is_required(need, require) for need in absent)
    needs = tuple(absent)
    return bool(needs) and not any(_is_required(need, require) for need in needs)


def _is_required(need: str, require: frozenset[str]) -> bool:
    if need.startswith("kernel:"):
        return need in require or "kernel" in require
    return need in require or "all" in require


def _is_met(need: str) -> bool:
    if need == "root":
        return os.geteuid() == 0
    if need == "kernel:loop":
        return Path("/dev/loop-control").exists()
    if need.startswith("kernel:"):
        return need.removeprefix("kernel:") in Path("/proc/filesystems").read_text().split()
    return shutil.which(need, path=f"{os.environ.get('PATH', '')}:{_SBIN}") is not None
