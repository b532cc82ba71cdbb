"""Does with os-brick, or with Lunport behind os-brick's names, what it is told line by line.

    PYTHON os_brick_driver.py os_brick|lunport

Each line of standard input is a JSON object: ``{"make": ["ISCSI", {"use_multipath": true}],
"call": "connect_volume", "args": [...], "kwargs": {...}}``; ``make`` is null for a function of the
module. Each answer is a line: ``{"value": ...}`` or ``{"error": "CLASS", "text": ...}``.

Runs in os-brick's own environment too, so it needs the standard library alone. Three things are
done for os-brick, none of which changes what it answers: its pauses are shortened by ``hurry``,
and what failed is not tried twice more; new node records get one short try at a login instead of
the system's two minutes, and notice a silent portal as soon as Lunport's do; and lsscsi(8), which
it wants for one number, need not be installed.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

LOCKS = Path("/run/os-brick-driver")
PATIENCE = {
    "node.session.initial_login_retry_max": "1",
    "node.conn[0].timeo.login_timeout": "2",
    "node.conn[0].timeo.logout_timeout": "2",
    "node.conn[0].timeo.noop_out_interval": "2",
    "node.conn[0].timeo.noop_out_timeout": "2",
}


class Lunport:
    """Lunport as it is; needs no surroundings."""

    def __init__(self) -> None:
        self.connector: Any = importlib.import_module("lunport.compat.os_brick.initiator.connector")
        self.extra: dict[str, Any] = {}

    def hurry(self, factor: float) -> None:
        """Lunport has no pauses to shorten."""


class OsBrick:
    """os-brick with what it needs around it, privileged calls made in this process."""

    def __init__(self) -> None:
        lockutils = importlib.import_module("oslo_concurrency.lockutils")
        conf = importlib.import_module("oslo_config.cfg").CONF
        log = importlib.import_module("oslo_log.log")
        os_brick = importlib.import_module("os_brick")
        log.register_options(conf)
        conf([], project="driver")
        conf.set_override("default_log_levels", ["os_brick=CRITICAL", "oslo=CRITICAL"])
        log.setup(conf, "driver")
        LOCKS.mkdir(exist_ok=True)
        lockutils.set_defaults(str(LOCKS))
        os_brick.setup(conf)
        conf.set_override("lock_path", str(LOCKS), group="os_brick")
        importlib.import_module("os_brick.privileged").default.set_client_mode(False)
        rootwrap = importlib.import_module("os_brick.privileged.rootwrap")
        self._run: Callable[..., tuple[str, str]] = rootwrap.execute
        self._utils: Any = importlib.import_module("os_brick.utils")
        self._sleep: Callable[[float], None] = self._utils._time_sleep
        self._factor = 1.0
        attempts = self._utils.tenacity.stop_after_attempt
        self._utils.tenacity.stop_after_attempt = lambda _: attempts(1)
        self.connector: Any = importlib.import_module("os_brick.initiator.connector")
        self.extra: dict[str, Any] = {"execute": self.execute}

    def hurry(self, factor: float) -> None:
        """Divide os-brick's pauses: those of one function, and those between runs of a program."""
        self._factor = factor
        self._utils._time_sleep = lambda seconds: self._sleep(seconds / factor)

    def execute(self, *command: str, **how: Any) -> tuple[str, str]:
        """Run a program for os-brick."""
        if command == ("lsscsi",):
            return list_disks(), ""
        if "interval" in how:
            how["interval"] /= self._factor
        done = self._run(*command, **how)
        if command[0] == "iscsiadm" and command[-2:] == ("--op", "new"):
            changes = [
                word for name, value in PATIENCE.items() for word in ("-n", name, "-v", value)
            ]
            node = command[1 : command.index("--interface")]
            self._run("iscsiadm", *node, "--op", "update", *changes, **how)
        return done


def list_disks() -> str:
    """Say what lsscsi says, as far as os-brick reads it: ``[3:0:0:1] disk /dev/sda``."""
    return "\n".join(
        f"[{path.parents[1].name}] disk /dev/{path.name}"
        for path in Path("/sys/bus/scsi/devices").glob("*:*:*:*/block/*")
    )


def answer(library: Any, request: dict[str, Any]) -> dict[str, Any]:
    """Do one thing and say what came of it."""
    library.hurry(request.get("hurry", 1))
    try:
        if request["make"] is None:
            about: Any = library.connector
        else:
            protocol, settings = request["make"]
            about = library.connector.InitiatorConnector.factory(
                protocol, "", **(library.extra | settings)
            )
        value = getattr(about, request["call"])(
            *request.get("args", ()), **request.get("kwargs", {})
        )
        said: dict[str, Any] = {"value": value}
    except Exception as error:
        said = {"error": type(error).__name__, "text": str(error)[:400]}
    return said


def main() -> None:
    """Answer until standard input ends; only answers go to standard output."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    library = {"os_brick": OsBrick, "lunport": Lunport}[sys.argv[1]]()
    answers.write('{"ready": true}\n')
    for line in sys.stdin:
        answers.write(json.dumps(answer(library, json.loads(line))) + "\n")


if __name__ == "__main__":
    main()
