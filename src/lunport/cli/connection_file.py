"""Reading a connection info from a file or from stdin, without ever repeating what is in it.

As ``os-initialize_connection`` and the attachments API give it, with or without the outer
``{"connection_info": ...}`` or ``{"attachment": {"connection_info": ...}}``.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from typing import IO

import click

from lunport.core.connection_info import ConnectionInfo, parse_connection_info
from lunport.core.errors import InvalidConnectionInfo

_MAX_INPUT = 1 << 20
_OUTER_KEYS = ("attachment", "connection_info")


def read_connection_info(file: IO[str]) -> ConnectionInfo:
    """Read and check it; warn on stderr when others may read the file and it holds a secret.

    Raises: InvalidConnectionInfo, which never shows the text.
    """
    try:
        wire: object = json.loads(file.read(_MAX_INPUT))
    except (ValueError, RecursionError):
        wire = None
    for key in _OUTER_KEYS:
        if isinstance(wire, Mapping) and isinstance(wire.get(key), Mapping):
            wire = wire[key]
    if not isinstance(wire, Mapping):
        raise InvalidConnectionInfo("connection info", "...", "expected a JSON object")
    info = parse_connection_info(wire)
    if (info.chap or info.discovery_chap) and _is_open_to_all(file):
        words = f"{file.name} holds a secret and everybody can read it: chmod 600 {file.name}"
        click.echo(f"lunport: warning: {words}", err=True)
    return info


def _is_open_to_all(file: IO[str]) -> bool:
    try:
        status = os.fstat(file.fileno())
    except (OSError, ValueError):
        return False
    return stat.S_ISREG(status.st_mode) and bool(status.st_mode & stat.S_IROTH)
