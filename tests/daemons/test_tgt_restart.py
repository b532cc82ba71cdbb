"""Exports after a kill: of tgtd, of the service between any two requests, and of one step."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import uuid
from collections.abc import Callable
from dataclasses import replace

import pytest

from lunport.core.change import Change
from lunport.core.chap import Chap, ChapCredentials
from lunport.core.errors import ExportFailed
from lunport.core.iqn import Iqn
from lunport.core.secret import Secret
from lunport.host.clock import Deadline
from lunport.host.process import open_process
from lunport.host.tgt_requests import TgtRequests
from lunport.host.tgt_show import parse_accounts, parse_targets
from lunport.host.tgt_socket import Direction, Mode, Op
from lunport.host.tgtd import OwnTgtd
from lunport.targets.helper import Export
from lunport.targets.tgt import TgtHelper
from tests.daemons.conftest import CHAP, INITIATOR, MIB, OTHER_INITIATOR, RunningTgtd
from tests.daemons.cut_requests import (
    CutError,
    CuttingSocket,
    is_bare,
    later_helper,
    requests_of,
)
from tests.daemons.qemu_io import QemuRefusedError, QemuSession
from tests.single_exports import chap_of, unit_of, with_chap

pytestmark = pytest.mark.needs("tgtd", "qemu-io")

MUTUAL = replace(CHAP, mutual=ChapCredentials("targetuser", Secret("OtherSecret12345")))


def is_usable(running: RunningTgtd, export: Export) -> bool:
    """Tell whether QEMU logs in with the secret, and not without it."""
    portal, initiator = running.portals[1], min(export.initiators)
    with pytest.raises(QemuRefusedError):
        QemuSession(running.folder, portal, export.iqn, initiator)
    chap = chap_of(export)
    if chap is None or chap.mutual is not None:
        return True
    with QemuSession(running.folder, portal, export.iqn, initiator, chap.initiator) as session:
        return "read 4096" in session.run("read 0 4k")


# -- tgtd is killed ------------------------------------------------------------------------


def test_a_killed_tgtd_comes_back_and_the_guest_goes_on(tgtd: RunningTgtd) -> None:
    """After KILL, start and export, a session of QEMU goes on by itself with its data."""
    export = tgtd.export()
    tgtd.helper.export(export)
    with QemuSession(
        tgtd.folder, tgtd.portals[0], export.iqn, INITIATOR, CHAP.initiator
    ) as session:
        session.run("write -P 0x42 0 1M")
        process = open_process(tgtd.daemon.pid() or 0, "tgtd")
        assert process is not None
        with process:
            process.kill()
            assert tgtd.helper.wait_for_exit(Deadline.after(10))
        assert tgtd.helper.start() is Change.CHANGED
        assert tgtd.helper.export(export) is Change.CHANGED
        assert "Pattern" not in session.run("read -P 0x42 0 1M", deadline_s=40)
        assert "wrote" in session.run("write -P 0x43 1M 1M")
    assert unit_of(export).path.read_bytes()[: 2 * MIB] == b"\x42" * MIB + b"\x43" * MIB


# -- the service is replaced ---------------------------------------------------------------


def test_a_later_service_knows_a_changed_secret_from_the_same(tgtd: RunningTgtd) -> None:
    """Without any memory the next service leaves equal credentials alone and swaps others."""
    export = tgtd.export(chap=MUTUAL)
    tgtd.helper.export(export)
    assert later_helper(tgtd).export(export) is Change.UNCHANGED
    for chap in (
        CHAP,
        Chap(ChapCredentials(CHAP.initiator.username, Secret("SecondSecret1234"))),
        Chap(ChapCredentials("anotheruser", Secret("SecondSecret1234"))),
    ):
        changed = with_chap(export, chap)
        helper = later_helper(tgtd)
        assert helper.export(changed) is Change.CHANGED
        assert later_helper(tgtd).export(changed) is Change.UNCHANGED
        assert is_usable(tgtd, changed)
        assert parse_accounts(requests_of(tgtd).show_accounts().text) == (chap.initiator.username,)


def test_what_was_just_listed_is_not_asked_for_again(tgtd: RunningTgtd) -> None:
    """Restoring many exports after a restart looks at all targets once, not once for each."""
    exports = [
        tgtd.export(f"0f0e0d0c-0b0a-4908-8706-0504030201{number:02x}", tid=number, chap=None)
        for number in range(1, 9)
    ]
    for export in exports:
        tgtd.helper.export(export)
    counting = CuttingSocket(tgtd, cut_at=0)
    helper = later_helper(tgtd)
    helper._daemon.socket = counting
    assert len(helper.exports()) == 8
    assert {helper.export(export) for export in exports} == {Change.UNCHANGED}
    assert counting.shows == 1


# -- half-made states ----------------------------------------------------------------------


Damage = Callable[[TgtRequests, Export], object]


def _only_the_target(requests: TgtRequests, export: Export) -> None:
    requests.delete_target(export.tid, by_force=True)
    requests.delete_account(CHAP.initiator.username)
    requests.new_target(export.tid, export.iqn)


def _another_number(requests: TgtRequests, export: Export) -> None:
    requests.delete_target(export.tid, by_force=True)
    requests.new_target(99, export.iqn)
    requests.admit(99, INITIATOR)


def _unit_without_identity(requests: TgtRequests, export: Export) -> None:
    requests._tgt.call(Mode.DEVICE, Op.DELETE, requests.deadline, tid=export.tid, lun=1)
    requests.new_unit(export.tid, 1, unit_of(export).path)


def _no_unit(requests: TgtRequests, export: Export) -> None:
    requests._tgt.call(Mode.DEVICE, Op.DELETE, requests.deadline, tid=export.tid, lun=1)


def _account_of_another_secret(requests: TgtRequests, export: Export) -> None:
    requests.delete_account(CHAP.initiator.username)
    requests.new_account(ChapCredentials(CHAP.initiator.username, Secret("WrongSecret12345")))
    requests.set_target(export.tid, "nop_count", 0)
    requests.bind_account(export.tid, CHAP.initiator.username, Direction.INCOMING)


def _account_not_bound(requests: TgtRequests, export: Export) -> None:
    requests.delete_account(CHAP.initiator.username)
    requests.new_account(CHAP.initiator)


def _strange_accounts(requests: TgtRequests, export: Export) -> None:
    for user, direction in (("extra", Direction.INCOMING), ("proof", Direction.OUTGOING)):
        requests.new_account(ChapCredentials(user, Secret("WrongSecret12345")))
        requests.bind_account(export.tid, user, direction)


def _second_unit(requests: TgtRequests, export: Export) -> None:
    requests.new_unit(export.tid, 2, unit_of(export).path)


DAMAGES: dict[str, Damage] = {
    "only the target": _only_the_target,
    "another number": _another_number,
    "no unit": _no_unit,
    "a unit without identity": _unit_without_identity,
    "a second unit": lambda requests, export: requests.new_unit(
        export.tid, 2, unit_of(export).path
    ),
    "no account": lambda requests, _: requests.delete_account(CHAP.initiator.username),
    "an account not bound": _account_not_bound,
    "an account of another secret": _account_of_another_secret,
    "strange accounts": _strange_accounts,
    "nobody admitted": lambda requests, export: requests.refuse(export.tid, INITIATOR),
    "somebody else admitted": lambda requests, export: requests.admit(export.tid, OTHER_INITIATOR),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_half_made_target_is_made_whole(tgtd: RunningTgtd, damage: str) -> None:
    """Whatever is missing, wrong or too much is repaired by the next service's export."""
    export = tgtd.export()
    tgtd.helper.export(export)
    DAMAGES[damage](requests_of(tgtd), export)
    helper = later_helper(tgtd)
    assert helper.export(export) is Change.CHANGED
    assert later_helper(tgtd).export(export) is Change.UNCHANGED
    assert is_usable(tgtd, export)
    (shown,) = parse_targets(requests_of(tgtd).show_targets().text)
    assert shown.initiators == (INITIATOR,)
    assert shown.accounts == (CHAP.initiator.username,)
    assert shown.outgoing is None
    assert [lun.lun for lun in shown.luns] == [1]
    assert helper.unexport(export.iqn, export.tid) is Change.CHANGED
    later_helper(tgtd)
    assert is_bare(tgtd)


@pytest.mark.parametrize("damage", ["no unit", "nobody admitted", "only the target", "no account"])
def test_the_same_service_repairs_what_it_made_as_well(tgtd: RunningTgtd, damage: str) -> None:
    """What a service remembers does not keep it from seeing that something is missing."""
    export = tgtd.export()
    tgtd.helper.export(export)
    DAMAGES[damage](requests_of(tgtd), export)
    tgtd.helper.exports()
    assert tgtd.helper.export(export) is Change.CHANGED
    assert tgtd.helper.export(export) is Change.UNCHANGED
    assert is_usable(tgtd, export)


# -- the service is killed between two requests, or one request fails ----------------------


EXPORT_REQUESTS = 9


def count_requests(running: RunningTgtd, export: Export) -> int:
    """Count what an export takes."""
    counting = CuttingSocket(running, cut_at=0)
    running.daemon.socket = counting
    TgtHelper(running.daemon).export(export)
    return counting.count


def test_an_export_takes_few_requests(tgtd: RunningTgtd) -> None:
    """Seven requests with CHAP for one host, nine with both directions."""
    assert count_requests(tgtd, tgtd.export()) == 7
    other = tgtd.export("0f0e0d0c-0b0a-4908-8706-050403020111", tid=2, chap=None)
    assert count_requests(tgtd, other) == 4
    tgtd.helper.unexport(tgtd.export().iqn, 1)
    assert count_requests(tgtd, tgtd.export(chap=MUTUAL)) == EXPORT_REQUESTS


@pytest.mark.parametrize("cut_at", range(2, EXPORT_REQUESTS + 1))
def test_a_kill_inside_an_export_is_made_good(tgtd: RunningTgtd, cut_at: int) -> None:
    """Killed before any request, an export can be finished, or taken away without a trace."""
    export = tgtd.export(chap=MUTUAL)
    for finish in (True, False):
        daemon = OwnTgtd(tgtd.daemon.folder, tgtd.portals)
        daemon.socket = CuttingSocket(tgtd, cut_at)
        with pytest.raises(CutError):
            TgtHelper(daemon).export(export)
        with pytest.raises(QemuRefusedError):
            QemuSession(tgtd.folder, tgtd.portals[0], export.iqn, INITIATOR)
        helper = later_helper(tgtd)
        if finish:
            assert helper.export(export) is Change.CHANGED
            assert later_helper(tgtd).export(export) is Change.UNCHANGED
        assert helper.unexport(export.iqn, export.tid) is Change.CHANGED
        assert is_bare(tgtd)


@pytest.mark.parametrize("cut_at", range(1, EXPORT_REQUESTS + 1))
def test_a_failing_step_undoes_those_before_it(tgtd: RunningTgtd, cut_at: int) -> None:
    """When tgtd refuses one request, the export fails and leaves neither target nor account."""
    export = tgtd.export(chap=MUTUAL)
    daemon = OwnTgtd(tgtd.daemon.folder, tgtd.portals)
    daemon.socket = CuttingSocket(tgtd, cut_at, refuses=True)
    with pytest.raises(ExportFailed, match="out of memory"):
        TgtHelper(daemon).export(export)
    assert is_bare(tgtd)


@pytest.mark.parametrize("cut_at", range(1, 5))
def test_a_kill_inside_an_unexport_is_made_good(tgtd: RunningTgtd, cut_at: int) -> None:
    """Killed before any request, an unexport can be finished by the next service."""
    export = tgtd.export(chap=MUTUAL)
    helper = TgtHelper(OwnTgtd(tgtd.daemon.folder, tgtd.portals))
    helper.export(export)
    helper._daemon.socket = CuttingSocket(tgtd, cut_at)
    if cut_at < 4:
        with pytest.raises(CutError):
            helper.unexport(export.iqn, export.tid)
    else:
        helper.unexport(export.iqn, export.tid)
    later_helper(tgtd).unexport(export.iqn, export.tid)
    assert is_bare(tgtd)


@pytest.mark.parametrize("cut_at", range(1, 14))
def test_a_kill_while_credentials_are_swapped_opens_nothing(tgtd: RunningTgtd, cut_at: int) -> None:
    """At no moment of a swap does anybody log in without a secret; the next service ends it."""
    export = tgtd.export()
    tgtd.helper.export(export)
    changed = with_chap(export, Chap(ChapCredentials("newuser", Secret("SecondSecret1234"))))
    daemon = OwnTgtd(tgtd.daemon.folder, tgtd.portals)
    daemon.socket = CuttingSocket(tgtd, cut_at)
    try:
        TgtHelper(daemon).export(changed)
    except CutError:
        with pytest.raises(QemuRefusedError):
            QemuSession(tgtd.folder, tgtd.portals[0], export.iqn, INITIATOR)
    later_helper(tgtd).export(changed)
    assert is_usable(tgtd, changed)


# -- under load ----------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["disallow", "unexport", "stop"])
def test_taking_away_under_load_neither_hangs_nor_kills_the_daemon(
    tgtd: RunningTgtd, verb: str
) -> None:
    """With many writes in flight the sessions end, and a second target is not touched."""
    export = tgtd.export(chap=None, size_bytes=256 * MIB)
    beside = tgtd.export("0f0e0d0c-0b0a-4908-8706-050403020111", tid=2)
    tgtd.helper.export(export)
    tgtd.helper.export(beside)
    pid = tgtd.daemon.pid()
    options = (
        f"driver=raw,file.driver=iscsi,file.transport=tcp,file.portal={tgtd.portals[0]},"
        f"file.target={export.iqn},file.lun=1,file.initiator-name={INITIATOR}"
    )
    argv = ["qemu-img", "bench", "-w", "-t", "none", "-c", "1000000", "-d", "32", "-s", "65536"]
    with subprocess.Popen(
        [*argv, "--image-opts", options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as load:
        try:
            while unit_of(export).path.stat().st_blocks * 512 < 32 * MIB:
                assert load.poll() is None
            if verb == "disallow":
                assert tgtd.helper.disallow(export.iqn, 1, INITIATOR) is Change.CHANGED
            elif verb == "unexport":
                assert tgtd.helper.unexport(export.iqn, 1) is Change.CHANGED
            else:
                assert tgtd.helper.stop() is Change.CHANGED
                return
        finally:
            os.kill(load.pid, signal.SIGKILL)
    assert tgtd.daemon.pid() == pid
    assert is_usable(tgtd, beside)
    left = {one.iqn: one.sessions for one in tgtd.helper.exports()}
    assert left.get(export.iqn, 0) == 0
    assert isinstance(beside.iqn, str)
    assert Iqn(beside.iqn) in left


def test_a_restart_beside_an_export_leaves_no_open_target(tgtd: RunningTgtd) -> None:
    """Accounts that are made and not yet bound are no leftovers for a start that sweeps."""
    stop = threading.Event()
    exports = [
        tgtd.export(str(uuid.UUID(int=number)), tid=number, chap=_chap_of(number))
        for number in range(1, 9)
    ]

    def sweep() -> None:
        while not stop.is_set():
            tgtd.helper.start()

    sweeper = threading.Thread(target=sweep)
    sweeper.start()
    try:
        for _ in range(40):
            for export in exports:
                tgtd.helper.export(export)
            answer = requests_of(tgtd).show_targets()
            shown = {target.tid: target.accounts for target in parse_targets(answer.text)}
            assert shown == {export.tid: (f"user{export.tid}",) for export in exports}
            for export in exports:
                tgtd.helper.unexport(export.iqn, export.tid)
    finally:
        stop.set()
        sweeper.join(30)


def _chap_of(number: int) -> Chap:
    return Chap(ChapCredentials(f"user{number}", Secret(f"Secret4Tests{number:04}")))
