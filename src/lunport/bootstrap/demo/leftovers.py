"""Look for what a demo may have left, by asking the kernel and the file system alone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from lunport.core.errors import PromiseBroken

_OPEN = frozenset({"0A", "01"})  # TCP_LISTEN, TCP_ESTABLISHED in linux/tcp_states.h


def expect_none(what: str, found: Sequence[object]) -> None:
    """Insist that there is nothing. Raises: PromiseBroken."""
    if found:
        listed = ", ".join(str(one) for one in found)
        raise PromiseBroken("Nothing is left", f"{len(found)} {what}: {listed}")


def files_below(folder: Path) -> list[str]:
    """List the files below a folder; none when it is not there."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def other_processes() -> list[str]:
    """List the processes of this process namespace beside ourselves."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        if int(entry.name) != os.getpid():
            try:
                command = (entry / "comm").read_text().strip()
            except OSError:
                continue
            found.append(f"{command} ({entry.name})")
    return found


def open_sockets() -> list[str]:
    """List the TCP sockets of this network that listen or are connected."""
    # sl local_address rem_address st ...:  0: 0100007F:2248 00000000:0000 0A 00000000:...
    found = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        path = Path(table)
        lines = path.read_text().splitlines()[1:] if path.exists() else []
        states = [line.split() for line in lines]
        found += [f"{words[1]} {words[3]}" for words in states if words[3] in _OPEN]
    return found
