"""Where the files that all processes of a host share live.

``/run/lunport`` and ``/var/lib/lunport/host``; the environment variable ``LUNPORT_HOST_ROOT``
moves both below another folder (``$LUNPORT_HOST_ROOT/run`` ...), for the demo and tests.
"""

from __future__ import annotations

import os
from pathlib import Path

ENVIRONMENT_VARIABLE = "LUNPORT_HOST_ROOT"


def run_directory() -> Path:
    """Return the folder of what does not survive a reboot; it may not exist yet."""
    root = os.environ.get(ENVIRONMENT_VARIABLE)
    return Path(root) / "run" if root else Path("/run/lunport")


def state_directory() -> Path:
    """Return the folder of the host's journal; it may not exist yet."""
    root = os.environ.get(ENVIRONMENT_VARIABLE)
    return Path(root) / "state" if root else Path("/var/lib/lunport/host")
