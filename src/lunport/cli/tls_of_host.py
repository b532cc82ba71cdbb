"""The certificates that the commands of a host show, if it has some."""

from __future__ import annotations

import os
from pathlib import Path

from lunport.host.tls import TlsFolder

TLS_VARIABLE = "LUNPORT_TLS"


def tls_of_host() -> TlsFolder | None:
    """Return the folder that ``LUNPORT_TLS`` names: for a volume service behind ``https``."""
    path = os.environ.get(TLS_VARIABLE, "")
    return TlsFolder(Path(path)) if path else None
