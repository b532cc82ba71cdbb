"""What an initiator sees of an exported image: identity, serial, credentials, space."""

from __future__ import annotations

import os
import re
import uuid
from dataclasses import replace

import pytest

from lunport.core.change import Change
from lunport.core.chap import Chap, ChapCredentials
from lunport.core.identity import derive_identity
from lunport.core.probe_outcome import ProbeOutcome, Verdict
from lunport.core.secret import Secret
from lunport.core.target_path import TargetPath
from lunport.core.wwid import Wwid
from lunport.host.clock import Deadline
from lunport.host.portal_probe import probe_path
from lunport.host.runner import run
from lunport.targets.helper import Export
from tests.daemons.conftest import CHAP, INITIATOR, MIB, OTHER_INITIATOR, RunningTgtd, StartTgtd
from tests.daemons.qemu_io import QemuRefusedError, QemuSession
from tests.single_exports import chap_of, unit_of, with_chap

pytestmark = pytest.mark.needs("tgtd", "qemu-io", "iscsi-inq")

MUTUAL = Chap(
    ChapCredentials("initiatoruser", Secret("Secret4Tests1234")),
    ChapCredentials("targetuser", Secret("OtherSecret12345")),
)


def probe(running: RunningTgtd, export: Export, *, portal: int = 0) -> ProbeOutcome:
    """Log in with our own initiator and look at the unit."""
    return probe_path(
        TargetPath(running.portals[portal], export.iqn, unit_of(export).lun),
        INITIATOR,
        chap_of(export),
        expected_wwid=Wwid(unit_of(export).identity.wwid),
        check_lun=True,
        deadline=Deadline.after(10),
    )


def inquire(running: RunningTgtd, export: Export, page: int) -> str:
    """Ask for a vital product data page with libiscsi's own tool."""
    url = f"iscsi://{running.portals[0]}/{export.iqn}/{unit_of(export).lun}"
    return run(
        ["iscsi-inq", "-i", INITIATOR, "-e", "1", "-c", str(page), url], Deadline.after(20)
    ).stdout


def test_page_0x83_shows_exactly_the_identity(tgtd: RunningTgtd) -> None:
    """Our probe and libiscsi's tool read the NAA-6 designator that the volume id implies."""
    export = tgtd.export(chap=None)
    tgtd.helper.export(export)
    outcome = probe(tgtd, export)
    assert outcome.verdict is Verdict.REACHABLE
    assert outcome.wwid == unit_of(export).identity.wwid
    assert outcome.size_bytes == 16 * MIB
    digits = unit_of(export).identity.wwid.removeprefix("naa.")
    assert digits in re.sub(r"[^0-9a-f]", "", inquire(tgtd, export, 0x83).lower())


def test_page_0x80_shows_the_volume_id(tgtd: RunningTgtd) -> None:
    """The unit's serial is the volume's id, so that a guest can be matched to it."""
    export = tgtd.export(chap=None)
    tgtd.helper.export(export)
    assert unit_of(export).identity.serial in inquire(tgtd, export, 0x80)


def test_no_two_volumes_look_alike(tgtd: RunningTgtd) -> None:
    """Forty volumes, some with ids that differ in one digit only, show forty identities."""
    ids = [str(uuid.uuid5(uuid.NAMESPACE_OID, str(number))) for number in range(36)]
    ids += [ids[0][:-1] + digit for digit in "0123" if ids[0][-1] != digit]
    seen = set()
    for number, volume_id in enumerate(ids, 1):
        export = tgtd.export(volume_id, tid=number, chap=None)
        tgtd.helper.export(export)
        outcome = probe(tgtd, export)
        assert outcome.wwid == derive_identity(volume_id).wwid
        seen.add(outcome.wwid)
    assert len(seen) == len(ids)


def test_the_identity_outlives_everything(start_tgtd: StartTgtd) -> None:
    """Re-exports, another number, another portal and another daemon show the same unit."""
    running = start_tgtd()
    export = running.export()
    running.helper.export(export)
    seen = {probe(running, export).wwid, probe(running, export, portal=1).wwid}
    running.helper.unexport(export.iqn, export.tid)
    export = replace(export, tid=33)
    running.helper.export(export)
    seen.add(probe(running, export).wwid)
    running.helper.stop()
    running.helper.start()
    running.helper.export(export)
    seen.add(probe(running, export).wwid)
    assert seen == {unit_of(export).identity.wwid}


def test_a_login_needs_the_right_name_and_the_right_secret(tgtd: RunningTgtd) -> None:
    """QEMU logs in with the secret; not with a wrong one, without one, or as another host."""
    export = tgtd.export()
    tgtd.helper.export(export)
    portal, target = tgtd.portals[0], export.iqn
    wrong = ChapCredentials(CHAP.initiator.username, Secret("WrongSecret12345"))
    for initiator, credentials in (
        (INITIATOR, wrong),
        (INITIATOR, None),
        (OTHER_INITIATOR, CHAP.initiator),
    ):
        with pytest.raises(QemuRefusedError):
            QemuSession(tgtd.folder, portal, target, initiator, credentials)
    with QemuSession(tgtd.folder, portal, target, INITIATOR, CHAP.initiator) as session:
        session.run("write -P 0x77 1M 1M")
        session.run("flush")
        assert "read 1048576" in session.run("read -P 0x77 1M 1M")
        session.log_out()
    assert unit_of(export).path.read_bytes()[MIB : 2 * MIB] == b"\x77" * MIB
    assert [one.sessions for one in tgtd.helper.exports()] == [0]


def test_both_sides_prove_themselves_with_mutual_chap(tgtd: RunningTgtd) -> None:
    """An initiator that demands the target's proof gets it, and believes no wrong one."""
    export = tgtd.export(chap=MUTUAL)
    tgtd.helper.export(export)
    assert probe(tgtd, export).verdict is Verdict.REACHABLE
    assert MUTUAL.mutual is not None
    doubtful = Chap(
        MUTUAL.initiator, ChapCredentials(MUTUAL.mutual.username, Secret("WrongSecret12345"))
    )
    assert probe(tgtd, with_chap(export, doubtful)).verdict is Verdict.TARGET_NOT_TRUSTED
    assert tgtd.helper.export(export) is Change.UNCHANGED
    one_way = with_chap(export, Chap(MUTUAL.initiator))
    assert tgtd.helper.export(one_way) is Change.CHANGED
    assert probe(tgtd, one_way).verdict is Verdict.REACHABLE
    tgtd.helper.unexport(export.iqn, export.tid)
    assert tgtd.helper.export(export) is Change.CHANGED
    assert probe(tgtd, export).verdict is Verdict.REACHABLE


def test_an_initiator_name_with_capitals_is_admitted_as_it_is_written(tgtd: RunningTgtd) -> None:
    """Names are compared byte by byte by tgtd, so the case is kept."""
    name = type(INITIATOR)("iqn.1991-05.com.microsoft:WIN-Host_7")
    export = tgtd.export(chap=None, initiators=frozenset({name}))
    tgtd.helper.export(export)
    with QemuSession(tgtd.folder, tgtd.portals[0], export.iqn, name) as session:
        assert "read" in session.run("read 0 512")


def test_discarded_space_is_given_back_and_reads_as_zeros(tgtd: RunningTgtd) -> None:
    """A guest's discard makes holes in the file, and only where it discarded."""
    export = tgtd.export(chap=None)
    tgtd.helper.export(export)
    with QemuSession(tgtd.folder, tgtd.portals[0], export.iqn, INITIATOR) as session:
        session.run("write -P 0x11 0 8M")
        session.run("flush")
        os.sync()
        full = unit_of(export).path.stat().st_blocks
        session.run("discard 2M 4M")
        session.run("flush")
        assert full * 512 >= 8 * MIB
        assert (full - unit_of(export).path.stat().st_blocks) * 512 >= 4 * MIB
        assert "Pattern" not in session.run("read -P 0 2M 4M")
        assert "Pattern" not in session.run("read -P 0x11 0 2M")
        assert "Pattern" not in session.run("read -P 0x11 6M 2M")
    assert unit_of(export).path.stat().st_size == 16 * MIB
