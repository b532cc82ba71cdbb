"""Whether a volume gets a map, and what is said where it does not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from lunport.core.connection_info import ConnectionInfo
from lunport.core.errors import MultipathDown
from lunport.core.iqn import Iqn
from lunport.core.portal import Portal
from lunport.core.target_path import TargetPath
from lunport.host.clock import Deadline
from lunport.host.multipathd import Multipathd
from lunport.initiator.connected_volume import InitiatorPolicy
from lunport.initiator.initiator_host import InitiatorHost
from lunport.initiator.journal import Journal
from lunport.initiator.map_wish import asking_for_all, joined, wanted_use
from lunport.initiator.maps import Maps
from lunport.initiator.multipath_policy import MultipathPolicy

PATHS = tuple(
    TargetPath(Portal(f"10.0.{number}.2"), Iqn("iqn.2026-11.org.example:t1"), 1)
    for number in (1, 2)
)
ALTERNATIVES = ConnectionInfo(PATHS, has_alternatives=True)
RESILIENT = MultipathPolicy(resilient=True)


@dataclass(frozen=True, slots=True)
class PlayedMultipathd(Multipathd):
    """One that runs, and is asked for nothing else."""

    def is_running(self, deadline: Deadline | None = None) -> bool:
        """It does."""
        return True


def maps(folder: Path, *, is_watched: bool) -> Maps:
    """The maps of a host where multipathd runs."""
    host = InitiatorHost(
        journal=Journal(folder),
        boot_id="this boot",
        multipathd=PlayedMultipathd(),
        keeps_watch=is_watched,
    )
    return Maps(host, InitiatorPolicy())


def test_alternatives_are_used_one_at_a_time(tmp_path: Path) -> None:
    """A volume that has nothing but alternatives gets one path, and it is said; or a refusal."""
    here = maps(tmp_path, is_watched=True)
    use, note = wanted_use(ALTERNATIVES, MultipathPolicy(), here, multipath=True)
    assert use is None
    assert "one path at a time" in (note or "")
    demanding = replace(ALTERNATIVES, enforce_multipath=True)
    with pytest.raises(MultipathDown):
        wanted_use(demanding, MultipathPolicy(), here, multipath=True)
    for complete in (
        replace(ALTERNATIVES, is_complete=True),
        replace(ALTERNATIVES, target_discovered=True),
        ConnectionInfo(PATHS),
    ):
        use, note = wanted_use(complete, MultipathPolicy(), here, multipath=True)
        assert (use is not None and use.wanted is None, note) == (True, None)


def test_nothing_is_resilient_without_an_agent(tmp_path: Path) -> None:
    """A map of one path that nobody would move is not made, and it is said."""
    use, note = wanted_use(
        ALTERNATIVES, RESILIENT, maps(tmp_path, is_watched=True), multipath=False
    )
    assert (use is not None and use.wanted == 1, note) == (True, None)
    use, note = wanted_use(
        ALTERNATIVES, RESILIENT, maps(tmp_path, is_watched=False), multipath=False
    )
    assert use is None
    assert "no agent runs" in (note or "")


def test_one_named_portal_is_asked_for_the_others(tmp_path: Path) -> None:
    """It is where all paths are wanted and neither a list nor a second portal came."""
    one = ConnectionInfo(PATHS[:1])
    use, _ = wanted_use(one, MultipathPolicy(), maps(tmp_path, is_watched=False), multipath=True)
    assert asking_for_all(one, use).target_discovered
    assert not asking_for_all(one, None).target_discovered
    assert not asking_for_all(replace(one, is_complete=True), use).target_discovered
    assert not asking_for_all(ConnectionInfo(PATHS), use).target_discovered


def test_notes_are_joined() -> None:
    """None stays none."""
    assert joined([None, "one", None, "two"]) == "one; two"
    assert joined([None]) is None
