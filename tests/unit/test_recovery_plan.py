"""What a recovery decides: each rule by an example, and all together on a model of a host."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from lunport.core.host_connection import Phase, session_key
from lunport.core.node_record import record_place
from lunport.core.recovery_actions import (
    DeleteRecord,
    FinishDisconnect,
    ForgetConnection,
    ForgetSession,
    KeepConnected,
    KernelUnit,
    LeaveBusy,
    LeaveInUse,
    LeftoverRecord,
    LeftoverSession,
    LeftoverUnit,
    LogOutUnused,
    RecoveryAction,
    ReportLost,
    RestoreRecord,
    UndoConnect,
)
from lunport.core.recovery_plan import plan_recovery
from lunport.core.scsi_address import ScsiAddress
from lunport.core.secret import Secret
from tests.fakes.host_model import (
    IQN,
    OURS,
    PORTALS,
    HostModel,
    entry_of,
    path_of,
    wwid_of,
)

PLACE = record_place(PORTALS[0], IQN, 1, "default")
CONNECT_STEPS = [
    "connect-intended",
    "session-intended",
    "record-written",
    "logged-in",
    "session-noted",
    "scanned",
]
DISCONNECT_STEPS = ["disconnect-intended", "disk-removed", "logged-out", "session-forgotten"]


def run_until(work: Iterator[str], step: str) -> None:
    """Work up to a step, and no further."""
    assert any(done == step for done in work)


def connected_host(*luns: int, stated: bool = True) -> HostModel:
    """Make a host with these volumes connected through the first portal."""
    host = HostModel()
    for lun in luns:
        run_until(host.connecting(entry_of(lun, stated=stated), 0), "connect-noted")
    return host


def plan_kinds(host: HostModel) -> list[type[RecoveryAction]]:
    """Plan, and give the kinds of the actions."""
    return [type(action) for action in plan_recovery(host.facts())]


def recover(host: HostModel) -> list[RecoveryAction]:
    """Plan, carry all out, and check that nothing is left to do."""
    actions = plan_recovery(host.facts())
    for action in actions:
        host.carry_out(action)
    assert not [action for action in plan_recovery(host.facts()) if action.changes]
    return list(actions)


def only_unit(host: HostModel) -> KernelUnit:
    """Give the one unit of a host."""
    (unit,) = host.units.values()
    return unit


def assert_nothing_left(host: HostModel) -> None:
    """Check that journal, kernel and records are empty."""
    assert (host.connections, host.owned, host.sessions, host.units) == ({}, {}, {}, {})
    assert host.records == {}


# -- connections ---------------------------------------------------------------------------


def test_what_is_as_the_journal_says_is_kept() -> None:
    """A connected volume whose disk is there needs nothing, open or not."""
    host = connected_host(1)
    assert plan_kinds(host) == [KeepConnected]
    host.open(only_unit(host).address)
    assert plan_kinds(host) == [KeepConnected]


@pytest.mark.parametrize("stated", [True, False])
@pytest.mark.parametrize("step", CONNECT_STEPS)
def test_a_connect_cut_off_anywhere_is_undone(step: str, stated: bool) -> None:
    """Whatever a connect got done before it was cut off, nothing of it is left."""
    host = HostModel()
    run_until(host.connecting(entry_of(1, stated=stated), 0), step)
    actions = recover(host)
    assert isinstance(actions[0], UndoConnect)
    assert_nothing_left(host)


@pytest.mark.parametrize("stated", [True, False])
@pytest.mark.parametrize("step", DISCONNECT_STEPS)
def test_a_disconnect_cut_off_anywhere_is_finished(step: str, stated: bool) -> None:
    """Wherever a disconnect was cut off, nothing of the connection is left."""
    host = connected_host(1, stated=stated)
    run_until(host.disconnecting("volume-1"), step)
    actions = recover(host)
    assert isinstance(actions[0], FinishDisconnect)
    assert_nothing_left(host)


@pytest.mark.parametrize("step", CONNECT_STEPS)
def test_a_reboot_in_a_connect_leaves_no_record(step: str) -> None:
    """After a power cut in a connect the record with the secret and the entries are gone."""
    host = HostModel()
    run_until(host.connecting(entry_of(1), 0), step)
    host.reboot()
    actions = recover(host)
    assert isinstance(actions[-1], ForgetConnection)
    assert_nothing_left(host)


def test_a_connection_of_an_earlier_boot_is_reported() -> None:
    """After a reboot the record goes first, then the entry, and the loss is told."""
    host = connected_host(1)
    host.reboot()
    assert recover(host) == [
        DeleteRecord(PORTALS[0], IQN, PLACE),
        ReportLost("volume-1", None, "this host was started anew since"),
    ]
    assert_nothing_left(host)


def test_an_earlier_boot_says_nothing_about_todays_kernel() -> None:
    """A session and a disk like ours, made by somebody else after a reboot, are theirs."""
    host = connected_host(1)
    host.reboot()
    theirs = host.log_in(PORTALS[0], ours=False)
    host.show(theirs, 1, wwid_of(1))
    kinds = [type(action) for action in recover(host)]
    assert kinds == [DeleteRecord, ReportLost, LeftoverSession]
    assert theirs.sid in host.sessions
    assert len(host.units) == 1


def test_a_connection_whose_disk_is_gone_is_reported() -> None:
    """A connected volume without its disk is told and forgotten, and its session goes."""
    host = connected_host(1)
    host.units.clear()
    actions = recover(host)
    assert actions[-1] == ReportLost("volume-1", None, "its disk is gone")
    assert_nothing_left(host)


def test_a_connection_whose_session_is_gone_is_reported() -> None:
    """A connected volume whose session somebody logged out is told and forgotten."""
    host = connected_host(1)
    host.lose_session(1)
    assert recover(host)[-1] == ReportLost("volume-1", None, "its session is gone")
    assert_nothing_left(host)


def test_a_disk_with_another_identity_is_not_removed() -> None:
    """Where the unit was remapped, the entry goes, and the disk stays and is shown."""
    host = connected_host(1)
    host.remap(only_unit(host).address, wwid_of(9))
    lost, leftover = recover(host)
    assert isinstance(lost, ReportLost)
    assert wwid_of(9) in str(lost)
    assert isinstance(leftover, LeftoverUnit)
    assert leftover.is_removable
    assert len(host.units) == len(host.sessions) == 1


def test_a_finished_disconnect_leaves_a_foreign_identity() -> None:
    """A disconnect that is finished later removes no disk of another identity."""
    host = connected_host(1)
    entry = host.connections["volume-1"]
    host.connections["volume-1"] = replace(entry, phase=Phase.DISCONNECTING)
    host.remap(only_unit(host).address, wwid_of(9))
    assert isinstance(recover(host)[-1], LeftoverUnit)
    assert len(host.units) == 1


def test_an_undone_connect_removes_what_it_scanned_whatever_that_is() -> None:
    """A connect cut off before it saw that the disk is a wrong one leaves nothing of it."""
    host = connected_host(1)
    entry = host.connections["volume-1"]
    host.connections["volume-1"] = replace(entry, phase=Phase.CONNECTING)
    host.remap(only_unit(host).address, wwid_of(9))
    recover(host)
    assert not host.units
    assert not host.sessions


def test_a_disk_in_use_with_another_identity_keeps_its_entry() -> None:
    """While somebody has a remapped disk open, its entry is kept, and says who."""
    host = connected_host(1)
    host.remap(only_unit(host).address, wwid_of(9))
    host.open(only_unit(host).address)
    (action,) = recover(host)
    assert isinstance(action, LeaveInUse)
    assert "qemu" in str(action)


@pytest.mark.parametrize("phase", [Phase.CONNECTING, Phase.DISCONNECTING])
def test_a_disk_in_use_is_left(phase: Phase) -> None:
    """Unfinished work on a disk that is open waits until it is closed."""
    host = connected_host(1)
    host.connections["volume-1"] = replace(host.connections["volume-1"], phase=phase)
    address = only_unit(host).address
    host.open(address)
    assert [type(action) for action in recover(host)] == [LeaveInUse]
    host.units[address] = replace(host.units[address], openers=())
    recover(host)
    assert_nothing_left(host)


def test_an_identity_that_cannot_be_read_is_no_reason_to_give_up() -> None:
    """A connected disk whose identity is not readable now is kept; an unfinished one stays."""
    host = connected_host(1)
    host.remap(only_unit(host).address, None)
    assert plan_kinds(host) == [KeepConnected]
    entry = host.connections["volume-1"]
    host.connections["volume-1"] = replace(entry, phase=Phase.DISCONNECTING)
    assert [type(action) for action in recover(host)] == [FinishDisconnect, LeftoverUnit]
    assert len(host.units) == 1


def test_a_unit_without_identity_is_ours_where_it_was_noted() -> None:
    """A unit that never had an identity is finished at its place, and only there."""
    host = connected_host(1, stated=False)
    entry = replace(host.connections["volume-1"], phase=Phase.DISCONNECTING, seen_wwid=None)
    host.connections["volume-1"] = entry
    address = only_unit(host).address
    host.remap(address, wwid_of(9))
    assert isinstance(plan_recovery(host.facts())[0], FinishDisconnect)
    assert plan_recovery(host.facts())[0].units == ()  # type: ignore[union-attr]
    host.remap(address, None)
    assert plan_recovery(host.facts())[0].units == (host.units[address],)  # type: ignore[union-attr]


def test_an_earlier_try_on_another_path_is_cleaned_up() -> None:
    """What an earlier path's try left on a session of ours goes with the connect's undo."""
    host = HostModel()
    run_until(host.connecting(entry_of(1), 0), "scanned")
    run_until(host.connecting(entry_of(1), 1), "scanned")
    recover(host)
    assert_nothing_left(host)


def test_a_disk_of_others_on_a_path_not_in_use_is_left() -> None:
    """The same volume, connected by others through another portal, is not touched."""
    host = connected_host(1)
    theirs = host.log_in(PORTALS[1], ours=False)
    unit = host.show(theirs, 1, wwid_of(1))
    run_until(host.disconnecting("volume-1"), "disconnect-intended")
    recover(host)
    assert host.sessions == {theirs.sid: theirs}
    assert host.units == {unit.address: unit}


def test_a_unit_that_a_connection_stands_on_is_nobody_elses() -> None:
    """A connect cut off at the LUN of a connected volume does not take its disk away."""
    host = connected_host(1)
    rival = replace(entry_of(1, stated=False), key="rival", used=path_of(1))
    host.connections["rival"] = rival
    kinds = [type(action) for action in recover(host)]
    assert kinds == [KeepConnected, UndoConnect]
    assert len(host.units) == 1


def test_what_another_process_works_on_is_left_alone() -> None:
    """A busy connection keeps its units, its session and its records, in whatever state."""
    host = HostModel()
    for done in host.connecting(entry_of(1), 0):
        facts = replace(host.facts(), busy=frozenset({"volume-1"}))
        assert plan_recovery(facts) == (LeaveBusy("volume-1"),), done


# -- sessions and records --------------------------------------------------------------------


def test_a_session_that_another_volume_uses_stays() -> None:
    """Finishing one volume's disconnect leaves the session to the other volume on it."""
    host = connected_host(1, 2)
    run_until(host.disconnecting("volume-1"), "disconnect-intended")
    assert [type(action) for action in recover(host)] == [KeepConnected, FinishDisconnect]
    assert list(host.connections) == ["volume-2"]
    assert (len(host.sessions), len(host.units), len(host.owned)) == (1, 1, 1)


def test_a_session_without_volumes_is_logged_out() -> None:
    """A session of ours with nothing on it and no connection goes, and its record with it."""
    host = connected_host(1)
    host.units.clear()
    host.connections.clear()
    assert recover(host) == [
        LogOutUnused(PORTALS[0], IQN, 1),
        DeleteRecord(PORTALS[0], IQN, PLACE),
    ]
    assert_nothing_left(host)


def test_a_record_that_ours_replaced_comes_back() -> None:
    """Somebody else's record, in whose place ours was, is as it was before."""
    host = HostModel(records={PLACE: "theirs"})
    run_until(host.connecting(entry_of(1), 0), "scanned")
    assert host.records == {PLACE: OURS}
    actions = recover(host)
    assert RestoreRecord(PORTALS[0], IQN, PLACE, Secret("theirs")) in actions
    assert host.records == {PLACE: "theirs"}
    assert "theirs" not in "".join(map(repr, actions))


def test_another_login_to_the_same_target_is_not_ours() -> None:
    """Where our session is gone and another one leads there, only record and entry go."""
    host = connected_host(1)
    host.lose_session(1)
    theirs = host.log_in(PORTALS[0], ours=False)
    kinds = [type(action) for action in recover(host)]
    assert kinds == [DeleteRecord, ReportLost, LeftoverSession]
    assert list(host.sessions) == [theirs.sid]


def test_a_login_that_was_not_begun_owns_no_session() -> None:
    """Without our record there was no login: a session that is there is another's."""
    host = HostModel()
    run_until(host.connecting(entry_of(1), 0), "session-intended")
    theirs = host.log_in(PORTALS[0], ours=False)
    kinds = [type(action) for action in recover(host)]
    assert kinds == [UndoConnect, ForgetSession, LeftoverSession]
    assert list(host.sessions) == [theirs.sid]


def test_a_disk_that_appeared_before_our_scan_is_not_ours() -> None:
    """Without a stated identity, only a session whose number was noted can hold our disk."""
    host = HostModel()
    run_until(host.connecting(entry_of(1, stated=False), 0), "record-written")
    unit = host.show(host.log_in(PORTALS[0], ours=False), 1, wwid_of(1))
    kinds = [type(action) for action in recover(host)]
    assert kinds == [UndoConnect, LeftoverUnit]
    assert host.units == {unit.address: unit}


# -- what no journal knows -------------------------------------------------------------------


def test_what_no_journal_knows_is_shown_and_not_touched() -> None:
    """Sessions, disks and records of others are leftovers that only somebody may ask to go."""
    host = connected_host(1)
    ours = host.sessions[1]
    stray = host.show(ours, 7, wwid_of(7), openers=("mounted on /mnt",))
    theirs = host.log_in(PORTALS[1], ours=False)
    root = host.show(theirs, 0, wwid_of(8), openers=("mounted on /",))
    host.records["iqn.2026-11.org.example:old/10.0.9.9,3260,1/default"] = "old"
    host.records[record_place(PORTALS[1], IQN, 1, "default")] = "theirs"
    kept, *leftovers = recover(host)
    assert isinstance(kept, KeepConnected)
    assert leftovers == [
        LeftoverUnit(stray),
        LeftoverSession(theirs, (root,)),
        LeftoverRecord("iqn.2026-11.org.example:old/10.0.9.9,3260,1/default", None),
        LeftoverRecord(record_place(PORTALS[1], IQN, 1, "default"), theirs.sid),
    ]
    removable = [leftover.is_removable for leftover in leftovers]  # type: ignore[union-attr]
    assert removable == [False, False, True, False]


def test_every_action_is_a_sentence() -> None:
    """Each action says in one line what it is about, and whether it changes anything."""
    unit = KernelUnit(3, ScsiAddress(3, 0, 0, 1), "sda", wwid_of(1), ("qemu (4711)",))
    bare = KernelUnit(3, ScsiAddress(3, 0, 0, 0), None, None, ())
    session = HostModel().log_in(PORTALS[0], ours=False)
    sentences = {
        str(action): action.changes
        for action in (
            KeepConnected("k", unit),
            LeaveInUse("k", unit),
            LeaveBusy("k"),
            UndoConnect("k", ()),
            FinishDisconnect("k", (unit, bare)),
            ReportLost("k", "v", "its disk is gone"),
            ForgetConnection("k"),
            LogOutUnused(PORTALS[0], IQN, 3),
            DeleteRecord(PORTALS[0], IQN, PLACE),
            RestoreRecord(PORTALS[0], IQN, PLACE, Secret("theirs")),
            ForgetSession(PORTALS[0], IQN),
            LeftoverUnit(unit),
            LeftoverSession(session, (unit, bare)),
            LeftoverRecord(PLACE, None),
        )
    }
    assert sentences == {
        "Keep k: it is connected as /dev/sda.": False,
        f"Leave k: /dev/sda ({wwid_of(1)}) is in use by qemu (4711).": False,
        "Leave k: another process is working on it.": False,
        "Undo the connect of k that was cut off.": True,
        "Finish the disconnect of k that was cut off, removing /dev/sda, unit 3:0:0:0.": True,
        "Give up k (volume v), which was connected: its disk is gone.": True,
        "Forget k, whose connect or disconnect was cut off before the last start.": True,
        f"Log out of {IQN} at 10.0.1.2:3260 (session 3): nothing uses it.": True,
        f"Delete the node record {PLACE}, which was written for a session of ours.": True,
        f"Put back the node record {PLACE} as it was before ours.": True,
        f"Forget the session to {IQN} at 10.0.1.2:3260, of which nothing is left.": True,
        f"No journal knows /dev/sda ({wwid_of(1)}), in use by qemu (4711).": False,
        f"No journal knows session 1 to {IQN} at 10.0.1.2:3260 with /dev/sda, unit 3:0:0:0"
        ", in use by qemu (4711).": False,
        f"No journal knows the node record {PLACE}.": False,
    }


# -- all together ----------------------------------------------------------------------------

PLACES = tuple(record_place(portal, IQN, 1, "default") for portal in PORTALS)


@st.composite
def hosts(draw: st.DrawFn) -> HostModel:
    """Draw a host on which work went well, was cut off, and more happened meanwhile."""
    host = HostModel()
    for place in draw(st.sets(st.sampled_from(PLACES))):
        host.records[place] = "theirs"
    for portal in draw(st.sets(st.sampled_from(PORTALS), max_size=1)):
        host.log_in(portal, ours=False)
    for _ in range(draw(st.integers(0, 6))):
        lun = draw(st.integers(0, 3))
        entry = host.connections.get(f"volume-{lun}")
        if entry is None:
            work = host.connecting(
                entry_of(lun, stated=draw(st.booleans())), draw(st.sampled_from([0, 1]))
            )
        elif entry.phase is Phase.CONNECTED:
            work = host.disconnecting(entry.key)
        else:
            continue
        for _step in range(draw(st.sampled_from([99, 99, draw(st.integers(0, 8))]))):
            if next(work, None) is None:
                break
    return host


def happen(host: HostModel, data: st.DataObject) -> None:
    """Let something happen to a host that no journal hears of."""
    units = st.sampled_from(sorted(host.units)) if host.units else None
    what = data.draw(
        st.sampled_from(
            ["open", "remap", "blind", "lose-unit", "lose-session", "login", "record", "reboot"]
        )
    )
    if what == "reboot":
        host.reboot()
    elif what == "login":
        session = host.log_in(data.draw(st.sampled_from(PORTALS)), ours=False)
        host.show(session, data.draw(st.integers(0, 3)), wwid_of(data.draw(st.integers(0, 4))))
    elif what == "record":
        for place in data.draw(st.sets(st.sampled_from(PLACES))):
            host.records.pop(place, None)
    elif what == "lose-session" and host.sessions:
        host.lose_session(data.draw(st.sampled_from(sorted(host.sessions))))
    elif units is not None:
        address = data.draw(units)
        if what == "open":
            host.open(address)
        elif what == "lose-unit":
            del host.units[address]
        elif what in ("remap", "blind"):
            host.remap(address, None if what == "blind" else wwid_of(data.draw(st.integers(0, 4))))


@given(hosts())
def test_after_work_that_was_cut_off_only_whole_connections_are_left(host: HostModel) -> None:
    """Whatever was cut off: connected volumes stay as they are, all else of ours is gone."""
    whole = {k: e for k, e in host.connections.items() if e.phase is Phase.CONNECTED}
    others = {sid for sid in host.sessions if sid not in host.our_sids}
    actions = recover(host)
    event(f"{sum(action.changes for action in actions)} changes")
    assert host.connections == whole
    assert {e.unit for e in whole.values()} <= set(host.units)
    on_ours = {u.address for u in host.units.values() if u.sid in host.our_sids}
    assert on_ours <= {e.unit for e in whole.values()}
    assert others <= set(host.sessions)
    needed = {e.used.portal for e in whole.values() if e.used is not None}
    ours = {s.portal for s in host.sessions.values() if s.sid in host.our_sids}
    assert ours <= needed
    assert set(host.owned) == {session_key(portal, IQN) for portal in ours}
    assert sorted(p for p, text in host.records.items() if text == OURS) == sorted(
        owned.place for owned in host.owned.values()
    )


@given(hosts(), st.data())
def test_a_recovery_ends_whatever_happened(host: HostModel, data: st.DataObject) -> None:
    """Whatever the kernel shows, and wherever recoveries are cut off: it ends, and does no harm.

    The model asserts that no open disk, no other's disk and no other's session goes.
    """
    for _ in range(data.draw(st.integers(1, 4))):
        happen(host, data)
        actions = plan_recovery(host.facts())
        for action in actions[: data.draw(st.integers(0, len(actions)))]:
            host.carry_out(action)
    in_use = {unit.address for unit in host.units.values() if unit.openers}
    recover(host)
    assert in_use <= set(host.units)
    ours = {place for place, text in host.records.items() if text == OURS}
    assert ours <= {owned.place for owned in host.owned.values()}


@given(hosts(), st.data())
def test_a_plan_does_not_depend_on_the_order_of_facts(host: HostModel, data: st.DataObject) -> None:
    """The same facts in another order make the same actions, in some order."""
    happen(host, data)
    facts = host.facts()
    shuffled = replace(
        facts,
        connections=tuple(data.draw(st.permutations(facts.connections))),
        owned=tuple(data.draw(st.permutations(facts.owned))),
        units=tuple(data.draw(st.permutations(facts.units))),
    )
    kinds = sorted(type(action).__name__ for action in plan_recovery(facts))
    assert sorted(type(action).__name__ for action in plan_recovery(shuffled)) == kinds
