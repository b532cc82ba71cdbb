"""Mishaps at a chosen moment: something happens when the initiator has done a step.

    with mishaps() as at:
        at("record-written", lambda: faults.portal_drops(san, san.portals[0]))
        at.initiator().connect(info)

A fault lasts until the end of the ``with``, or of :meth:`Mishaps.heal`. Also words on the
settings and programs of open-iscsi that these tests need to change for a while.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from lunport.core.node_record import RecordSettings
from lunport.host.runner import find_program
from lunport.initiator.connected_volume import InitiatorPolicy
from lunport.initiator.connector import Initiator
from lunport.initiator.initiator_host import InitiatorHost

CONFIGURATION = Path("/etc/iscsi/iscsid.conf")
NOOP = re.compile(r"^(node\.conn\[0\]\.timeo\.noop_out_(?:interval|timeout)) = .*$", re.MULTILINE)
QUICK = InitiatorPolicy(
    record=RecordSettings(login_timeout_s=1, login_retries=1, logout_timeout_s=1),
    disk_s=2.0,
    answer_s=1.5,
    close_s=1.5,
    flush_s=4.0,
)


class Mishaps:
    """What is to happen at which step, once each; and all steps that were done."""

    def __init__(self, undo: contextlib.ExitStack) -> None:
        self.steps: list[str] = []
        self._undo = undo
        self._planned: dict[str, Callable[[], AbstractContextManager[object]]] = {}
        self._lock = threading.Lock()

    def __call__(self, step: str, fault: Callable[[], AbstractContextManager[object]]) -> None:
        """Let a fault begin at the step."""
        self._planned[step] = fault

    def heal(self) -> None:
        """End the faults that have begun."""
        self._undo.close()

    def initiator(self, policy: InitiatorPolicy = QUICK) -> Initiator:
        """Make the initiator to which it happens."""
        return Initiator(InitiatorHost(on_step=self._hear), policy)

    def _hear(self, step: str) -> None:
        with self._lock:
            self.steps.append(step)
            fault = self._planned.pop(step, None)
            if fault is not None:
                self._undo.enter_context(fault())


@contextlib.contextmanager
def mishaps() -> Iterator[Mishaps]:
    """Plan mishaps; what lasts is healed at the end."""
    with contextlib.ExitStack() as undo:
        yield Mishaps(undo)


@contextlib.contextmanager
def eager_pings() -> Iterator[None]:
    """Let sessions that are logged in meanwhile notice a dead portal within two seconds."""
    before = CONFIGURATION.read_text()
    CONFIGURATION.write_text(NOOP.sub(r"\1 = 1", before))
    try:
        yield
    finally:
        CONFIGURATION.write_text(before)


def count_iscsiadm(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """Write down every start of iscsiadm, also by our children; return how to read them.

    Each line is a start's argument vector and environment, as /proc shows them.
    """
    real, log = find_program("iscsiadm"), folder / "starts"
    assert real is not None
    places = folder / "bin"
    places.mkdir()
    shim = places / "iscsiadm"
    shim.write_text(
        "#!/bin/sh\n"
        f"{{ printf '%s ' \"$@\"; tr '\\0\\n' '  ' < /proc/$$/environ; echo; }} >> {log}\n"
        f'exec {real} "$@"\n'
    )
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", f"{places}:{os.environ['PATH']}")
    return lambda: log.read_text().splitlines() if log.exists() else []
