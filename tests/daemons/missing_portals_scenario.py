"""Play in a network of its own: portals whose addresses come and go under a running tgtd.

Run by ``test_missing_portals.py`` inside new namespaces, as ``python -m``; ends with 0 when
everything was as it shall be.
"""

from __future__ import annotations

import sys
from pathlib import Path

from lunport.core.change import Change
from lunport.core.identity import derive_identity
from lunport.core.portal import Portal
from lunport.core.target_path import TargetPath
from lunport.core.wwid import Wwid
from lunport.host.clock import Deadline
from lunport.host.iproute import set_up_loopback
from lunport.host.portal_probe import probe_path
from lunport.host.runner import run
from lunport.host.tgtd import OwnTgtd
from lunport.targets.naming import target_name
from lunport.targets.tgt import TgtHelper
from tests.daemons.conftest import CHAP, INITIATOR, MIB, VOLUME_ID
from tests.daemons.qemu_io import QemuSession
from tests.single_exports import single_export

ABSENT, HERE, SIX = Portal("192.0.2.77"), Portal("127.0.0.1"), Portal("2001:db8::77")


def soon() -> Deadline:
    """Give every step time enough."""
    return Deadline.after(20)


def play(folder: Path) -> None:
    """Bring addresses up and down, and look at portals and sessions."""
    set_up_loopback([], soon())
    helper = TgtHelper(OwnTgtd(folder / "state", (ABSENT, HERE, SIX)))
    assert helper.start() is Change.CHANGED
    assert list(helper.missing_portals) == [ABSENT, SIX]
    image = folder / "image"
    with image.open("wb") as file:
        file.truncate(MIB)
    export = single_export(
        target_name(VOLUME_ID), 1, image, derive_identity(VOLUME_ID), chap=CHAP,
        initiators=[INITIATOR],
    )  # fmt: skip
    helper.export(export)
    with QemuSession(folder, HERE, export.iqn, INITIATOR, CHAP.initiator) as session:
        assert "wrote" in session.run("write -P 1 0 4k")
        set_up_loopback([ABSENT.host], soon())
        assert helper.start() is Change.CHANGED
        assert list(helper.missing_portals) == [SIX]
        log_in(ABSENT)
        # The next service finds the rest, and the session was never touched.
        set_up_loopback([ABSENT.host, SIX.host], soon())
        later = TgtHelper(OwnTgtd(folder / "state", (ABSENT, HERE, SIX)))
        assert later.start() is Change.CHANGED
        assert later.start() is Change.UNCHANGED
        assert list(later.missing_portals) == []
        log_in(SIX)
        # An address that goes is missing; when it is back, tgtd listens on it still.
        run(["ip", "address", "delete", f"{ABSENT.host}/32", "dev", "lo"], soon())
        assert later.start() is Change.UNCHANGED
        assert list(later.missing_portals) == [ABSENT]
        set_up_loopback([ABSENT.host], soon())
        assert later.start() is Change.UNCHANGED
        assert list(later.missing_portals) == []
        log_in(ABSENT)
        assert "wrote" in session.run("write -P 2 0 4k")
        assert [one.sessions for one in later.exports()] == [1]
    assert later.stop() is Change.CHANGED


def log_in(portal: Portal) -> None:
    """Log in through a portal with our own initiator, look at the unit, and log out."""
    outcome = probe_path(
        TargetPath(portal, target_name(VOLUME_ID), 1),
        INITIATOR,
        CHAP,
        expected_wwid=Wwid(derive_identity(VOLUME_ID).wwid),
        check_lun=True,
        deadline=soon(),
    )
    assert outcome.is_healthy, outcome


if __name__ == "__main__":
    play(Path(sys.argv[1]))
