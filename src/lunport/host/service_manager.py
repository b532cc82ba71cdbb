"""What systemd wants to hear of a service: READY, WATCHDOG, STOPPING (sd_notify(3)).

    NOTIFY_SOCKET=/run/systemd/notify   or   @name, in the abstract namespace
    WATCHDOG_USEC=60000000  WATCHDOG_PID=1234

One datagram for each word. Without these variables, or when nobody listens any more, nothing
happens: a service runs without a service manager as well.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass

_LOG = logging.getLogger(__name__)
_SEND_S = 1.0


@dataclass(frozen=True, slots=True)
class ServiceManager:
    """The one that started this process, if it did. ``watchdog_s``: how soon it loses patience."""

    address: str | None = None
    watchdog_s: float | None = None

    @classmethod
    def of(cls, environment: Mapping[str, str], pid: int | None = None) -> ServiceManager:
        """Read what it told this process; junk is as nothing."""
        address = environment.get("NOTIFY_SOCKET", "")
        if not address.startswith(("/", "@")) or len(address) < 2:
            return cls()
        return cls(address, _watchdog_s(environment, os.getpid() if pid is None else pid))

    def tell(self, *words: str) -> bool:
        """Send words such as ``READY=1``, a line each; tell whether they were taken."""
        if self.address is None:
            return False
        address = "\0" + self.address[1:] if self.address.startswith("@") else self.address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as one:
                one.settimeout(_SEND_S)
                one.sendto("\n".join(words).encode(), address)
        except OSError as error:
            _LOG.debug("service_manager_not_told words=%s error=%s", words[0], error.strerror)
            return False
        return True


def _watchdog_s(environment: Mapping[str, str], pid: int) -> float | None:
    told, meant = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
    if not (told.isascii() and told.isdigit()) or meant not in ("", str(pid)):
        return None
    return int(told) / 1e6 or None
