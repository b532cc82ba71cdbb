"""What a recovery decides about a volume with several paths, on a model of a host."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from lunport.core.host_connection import Phase
from lunport.core.multipath_use import MemberPath, MultipathUse
from lunport.core.recovery_actions import (
    FinishDisconnect,
    KeepConnected,
    LeaveInUse,
    LeftoverUnit,
    LogOutUnused,
    UndoConnect,
)
from lunport.core.recovery_plan import plan_recovery
from tests.fakes.host_model import IQN, PORTALS, HostModel, entry_of, path_of, wwid_of

COMPLETION_STEPS = ["logged-in", "session-noted", "scanned", "member-noted"]
KEY = "volume-1"


def connected_map(host: HostModel) -> None:
    """Connect a volume that is to have a map, through its first portal."""
    entry = replace(entry_of(1), multipath=MultipathUse())
    for _ in host.connecting(entry, 0):
        pass
    done = host.connections[KEY]
    assert done.unit is not None
    assert done.disk_name is not None
    first = MemberPath(path_of(1, 0), "default", done.unit, done.disk_name, 0.0)
    host.connections[KEY] = replace(done, multipath=MultipathUse((first,)))


def completing(host: HostModel) -> Iterator[str]:
    """Bring the second path, a step at a time: as a connect does, but for the journal."""
    before = host.connections[KEY]
    for step in host.connecting(replace(before, key="second"), 1):
        host.connections.pop("second", None)
        if step == "connect-noted":
            break
        yield step
    session = host.find(PORTALS[1])
    assert session is not None
    unit = next(unit for unit in host.units.values() if unit.sid == session.sid)
    assert before.multipath is not None
    assert unit.disk_name is not None
    member = MemberPath(path_of(1, 1), "default", unit.address, unit.disk_name, 0.0)
    host.connections[KEY] = replace(before, multipath=before.multipath.with_member(member))
    yield "member-noted"


def run_until(work: Iterator[str], step: str) -> None:
    """Work up to a step, and no further."""
    assert any(done == step for done in work)


@pytest.mark.parametrize("step", COMPLETION_STEPS)
def test_a_completion_cut_off_anywhere_leaves_the_volume_connected(step: str) -> None:
    """The map stays, and so does what was made for its second path: the next pass goes on."""
    host = HostModel()
    connected_map(host)
    run_until(completing(host), step)
    actions = plan_recovery(host.facts())
    assert next(type(action) for action in actions if not action.changes) is KeepConnected
    assert not [action for action in actions if isinstance(action, LogOutUnused)]
    assert not [action for action in actions if action.changes]


@pytest.mark.parametrize("step", COMPLETION_STEPS)
def test_a_disconnect_cut_off_takes_every_path_along(step: str) -> None:
    """Wherever the completion had come, the disks and sessions of all paths go."""
    host = HostModel()
    connected_map(host)
    run_until(completing(host), step)
    host.connections[KEY] = replace(host.connections[KEY], phase=Phase.DISCONNECTING)
    actions = plan_recovery(host.facts())
    assert isinstance(actions[0], FinishDisconnect)
    for action in actions:
        host.carry_out(action)
    assert (host.connections, host.owned, host.sessions, host.units) == ({}, {}, {}, {})
    assert host.records == {}


def test_a_connect_cut_off_takes_every_path_along() -> None:
    """A connect that waits for several paths and is killed leaves none."""
    host = HostModel()
    connected_map(host)
    run_until(completing(host), "member-noted")
    host.connections[KEY] = replace(host.connections[KEY], phase=Phase.CONNECTING)
    actions = plan_recovery(host.facts())
    assert isinstance(actions[0], UndoConnect)
    assert len(actions[0].units) == 2
    for action in actions:
        host.carry_out(action)
    assert (host.sessions, host.units, host.records) == ({}, {}, {})


def test_a_map_in_use_keeps_all_its_disks() -> None:
    """While somebody has the map open, none of its disks goes."""
    host = HostModel()
    connected_map(host)
    run_until(completing(host), "member-noted")
    for address in tuple(host.units):
        host.open(address)
    host.connections[KEY] = replace(host.connections[KEY], phase=Phase.DISCONNECTING)
    actions = plan_recovery(host.facts())
    assert isinstance(actions[0], LeaveInUse)
    assert not [action for action in actions if action.changes]


def test_another_disk_on_one_of_the_paths_is_not_the_maps() -> None:
    """A unit of another identity at a path of the map is only told."""
    host = HostModel()
    connected_map(host)
    run_until(completing(host), "member-noted")
    session = host.find(PORTALS[1])
    assert session is not None
    address = next(unit.address for unit in host.units.values() if unit.sid == session.sid)
    host.remap(address, wwid_of(9))
    actions = plan_recovery(host.facts())
    assert [type(action) for action in actions] == [KeepConnected, LeftoverUnit]
    assert IQN in str(path_of(1))
