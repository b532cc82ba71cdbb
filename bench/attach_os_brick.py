"""os-brick as the worker has it: in os-brick's own environment."""

from __future__ import annotations

import collections
import importlib.metadata
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import os_brick
from os_brick.initiator import connector
from os_brick.privileged import rootwrap
from oslo_concurrency import lockutils
from oslo_config import cfg
from oslo_log import log

from bench.attach_worker import How, Volume, key_of

LOCKS = Path("/run/bench-attach-locks")


class OsBrick:
    """os-brick with the surroundings that it needs: configuration, lock path, privileged daemon."""

    def __init__(self) -> None:
        conf = cfg.CONF
        log.register_options(conf)
        conf([], project="bench-attach")
        conf.set_override("default_log_levels", [])
        log.setup(conf, "bench-attach")
        LOCKS.mkdir(exist_ok=True)
        lockutils.set_defaults(str(LOCKS))
        os_brick.setup(conf)
        conf.set_override("lock_path", str(LOCKS), group="os_brick")
        # started once and kept, as in a compute service, but without sudo
        helper = Path(sys.executable).with_name("privsep-helper")
        conf.set_override("helper_command", str(helper), group="privsep_osbrick")
        self._factory = connector.InitiatorConnector.factory
        self._execute = rootwrap.execute
        self._connected: dict[str, Any] = {}
        self._commands: collections.Counter[str] = collections.Counter()
        self._spy("true", run_as_root=True)
        self._commands.clear()

    def version(self) -> str:
        return f"os-brick {importlib.metadata.version('os-brick')}"

    def connect(self, volume: Volume, how: How) -> Mapping[str, Any]:
        found = self._new(how).connect_volume(dict(volume))
        self._connected[key_of(volume)] = found
        return {"device": os.path.realpath(found["path"])}

    def disconnect(self, volume: Volume, how: How) -> Mapping[str, Any]:
        found = self._connected.pop(key_of(volume), None)
        self._new(how).disconnect_volume(dict(volume), found, force=True, ignore_errors=False)
        return {}

    def take_commands(self) -> Mapping[str, int]:
        taken, self._commands = self._commands, collections.Counter()
        return taken

    def _new(self, how: How) -> Any:
        several = bool(how.get("multipath"))
        return self._factory(
            "ISCSI", "", use_multipath=several, device_scan_attempts=3, execute=self._spy
        )

    def _spy(self, *command: str, **how: Any) -> Any:
        self._commands[Path(command[0]).name] += 1
        return self._execute(*command, **how)
