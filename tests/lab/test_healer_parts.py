"""What the healer hears and does, on the real kernel: events beside iscsid, one dead socket.

Sessions are those of the initiator library, without any disk.
"""

from __future__ import annotations

import contextlib
import select
from collections.abc import Iterator

from lab.lio import Target
from lab.san import San
from lab.services import wait_until
from lunport.core.change import Change
from lunport.core.iscsi_event import IscsiEvent, IscsiEventKind
from lunport.core.kernel_session import KernelSession
from lunport.core.portal import Portal
from lunport.core.target_path import TargetPath
from lunport.host.clock import Deadline
from lunport.host.iscsi_events import IscsiEvents
from lunport.host.iscsi_sysfs import read_session
from lunport.host.socket_kill import find_connection, kill_connection
from lunport.host.systree import SysTree
from lunport.initiator.connected_volume import InitiatorPolicy
from lunport.initiator.initiator_host import InitiatorHost
from lunport.initiator.sessions import Sessions

WAIT_S = 90.0


@contextlib.contextmanager
def logged_in(target: Target, portal: Portal) -> Iterator[KernelSession]:
    """A session through one portal; logged out at the end."""
    sessions = Sessions(InitiatorHost(), InitiatorPolicy())
    path = TargetPath(portal, target.iqn, 1)
    with sessions.in_use(path, Deadline.after(WAIT_S)):
        session = sessions.ensure(
            path, chap=None, tpgt=target.tpgt, deadline=Deadline.after(WAIT_S)
        )
    try:
        yield session
    finally:
        sessions.release(portal, target.iqn, Deadline.after(WAIT_S))


def state(sid: int) -> str:
    """Say what a session is now."""
    session = read_session(SysTree(), sid)
    return "gone" if session is None else session.state


def hear(events: IscsiEvents, kind: IscsiEventKind, sid: int) -> list[IscsiEvent]:
    """Wait for an event of a session; give it and those of the session before it."""
    heard: list[IscsiEvent] = []
    deadline = Deadline.after(WAIT_S)
    poller = select.poll()
    poller.register(events.fileno(), select.POLLIN)
    while not deadline.has_passed():
        poller.poll(deadline.remaining_s() * 1000)
        heard += [event for event in events.take() if event.sid == sid]
        assert not events.lost
        if any(event.kind is kind for event in heard):
            return heard
    raise AssertionError(f"no {kind} of session {sid}, only {heard}")


def kinds(events: list[IscsiEvent]) -> list[IscsiEventKind]:
    """Take the kinds alone."""
    return [event.kind for event in events]


def break_session(sid: int) -> Change:
    """Kill the connection of a session."""
    connection = find_connection(SysTree(), sid)
    assert connection is not None
    return kill_connection(connection)


def test_events_are_heard_beside_iscsid(san: San) -> None:
    """Two listeners hear a session's birth, breaking, return and end, and iscsid does its work."""
    target = san.target()
    with IscsiEvents() as one, IscsiEvents() as two:
        with logged_in(target, san.portals[0]) as session:
            for events in (one, two):
                heard = hear(events, IscsiEventKind.LOGIN, session.sid)
                assert kinds(heard)[0] is IscsiEventKind.CREATED

            assert break_session(session.sid) is Change.CHANGED
            for events in (one, two):
                heard = hear(events, IscsiEventKind.LOGIN, session.sid)
                assert kinds(heard) == [IscsiEventKind.ERROR, IscsiEventKind.LOGIN]
                assert heard[0].error
            wait_until(lambda: state(session.sid) == "LOGGED_IN", "iscsid to mend the session")
        for events in (one, two):
            heard = hear(events, IscsiEventKind.DESTROYED, session.sid)
            assert kinds(heard)[-1] is IscsiEventKind.DESTROYED


def test_the_socket_of_one_session_is_killed_and_no_other(san: San) -> None:
    """Of two sessions through one portal the one that is meant breaks; over IPv6 as well."""
    one, two = (
        san.target(name, portals=(san.portals[0], san.portals6[0])) for name in ("t1", "t2")
    )
    tree = SysTree()
    for portal in (san.portals[0], san.portals6[0]):
        with logged_in(one, portal) as broken, logged_in(two, portal) as spared:
            before = find_connection(tree, spared.sid)
            doomed = find_connection(tree, broken.sid)
            assert before is not None
            assert doomed is not None
            assert (before.remote, doomed.remote) == (portal, portal)
            with IscsiEvents() as events:
                assert kill_connection(doomed) is Change.CHANGED
                assert kill_connection(doomed) is Change.UNCHANGED
                heard = hear(events, IscsiEventKind.LOGIN, broken.sid)
                assert kinds(heard)[0] is IscsiEventKind.ERROR
                assert not [event for event in events.take() if event.sid == spared.sid]
            wait_until(
                lambda sid=broken.sid: state(sid) == "LOGGED_IN",  # type: ignore[misc]
                "iscsid to mend the session",
            )
            assert find_connection(tree, broken.sid) not in {None, doomed}
            assert find_connection(tree, spared.sid) == before
            assert state(spared.sid) == "LOGGED_IN"
