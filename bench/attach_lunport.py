"""Lunport as the worker has it, by its own interface."""

from __future__ import annotations

import collections
import importlib.metadata
import os
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.attach_worker import How, Volume
from lunport.core.connection_info import ConnectionInfo, parse_connection_info
from lunport.core.multipath_use import StallProfile
from lunport.initiator.connector import Initiator
from lunport.initiator.initiator_host import InitiatorHost
from lunport.initiator.multipath_policy import MultipathPolicy

STEPS_KEPT = 64


class OurCommands:
    """Counts the programs that this process starts, whoever starts them (PEP 578)."""

    def __init__(self) -> None:
        self._commands: collections.Counter[str] = collections.Counter()
        sys.addaudithook(self._hear)

    def take(self) -> Mapping[str, int]:
        taken, self._commands = self._commands, collections.Counter()
        return taken

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "subprocess.Popen":
            self._commands[Path(os.fsdecode(arguments[0])).name] += 1


class LunportDirect:
    """Lunport's own interface, which says more: steps, the time to the choice, work done."""

    def __init__(self) -> None:
        self._steps = threading.local()
        self._host = InitiatorHost(on_step=self._note)
        self._initiator = Initiator(self._host)
        self._commands = OurCommands()

    def version(self) -> str:
        return f"lunport {importlib.metadata.version('lunport')}"

    def connect(self, volume: Volume, how: How) -> Mapping[str, Any]:
        before = self._begin()
        connected = self._initiator.connect(self._info(volume), **_several(how))
        return {
            "device": connected.path,
            "choice_s": connected.choice_s,
            "used": str(connected.used),
            **self._end(before),
        }

    def disconnect(self, volume: Volume, how: How) -> Mapping[str, Any]:
        before = self._begin()
        self._initiator.disconnect(self._info(volume))
        return self._end(before)

    def take_commands(self) -> Mapping[str, int]:
        return self._commands.take()

    def _info(self, volume: Volume) -> ConnectionInfo:
        return parse_connection_info({"driver_volume_type": "iscsi", "data": volume})

    def _begin(self) -> dict[str, int]:
        self._steps.began = time.monotonic()
        self._steps.noted = []
        return self._work()

    def _end(self, before: Mapping[str, int]) -> dict[str, Any]:
        work = {name: count - before[name] for name, count in self._work().items()}
        return {"steps": self._steps.noted, "work": work}

    def _work(self) -> dict[str, int]:
        sys_tree = self._host.sys
        return {"reads": sys_tree.reads, "lists": sys_tree.lists, "writes": sys_tree.writes}

    def _note(self, step: str) -> None:
        noted = getattr(self._steps, "noted", None)
        if noted is not None and len(noted) < STEPS_KEPT:
            noted.append((step, time.monotonic() - self._steps.began))


def _several(how: How) -> dict[str, Any]:
    if not how.get("multipath"):
        return {}
    stall = StallProfile(how.get("stall", "default"))
    return {"multipath": True, "policy": MultipathPolicy(ready=how.get("ready", 1), stall=stall)}
