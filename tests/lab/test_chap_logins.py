"""CHAP on the real kernel: it is demanded on every portal, and its secrets are seen nowhere."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lab.lio import Target
from lab.san import San
from lunport.core.chap import Chap, ChapCredentials
from lunport.core.connection_info import ConnectionInfo
from lunport.core.errors import AuthenticationFailed
from lunport.core.login_progress import ChoicePolicy
from lunport.core.portal import Portal
from lunport.core.secret import Secret
from lunport.core.target_path import TargetPath
from lunport.initiator.connected_volume import InitiatorPolicy
from lunport.initiator.connector import Initiator
from lunport.initiator.initiator_host import InitiatorHost
from tests.lab.connecting import CHAP, MUTUAL_CHAP, disks, info_of, node_records, sessions
from tests.lab.mishaps import count_iscsiadm
from tests.lab.traces import files_with

SECRET = CHAP.initiator.password.reveal()
TIMES = 4
PATIENT = InitiatorPolicy(choice=ChoicePolicy(grace_s=50, budget_s=55))
WRONG = ChapCredentials(CHAP.initiator.username, Secret("not-the-secret-1"))

# Reads what /proc shows of all processes, as fast as it can, until its input ends; then says
# how many looks it took, how many iscsiadm it saw, and what had the secret in it.
WATCHER = """
import os, select, sys
secret = sys.argv.pop().encode()[::-1]  # not as it is: it would see itself
looks, seen, bad = 0, set(), []
print("watching", flush=True)
while not select.select([sys.stdin], [], [], 0)[0]:
    looks += 1
    for pid in os.listdir("/proc"):
        if not pid.isdigit():
            continue
        for name in ("cmdline", "environ"):
            try:
                with open(f"/proc/{pid}/{name}", "rb") as file:
                    text = file.read()
            except OSError:
                continue
            if name == "cmdline" and b"iscsiadm" in text:
                seen.add(pid)
            if secret in text:
                bad.append((name, text))
print(looks, len(seen), bad, flush=True)
"""


@contextlib.contextmanager
def watched() -> Iterator[list[str]]:
    """Have every process's arguments and environment watched; gives looks, iscsiadms, finds."""
    said: list[str] = []
    with subprocess.Popen(
        [sys.executable, "-S", "-c", WATCHER, SECRET[::-1]],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as watcher:
        assert watcher.stdin is not None
        assert watcher.stdout is not None
        assert watcher.stdout.readline() == "watching\n"
        try:
            yield said
        finally:
            watcher.stdin.close()
            said += watcher.stdout.read().split(maxsplit=2)


@pytest.mark.parametrize("chap", [CHAP, MUTUAL_CHAP], ids=["one way", "mutual"])
def test_every_portal_takes_the_secret(san: San, chap: Chap) -> None:
    """Through each of the portals, IPv6 too, a volume is connected with CHAP and gone again."""
    target = san.target(chap=chap, portals=(*san.portals[:2], san.portals6[0]))
    disk = san.add_lun(target, 1)
    for portal in target.portals:
        info = info_of(target, 1, disk, portals=[portal], chap=chap)
        assert Initiator().connect(info).used.portal == portal
        Initiator().disconnect(info)


@contextlib.contextmanager
def bystander(san: San, portal: Portal) -> Iterator[socket.socket]:
    """A portal that takes connections; ``accept`` fails at once if nobody came."""
    with san.network.call(lambda: socket.create_server((portal.host, portal.port))) as server:
        server.setblocking(False)
        yield server


@pytest.mark.parametrize(
    "wrong",
    [Chap(WRONG), Chap(CHAP.initiator, WRONG), Chap(WRONG, MUTUAL_CHAP.mutual)],
    ids=["one way", "the target's", "the initiator's of both"],
)
def test_a_wrong_secret_is_final(san: San, wrong: Chap) -> None:
    """No other portal is asked, no login is tried, nothing is left, and no secret is told."""
    target = san.target(chap=MUTUAL_CHAP)
    disk = san.add_lun(target, 1)
    other = Portal(san.portals[1].host, 3999)
    info = info_of(target, 1, disk, portals=(san.portals[0], other), chap=wrong)
    steps: list[str] = []
    initiator = Initiator(InitiatorHost(on_step=steps.append), PATIENT)
    with bystander(san, other) as server:
        with pytest.raises(AuthenticationFailed) as raised:
            initiator.connect(info)
        with pytest.raises(BlockingIOError):
            server.accept()
    assert steps == []
    assert (sessions(), disks(), node_records(), initiator.connections()) == ([], [], [], ())
    shown = f"{raised.value} {raised.value!r}"
    assert WRONG.password.reveal() not in shown
    assert SECRET not in shown


def discovered(target: Target, info: ConnectionInfo) -> ConnectionInfo:
    """Name a portal that does not have the target first, so that discovery has to find it."""
    return replace(info, target_discovered=True, discovery_chap=CHAP.initiator)


def test_discovery_gives_its_own_secret(san: San) -> None:
    """The portals are discovered with CHAP; a wrong secret there is final as well."""
    san.discovery_chap(CHAP)
    target = san.target(portals=san.portals[1:])
    san.target("elsewhere", portals=san.portals[:1])
    disk = san.add_lun(target, 1)
    info = discovered(target, info_of(target, 1, disk, portals=[san.portals[1]]))
    volume = Initiator().connect(info)
    assert volume.used.portal == san.portals[1]
    assert {unused.path for unused in volume.unused} >= {
        TargetPath(portal, target.iqn, 1) for portal in san.portals[2:]
    }
    Initiator().disconnect(info)
    with pytest.raises(AuthenticationFailed):
        Initiator(policy=PATIENT).connect(replace(info, discovery_chap=WRONG))
    assert (sessions(), node_records(), Initiator().connections()) == ([], [], ())


def test_the_secret_is_seen_nowhere(
    san: San,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """There and back, and again: in no argv, environment, log, journal, or file of /run.

    While a volume is connected the secret is in its node record alone, which only root can
    read; afterwards it is in no file.
    """
    caplog.set_level(logging.DEBUG)
    target = san.target(chap=MUTUAL_CHAP)
    info = info_of(target, 1, san.add_lun(target, 1), chap=MUTUAL_CHAP)
    records: set[str] = set()
    modes: set[int] = set()
    looked: list[str] = []

    def look(step: str) -> None:
        if records and len(looked) > 24:
            return
        looked.append(step)
        for file in files_with(SECRET):
            assert file.startswith("/etc/iscsi/nodes/"), f"{file} after {step}"
            records.add(file)
            modes.add(stat.S_IMODE(os.stat(file).st_mode))  # noqa: PTH116

    initiator = Initiator(InitiatorHost(on_step=look))
    starts = count_iscsiadm(tmp_path, monkeypatch)
    with watched() as said:
        for _ in range(TIMES):
            volume = initiator.connect(info)
            assert SECRET not in repr(volume) + repr(initiator.connections()) + repr(info)
            initiator.disconnect(info)
            assert files_with(SECRET) == []
    looks, seen, bad = said
    assert (bad.strip(), int(looks) > TIMES, int(seen) > 0) == ("[]", True, True)
    assert len(starts()) == 2 * TIMES
    assert SECRET not in "".join(starts())
    assert (len(records), modes) == (1, {0o600})
    assert SECRET not in caplog.text
    assert MUTUAL_CHAP.mutual is not None
    assert files_with(MUTUAL_CHAP.mutual.password.reveal()) == []
