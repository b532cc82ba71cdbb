"""Certificates for tests: an authority and what it issues, good and bad in every way.

Each is the real thing, a folder as :class:`lunport.host.tls.TlsFolder` takes it.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from lunport.host.tls import CA_FILE, TlsFolder
from lunport.pki.authority import init_authority, issue, parse_holder

LOOPBACK = ("127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Authority:
    """An authority in a folder of its own, beside the folders that it issues."""

    folder: Path

    @classmethod
    def make(cls, folder: Path, name: str = "Tests") -> Authority:
        """Make one."""
        init_authority(folder / "pki", name, 3650, datetime.now(UTC))
        return cls(folder)

    def issue(self, host: str, *, days_ago: int = 0, days: int = 30) -> TlsFolder:
        """Issue a certificate for a host on loopback, as of some days ago."""
        made = self.folder / f"{host}-{days_ago}-{days}"
        if not made.exists():
            now = datetime.now(UTC) - timedelta(days=days_ago)
            issue(self.folder / "pki", made, parse_holder([host], LOOPBACK), days, now)
        return TlsFolder(made)

    def expired(self, host: str) -> TlsFolder:
        """Issue one that has expired."""
        return self.issue(host, days_ago=60)

    def not_yet(self, host: str) -> TlsFolder:
        """Issue one that is not valid yet."""
        return self.issue(host, days_ago=-10)

    def believed_by(self, folder: TlsFolder) -> TlsFolder:
        """Give a copy of another authority's folder that believes in this one."""
        copy = folder.path.with_name(f"{folder.path.name}-believes-{self.folder.name}")
        if not copy.exists():
            shutil.copytree(folder.path, copy)
            shutil.copy(self.folder / "pki" / CA_FILE, copy / CA_FILE)
        return TlsFolder(copy)
