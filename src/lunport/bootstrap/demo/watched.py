"""Watch what every user of a machine can see of its processes: their arguments.

Reads ``/proc/PID/cmdline`` of all processes over and over while a task runs. In the demo's own
``/proc`` those are the demo's processes.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from lunport.core.errors import PromiseBroken
from lunport.core.secret import Secret
from lunport.host.tasks import TaskGroup

T = TypeVar("T")

_LOOK_S = 0.004


def run_watched(task: Callable[[], T], secret: Secret) -> tuple[T, dict[str, int]]:
    """Run a task; return its result, and how often each program's arguments were read.

    Raises: PromiseBroken when a program showed the secret, and whatever the task raises.
    """
    seen: dict[str, int] = {}
    needle = secret.reveal().encode()
    with TaskGroup[T]("watched") as group:
        group.start("task", task)
        report = group.next_report(0)
        while report is None:
            _look(needle, seen)
            report = group.next_report(_LOOK_S)
        return report.unwrap(), seen


def _look(needle: bytes, seen: dict[str, int]) -> None:
    for entry in Path("/proc").glob("[0-9]*"):
        if int(entry.name) == os.getpid():
            continue
        try:
            arguments = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        program = Path(os.fsdecode(arguments.partition(b"\0")[0])).name
        if not program:
            continue
        if program.startswith("python"):
            program = "lunport"  # the demo runs no other Python
        if needle in arguments:
            raise PromiseBroken("The secret is in no argv", f"{program} shows it")
        seen[program] = seen.get(program, 0) + 1
