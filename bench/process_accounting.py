"""How long the programs ran that a process started: from the kernel's accounting (acct(5)).

The kernel writes a record of 64 bytes when a process ends. Whoever is measured takes no part.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_RECORD = struct.Struct("<BBHIIIIIIf16s16s")  # struct acct_v3
_VERSION = 3
_TICKS_A_SECOND = 100  # of its elapsed time


@dataclass(frozen=True, slots=True)
class Accounting:
    """The file that is written to."""

    file: Path

    def seconds_of_children(self, pid: int) -> float:
        """Add up how long the ended children of a process have run."""
        content = self.file.read_bytes()
        whole = len(content) // _RECORD.size * _RECORD.size
        ticks = 0.0
        for record in _RECORD.iter_unpack(content[:whole]):
            version, parent, elapsed = record[1], record[7], record[9]
            if version & 0xF == _VERSION and parent == pid:
                ticks += elapsed
        return ticks / _TICKS_A_SECOND


@contextlib.contextmanager
def accounting(file: Path) -> Iterator[Accounting]:
    """Have the kernel account for a while. Raises: OSError (not root, or it has none)."""
    file.touch(mode=0o600)
    _acct(os.fsencode(file))
    try:
        yield Accounting(file)
    finally:
        _acct(None)


def _acct(name: bytes | None) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.acct(name):
        raise OSError(ctypes.get_errno(), "the kernel does not account for processes")
