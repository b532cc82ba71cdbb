"""A service manager's notify socket, as systemd has one: datagrams, a word a line."""

from __future__ import annotations

import os
import select
import socket
from pathlib import Path
from types import TracebackType
from typing import Self

from lunport.host.clock import Deadline


class NotifySocket:
    """Takes what services say. A path, or (``@``) a name in the abstract namespace."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)

    @classmethod
    def below(cls, folder: Path) -> Self:
        """Make one in a folder."""
        return cls(str(folder / "notify"))

    @classmethod
    def abstract(cls) -> Self:
        """Make one that is in no folder."""
        return cls(f"@lunport-test-{os.getpid()}-{os.urandom(4).hex()}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._socket.close()

    def next(self, deadline: Deadline) -> list[str]:
        """Wait for what is said next; empty when nobody says anything in time."""
        ready, _, _ = select.select([self._socket], [], [], deadline.remaining_s())
        return self._socket.recv(4096).decode().splitlines() if ready else []

    def until(self, word: str, deadline: Deadline) -> list[str]:
        """Wait until a word is said; return all that was said by then."""
        said: list[str] = []
        while word not in said and not deadline.has_passed():
            said += self.next(deadline)
        return said
