"""Sessions that several volumes share: logged in once, logged out by the last.

Whoever connects holds the target's *use* lock, shared, from before it looks for the session
until its disk is in the journal; whoever wants to log out needs that lock alone, and only
tries. So one login serves however many come at once, and nobody logs out under a connect
that is on its way. The *login* lock lets one log in at a time. Both are per (portal, IQN),
between processes too: a portal that hangs delays those who want that portal.

A session is ours when the journal says that we logged it in; any other is used and never
touched. A node record that somebody else wrote is put back as it was. Never looks at LUNs of
others beyond counting them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import chain, repeat
from typing import Final

from lunport.core.change import Change
from lunport.core.chap import Chap
from lunport.core.errors import (
    CommandError,
    CommandTimedOut,
    InitiatorDown,
    IscsiError,
    LunportError,
    PortalUnreachable,
    SessionMissing,
    UndoFailed,
)
from lunport.core.host_connection import OwnedSession
from lunport.core.iqn import Iqn
from lunport.core.kernel_session import KernelSession
from lunport.core.node_record import (
    RecordSettings,
    format_node_record,
    is_our_record,
    parse_record_place,
    record_place,
)
from lunport.core.portal import Portal
from lunport.core.scsi_address import ScsiAddress
from lunport.core.target_path import TargetPath
from lunport.host.clock import Deadline
from lunport.host.iscsi_sysfs import (
    find_session,
    list_sessions,
    read_session,
    session_numbers,
    session_units,
)
from lunport.host.iscsiadm import LoginAnswer, login, logout
from lunport.host.iscsiadm_runs import wait_for_runs
from lunport.host.node_records import read_configuration
from lunport.host.uevents import Uevent, Uevents
from lunport.initiator.connected_volume import InitiatorPolicy
from lunport.initiator.initiator_host import InitiatorHost
from lunport.initiator.lock_names import login_lock, use_lock

IFACE = "default"

# Pauses between logouts that did not end the session, in seconds; the last one again and again
# while iscsid says that it only has to reconnect first.
_LOGOUT_AGAIN_S: Final = (0.5, 1.5, 0.5)
_ISCSID_INTERNAL: Final = 9
_STATE_LOOK_S: Final = 0.1
_pause = threading.Event()


@dataclass(frozen=True, slots=True)
class Sessions:
    """The sessions of one host."""

    host: InitiatorHost
    policy: InitiatorPolicy

    @contextmanager
    def in_use(self, path: TargetPath, deadline: Deadline) -> Iterator[None]:
        """Keep whoever would log out of the path's target waiting for another time."""
        with self.host.locks.hold(use_lock(path.portal, path.iqn), deadline, shared=True):
            yield

    def ensure(
        self,
        path: TargetPath,
        *,
        chap: Chap | None,
        tpgt: int | None,
        deadline: Deadline,
        settings: RecordSettings | None = None,
    ) -> KernelSession:
        """Return a session to the path's target, logging in where there is none.

        ``settings`` are the new record's, in place of the policy's. Precondition: the caller is
        in :meth:`in_use`, and a probe of the portal was let in: a session that has just lost
        its connection is given a moment to get it back. On failure nothing of the login is left.
        Raises: IscsiError (the path's), InitiatorDown, CommandMissing, Unavailable.
        """
        session = self._known(path.portal, path.iqn)
        if session is not None:
            return self._up(session, path, deadline)
        with self.host.locks.hold(login_lock(path.portal, path.iqn), deadline):
            session = self._known(path.portal, path.iqn) or self._foreign(path, tpgt)
            if session is not None:
                return self._up(session, path, deadline)
            return self._log_in(path, chap, tpgt, settings or self.policy.record, deadline)

    def find(self, portal: Portal, iqn: Iqn) -> KernelSession | None:
        """Find the session to a target, ours or not; None where there is none."""
        known = self._known(portal, iqn)
        return known if known is not None else find_session(self.host.sys, portal, iqn)

    def find_own(self, portal: Portal, iqn: Iqn) -> KernelSession | None:
        """Find the session to a target if we logged it in."""
        return self._known(portal, iqn)

    def release(
        self,
        portal: Portal,
        iqn: Iqn,
        deadline: Deadline,
        *,
        stuck: ScsiAddress | None = None,
        patience_s: float = 0.0,
        was_used: bool = True,
    ) -> Change:
        """Log out if the session is ours and nobody needs it; remove its record. Idempotent.

        ``stuck``: a unit that is to go and can't otherwise; it does not keep the session.
        ``patience_s``: how long to wait for somebody who is about to let go of it.
        ``was_used``: the caller had a disk on it. Who had none does not wait for a login or a
        logout that somebody else is at: that one lets go of it himself.
        Raises: IscsiError, CommandTimedOut; then the journal still has the session.
        """
        if self.host.journal.get_session(portal, iqn) is None:
            return Change.UNCHANGED
        patience = Deadline.after(patience_s) if patience_s else None
        login, use = login_lock(portal, iqn), use_lock(portal, iqn)
        with ExitStack() as stack:
            # In this order: of two who leave at once, the second waits and finds nobody left.
            if was_used:
                stack.enter_context(self.host.locks.hold(login, deadline))
            elif not stack.enter_context(self.host.locks.try_hold(login, patience)):
                return Change.UNCHANGED
            if not stack.enter_context(self.host.locks.try_hold(use, patience)):
                return Change.UNCHANGED
            return self._log_out(portal, iqn, stuck, deadline)

    # -- login -----------------------------------------------------------------------------

    def _known(self, portal: Portal, iqn: Iqn) -> KernelSession | None:
        """Find a session that we logged in, by the number it had then."""
        owned = self.host.journal.get_session(portal, iqn)
        if owned is None or owned.sid is None or owned.boot_id != self.host.boot_id:
            return None
        session = read_session(self.host.sys, owned.sid)
        return session if session is not None and session.is_to(portal, iqn) else None

    def _foreign(self, path: TargetPath, tpgt: int | None) -> KernelSession | None:
        """Look through all sessions, where something says that there may be one."""
        owned = self.host.journal.get_session(path.portal, path.iqn)
        cut_off = self._is_cut_off(owned)
        if cut_off:
            # Whoever began this login was killed; the login itself may go on without it.
            wait_for_runs(path.iqn, Deadline.after(self.policy.login_s))
        if owned is None and not self.host.records.places(path.iqn):
            return None
        session = find_session(self.host.sys, path.portal, path.iqn)
        if session is not None and owned is not None and cut_off:
            self._note(owned, session)
        return session

    def _is_cut_off(self, owned: OwnedSession | None) -> bool:
        """Tell whether a login of this boot was begun, and its end never noted."""
        return owned is not None and owned.sid is None and owned.boot_id == self.host.boot_id

    def _log_in(
        self,
        path: TargetPath,
        chap: Chap | None,
        tpgt: int | None,
        settings: RecordSettings,
        deadline: Deadline,
    ) -> KernelSession:
        owned = self._intend(path, tpgt)
        before = session_numbers(self.host.sys)
        try:
            self._write_record(path, chap, tpgt, owned.place, settings)
            with Uevents() as uevents:
                answer = login(
                    path,
                    tpgt=tpgt,
                    iface=IFACE,
                    is_there=lambda: self._find(path) is not None,
                    deadline=deadline.at_most(self.policy.login_s),
                )
                self.host.on_step("logged-in")
                session = self._appeared(path, uevents)
            if session is None:
                raise SessionMissing(str(path), "the login succeeded, and there is no session")
        except LunportError as error:
            self._undo_login(owned, error, before)
            raise
        if answer is LoginAnswer.ALREADY:
            # Somebody logged in before us, without a record: it stays theirs, dead or alive.
            self._forget(owned)
            return self._up(session, path, deadline)
        self._note(owned, session)
        return session

    def _intend(self, path: TargetPath, tpgt: int | None) -> OwnedSession:
        """Write down what is about to be made, and whose record has to give way for it."""
        earlier = self.host.journal.get_session(path.portal, path.iqn)
        if earlier is not None:
            # A login of ours that was cut off, or one of an earlier boot.
            self._remove_record(earlier)
        place = self._place(path, tpgt)
        owned = OwnedSession(
            portal=path.portal,
            iqn=path.iqn,
            iface=IFACE,
            tpgt=tpgt,
            place=place,
            sid=None,
            boot_id=self.host.boot_id,
            replaced_record=self.host.records.read(place),
        )
        self.host.journal.write_session(owned)
        self.host.on_step("session-intended")
        return owned

    def _place(self, path: TargetPath, tpgt: int | None) -> str:
        """Choose the record's place: where iscsiadm would find another one, that one's."""
        place = record_place(path.portal, path.iqn, tpgt, IFACE)
        rivals = self.host.records.rivals(place)
        if self.host.records.read(place) is not None:
            rivals = (place, *rivals)
        if len(rivals) > 1:
            raise IscsiError(
                str(path),
                "open-iscsi has several records of it and would log in by each "
                f"({', '.join(rivals)}); delete all but one: iscsiadm -m node -o delete",
            )
        return rivals[0] if rivals else place

    def _write_record(
        self,
        path: TargetPath,
        chap: Chap | None,
        tpgt: int | None,
        place: str,
        settings: RecordSettings,
    ) -> None:
        key = parse_record_place(place)
        text = format_node_record(
            path,
            # A place without a group is of a record without one.
            tpgt=tpgt if key is None else key.tpgt,
            iface=IFACE,
            chap=chap,
            settings=settings,
            configured=read_configuration(),
        )
        self.host.records.write(place, text)
        self.host.on_step("record-written")

    def _appeared(self, path: TargetPath, uevents: Uevents) -> KernelSession | None:
        """Find the session that a login just made, among those that appeared meanwhile."""
        for event in uevents.take():
            sid = _new_sid(event)
            session = None if sid is None else read_session(self.host.sys, sid)
            if session is not None and session.is_to(path.portal, path.iqn):
                return session
        return self._find(path)

    def _find(self, path: TargetPath) -> KernelSession | None:
        return find_session(self.host.sys, path.portal, path.iqn)

    def _note(self, owned: OwnedSession, session: KernelSession) -> None:
        self.host.journal.write_session(replace(owned, sid=session.sid, boot_id=self.host.boot_id))
        self.host.on_step("session-noted")

    def _up(self, session: KernelSession, path: TargetPath, deadline: Deadline) -> KernelSession:
        """Return a session that is logged in, or is so in a moment. Raises: IscsiError."""
        # The kernel tells that a login is on its way (host/iscsi_events.py), and not that the
        # session is up: its state is looked at.
        moment = deadline.at_most(self.policy.reconnect_s)
        now: KernelSession | None = session
        while now is not None and not now.is_logged_in and not moment.has_passed():
            _pause.wait(_STATE_LOOK_S)
            now = read_session(self.host.sys, session.sid)
        if now is None or not now.is_to(path.portal, path.iqn):
            raise SessionMissing(str(path), "its session ended while it was to reconnect")
        if not now.is_logged_in:
            state = now.state.lower() or "unknown"
            raise IscsiError(str(path), f"its session is not logged in now ({state})")
        return now

    def _undo_login(
        self, owned: OwnedSession, cause: LunportError, before: Collection[int]
    ) -> None:
        """Undo a login that failed; one that was cut off may have succeeded in the daemon.

        ``before``: the sessions that there were, of which none is this login's.
        """
        try:
            session = self._new_session(owned, before)
            if session is None and isinstance(cause, CommandTimedOut):
                session = self._late_session(owned, before)
            # One that has units is not of this login, which scanned nothing yet: it may be
            # the session of the root disk, of which no record and no journal knows.
            if session is not None and not session_units(self.host.sys, session):
                self._end(session, Deadline.after(self.policy.logout_s))
            self._forget(owned)
        except LunportError as error:
            raise UndoFailed(cause, [error]) from cause

    def _new_session(self, owned: OwnedSession, before: Collection[int]) -> KernelSession | None:
        found = (
            session
            for session in list_sessions(self.host.sys)
            if session.sid not in before and session.is_to(owned.portal, owned.iqn)
        )
        return next(found, None)

    def _late_session(self, owned: OwnedSession, before: Collection[int]) -> KernelSession | None:
        """Wait for the session of a login that iscsid goes on with after its client was killed."""
        limit_s = self.policy.record.login_timeout_s * self.policy.record.login_retries + 1
        deadline = Deadline.after(limit_s)
        session = None
        with Uevents() as uevents:
            while session is None and not deadline.has_passed():
                uevents.wait(lambda event: _new_sid(event) is not None, deadline.at_most(1.0))
                session = self._new_session(owned, before)
        return session

    # -- logout ----------------------------------------------------------------------------

    def _log_out(
        self, portal: Portal, iqn: Iqn, stuck: ScsiAddress | None, deadline: Deadline
    ) -> Change:
        owned = self.host.journal.get_session(portal, iqn)
        if owned is None:
            return Change.UNCHANGED
        session = self._known(portal, iqn)
        if self._is_cut_off(owned):
            wait_for_runs(iqn, deadline.at_most(self.policy.login_s))
            session = find_session(self.host.sys, portal, iqn)
        if session is not None:
            if any(unit != stuck for unit in session_units(self.host.sys, session)):
                return Change.UNCHANGED
            self._end(session, deadline.at_most(self.policy.logout_s))
            self.host.on_step("logged-out")
        self._forget(owned)
        return Change.CHANGED

    def _end(self, session: KernelSession, deadline: Deadline) -> None:
        """Log out of a session and see that it is gone. Raises: IscsiError, InitiatorDown ..."""
        # Quirk(open-iscsi): without iscsid ``iscsiadm -m session -u`` ends with 21, "no record",
        # as if there were no session. An iscsid that was just started does not know the kernel's
        # sessions at once, takes each up by a new connection, and ends none before that has
        # succeeded ("try again later": 9, or 32 while the portal is silent; usr/initiator.c,
        # session_logout_task, 2.1.8). So what counts is that it is gone, and how long an iscsid
        # that reconnects is given is up to the deadline: a busy machine needs seconds for it.
        where = f"{session.portal} {session.iqn}"
        error: LunportError = InitiatorDown(
            f"iscsid does not run, or knows of no session to {where}",
            "systemctl restart iscsid.service",
        )
        with Uevents() as uevents:
            pauses_s = chain(_LOGOUT_AGAIN_S, repeat(_LOGOUT_AGAIN_S[-1]))
            for tries, pause_s in enumerate(pauses_s, start=1):
                reconnects = False
                try:
                    logout(session.sid, where=where, deadline=deadline)
                except (IscsiError, CommandError) as refused:
                    error = refused
                    reconnects = _is_of_reconnecting(refused)
                if read_session(self.host.sys, session.sid) is None:
                    return
                if deadline.has_passed() or (tries >= len(_LOGOUT_AGAIN_S) and not reconnects):
                    break
                uevents.wait(_is_end_of(session.sid), deadline.at_most(pause_s))
        raise error

    def _forget(self, owned: OwnedSession) -> None:
        """Remove our record, put back what it replaced, and then our claim."""
        self._remove_record(owned)
        self.host.on_step("record-removed")
        self.host.journal.remove_session(owned.portal, owned.iqn)
        self.host.on_step("session-forgotten")

    def _remove_record(self, owned: OwnedSession) -> None:
        text = self.host.records.read(owned.place)
        if text is not None and not is_our_record(text):
            return  # somebody has put another one in its place since
        if owned.replaced_record is not None:
            self.host.records.write(owned.place, owned.replaced_record, durable=True)
        else:
            self.host.records.delete(owned.place)


def _is_of_reconnecting(refused: LunportError) -> bool:
    if isinstance(refused, CommandError):
        return refused.status == _ISCSID_INTERNAL
    return isinstance(refused, PortalUnreachable)


def _is_end_of(sid: int) -> Callable[[Uevent], bool]:
    end = f"/iscsi_session/session{sid}"
    return lambda event: event.action == "remove" and event.devpath.endswith(end)


def _new_sid(event: Uevent) -> int | None:
    """Read a session's number from its event.

    ``add@/devices/platform/host3/session1/iscsi_session/session1``
    """
    if event.action != "add" or "/iscsi_session/session" not in event.devpath:
        return None
    with suppress(ValueError):
        return int(event.devpath.rpartition("/session")[2])
    return None
