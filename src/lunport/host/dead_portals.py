"""The portals this host saw dead lately, so that the next choice tries them last.

One empty file per portal in ``/run/lunport/dead-portals``, its name the portal, its mtime the
moment; shared by all processes of the host. A memory, not a record: whatever goes wrong with
a file is as if nothing were remembered, and nobody fails for it.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, unquote

from lunport.core.errors import InvalidPortal
from lunport.core.portal import Portal, parse_portal
from lunport.host.host_root import run_directory

TTL_S = 60.0


def _default_directory() -> Path:
    return run_directory() / "dead-portals"


@dataclass(frozen=True, slots=True)
class DeadPortals:
    """The memory in one folder; safe to share between threads and processes."""

    directory: Path = field(default_factory=_default_directory)
    ttl_s: float = TTL_S

    def remember(self, portal: Portal) -> None:
        """Note that a portal is dead now. Idempotent; renews the moment."""
        with contextlib.suppress(OSError):
            self.directory.mkdir(mode=0o755, parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            descriptor = os.open(self._file(portal), flags, 0o644)
            try:
                os.utime(descriptor)
            finally:
                os.close(descriptor)

    def forget(self, portal: Portal) -> None:
        """Note that a portal answers. Idempotent."""
        with contextlib.suppress(OSError):
            self._file(portal).unlink(missing_ok=True)

    def current(self) -> frozenset[Portal]:
        """Return the portals whose memory is still fresh; drop what is older."""
        try:
            entries = list(os.scandir(self.directory))
        except OSError:
            return frozenset()
        now = time.time()
        return frozenset(portal for entry in entries if (portal := self._read(entry, now)))

    def _read(self, entry: os.DirEntry[str], now: float) -> Portal | None:
        try:
            portal = parse_portal(unquote(entry.name))
            age_s = now - entry.stat(follow_symlinks=False).st_mtime
        except (InvalidPortal, OSError):
            return None
        # A moment in the future (the clock was set back) is no memory either.
        if -self.ttl_s <= age_s < self.ttl_s:
            return portal
        self.forget(portal)
        return None

    def _file(self, portal: Portal) -> Path:
        return self.directory / quote(str(portal), safe="[]:")
