"""One implementation in a process of its own, told by lines of JSON what to connect.

    python -m bench.attach_worker os-brick|lunport|lunport-direct

    {"do": "connect", "volumes": [{"target_portal": ...}], "threads": 8,
     "how": {"multipath": true, "ready": 1, "stall": "default"}}
    {"total_s": 1.93, "volumes": [{"s": 1.93, "device": "/dev/sda"}], "commands": {"iscsiadm": 7}}

One process for a whole run, as in a compute service: imports and os-brick's privileged daemon
are paid once, before anything is measured. The first line of the answers says that it is ready.
An implementation is imported here alone, since os-brick's environment has nothing of the project.
"""

from __future__ import annotations

import concurrent.futures
import importlib
import json
import os
import sys
import time
from collections.abc import Mapping
from typing import Any, Protocol

Volume = dict[str, Any]
How = Mapping[str, Any]
"""``multipath``: over all paths. Of Lunport's own interface: ``ready`` paths are waited for
(None: all), ``stall``: what a lost path costs."""


def key_of(volume: Volume) -> str:
    """Name a volume by where it is."""
    return f"{volume['target_iqn']} {volume['target_lun']}"


class Implementation(Protocol):
    """What is measured. ``connect`` and ``disconnect`` say what they know beside the time."""

    def version(self) -> str: ...

    def connect(self, volume: Volume, how: How) -> Mapping[str, Any]: ...

    def disconnect(self, volume: Volume, how: How) -> Mapping[str, Any]: ...

    def take_commands(self) -> Mapping[str, int]: ...


IMPLEMENTATIONS: Mapping[str, tuple[str, str]] = {
    "os-brick": ("bench.attach_os_brick", "OsBrick"),
    "lunport": ("bench.attach_lunport_compat", "Lunport"),
    "lunport-direct": ("bench.attach_lunport", "LunportDirect"),
}


def main() -> int:
    """Do what each line of standard input says."""
    # Answers go to a descriptor of their own: what else is printed must not come between.
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        module, name = IMPLEMENTATIONS[sys.argv[1]]
        implementation: Implementation = getattr(importlib.import_module(module), name)()
        _answer(answers, {"ready": implementation.version()})
        for line in sys.stdin:
            _answer(answers, _obey(implementation, json.loads(line)))
    # A privileged daemon ends when its last client does; threads that hang are left to the kernel.
    os._exit(0)


def _obey(implementation: Implementation, order: Mapping[str, Any]) -> dict[str, Any]:
    verb = implementation.connect if order["do"] == "connect" else implementation.disconnect
    how: How = order.get("how", {})

    def one(volume: Volume) -> dict[str, Any]:
        began = time.monotonic()
        try:
            said = dict(verb(volume, how))
        except Exception as error:  # whatever an implementation raises is its result
            said = {"error": f"{type(error).__name__}: {error}"[:400]}
        return {**said, "s": time.monotonic() - began}

    implementation.take_commands()
    volumes, threads = order["volumes"], order.get("threads", 1)
    began = time.monotonic()
    if threads == 1:
        found = [one(volume) for volume in volumes]
    else:
        with concurrent.futures.ThreadPoolExecutor(threads) as pool:
            found = list(pool.map(one, volumes))
    total_s = time.monotonic() - began
    return {
        "total_s": total_s,
        "volumes": found,
        "commands": dict(implementation.take_commands()),
    }


def _answer(answers: Any, what: Mapping[str, Any]) -> None:
    answers.write(json.dumps(what) + "\n")
    answers.flush()


if __name__ == "__main__":
    sys.exit(main())
