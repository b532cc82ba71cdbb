"""Lunport as the worker has it, through os-brick's calls."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Mapping
from typing import Any

from bench.attach_lunport import OurCommands
from bench.attach_worker import How, Volume, key_of
from lunport.compat.os_brick.initiator import connector


class Lunport:
    """Lunport through os-brick's calls."""

    def __init__(self) -> None:
        self._factory: Any = connector.InitiatorConnector.factory
        self._connected: dict[str, Any] = {}
        self._commands = OurCommands()

    def version(self) -> str:
        return f"lunport {importlib.metadata.version('lunport')}"

    def connect(self, volume: Volume, how: How) -> Mapping[str, Any]:
        found = self._new(how).connect_volume(dict(volume))
        self._connected[key_of(volume)] = found
        return {"device": os.path.realpath(found["path"])}

    def disconnect(self, volume: Volume, how: How) -> Mapping[str, Any]:
        found = self._connected.pop(key_of(volume), None)
        self._new(how).disconnect_volume(dict(volume), found, force=True, ignore_errors=False)
        return {}

    def take_commands(self) -> Mapping[str, int]:
        return self._commands.take()

    def _new(self, how: How) -> Any:
        several = bool(how.get("multipath"))
        return self._factory("ISCSI", "", use_multipath=several, device_scan_attempts=3)
