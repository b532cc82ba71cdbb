"""How long a session that lost its portal keeps I/O waiting."""

from __future__ import annotations

from pathlib import Path

import pytest

from lunport.host.iscsi_sysfs import recovery_tmo, set_recovery_tmo
from tests.fakes.fake_sysfs import FakeSysfs


@pytest.fixture
def sysfs(tmp_path: Path) -> FakeSysfs:
    """One session, with iscsid's default."""
    made = FakeSysfs(tmp_path)
    made.session(3, session={"recovery_tmo": "120\n"})
    return made


def test_it_is_read_and_set_by_the_sessions_number(sysfs: FakeSysfs) -> None:
    """What was set is read back, and setting it again writes nothing."""
    assert recovery_tmo(sysfs.tree, 3) == 120
    assert set_recovery_tmo(sysfs.tree, 3, 105)
    assert recovery_tmo(sysfs.tree, 3) == 105
    written = sysfs.tree.writes
    assert set_recovery_tmo(sysfs.tree, 3, 105)
    assert sysfs.tree.writes == written


def test_a_session_that_is_gone_has_none(sysfs: FakeSysfs) -> None:
    """Nothing is read, and setting it says that it was not set."""
    assert recovery_tmo(sysfs.tree, 4) is None
    assert not set_recovery_tmo(sysfs.tree, 4, 2)
