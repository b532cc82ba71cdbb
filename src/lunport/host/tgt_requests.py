"""tgtd's requests as functions with names and types: one method, one request.

Nothing is decided here; every method returns what the daemon answered. The socket's protocol
is in ``host/tgt_socket.py``, the texts that *show* requests return are read by
``host/tgt_show.py``.
"""

from __future__ import annotations

from pathlib import Path

from lunport.core.chap import ChapCredentials
from lunport.host.clock import Deadline
from lunport.host.tgt_socket import Answer, Direction, Mode, Op, TgtSocket, format_parameters


class TgtRequests:
    """The requests that one operation makes, under one deadline."""

    def __init__(self, tgt: TgtSocket, deadline: Deadline) -> None:
        self._tgt = tgt
        self.deadline = deadline

    def new_target(self, tid: int, name: str) -> Answer:
        """Make an empty target, which admits nobody."""
        return self._call(Mode.TARGET, Op.NEW, tid, targetname=name)

    def delete_target(self, tid: int, *, by_force: bool) -> Answer:
        """Delete a target and its units; only by force while it has sessions."""
        return self._tgt.call(Mode.TARGET, Op.DELETE, self.deadline, tid=tid, force=by_force)

    def show_targets(self) -> Answer:
        """Show all targets with everything: the longer, the more there are."""
        return self._tgt.call(Mode.TARGET, Op.SHOW, self.deadline)

    def show_settings(self, tid: int) -> Answer:
        """Show one target's session settings."""
        return self._tgt.call(Mode.TARGET, Op.SHOW, self.deadline, tid=tid)

    def set_target(self, tid: int, name: str, value: int) -> Answer:
        """Change one of a target's settings."""
        return self._call(Mode.TARGET, Op.UPDATE, tid, **{name: value})

    def new_unit(self, tid: int, lun: int, path: Path) -> Answer:
        """Put a file behind a LUN."""
        return self._tgt.call(
            Mode.DEVICE,
            Op.NEW,
            self.deadline,
            tid=tid,
            lun=lun,
            parameters=format_parameters(path=path),
        )

    def set_unit(self, tid: int, lun: int, **settings: str | int) -> Answer:
        """Change a unit's settings, all in one request."""
        return self._tgt.call(
            Mode.DEVICE,
            Op.UPDATE,
            self.deadline,
            tid=tid,
            lun=lun,
            parameters=format_parameters(**settings),
        )

    def delete_unit(self, tid: int, lun: int) -> Answer:
        """Take a unit away from its target; refused while it has commands in flight."""
        return self._tgt.call(Mode.DEVICE, Op.DELETE, self.deadline, tid=tid, lun=lun)

    def new_account(self, credentials: ChapCredentials) -> Answer:
        """Make an account; its name is the daemon's, not one target's."""
        parameters = format_parameters(user=credentials.username, password=credentials.password)
        return self._tgt.call(Mode.ACCOUNT, Op.NEW, self.deadline, parameters=parameters)

    def delete_account(self, user: str) -> Answer:
        """Delete an account, unbinding it everywhere."""
        return self._call(Mode.ACCOUNT, Op.DELETE, user=user)

    def bind_account(self, tid: int, user: str, direction: Direction) -> Answer:
        """Demand an account of initiators (incoming), or prove ourselves by it (outgoing)."""
        return self._tgt.call(
            Mode.ACCOUNT,
            Op.BIND,
            self.deadline,
            tid=tid,
            direction=direction,
            parameters=format_parameters(user=user),
        )

    def show_accounts(self) -> Answer:
        """Show the names of all accounts."""
        return self._tgt.call(Mode.ACCOUNT, Op.SHOW, self.deadline)

    def admit(self, tid: int, initiator: str) -> Answer:
        """Let an initiator of that name log in."""
        return self._acl(Op.BIND, tid, initiator)

    def refuse(self, tid: int, initiator: str) -> Answer:
        """Let it log in no more; its sessions stay."""
        return self._acl(Op.UNBIND, tid, initiator)

    def show_connections(self, tid: int) -> Answer:
        """Show the connections of one target's sessions."""
        return self._tgt.call(Mode.CONNECTION, Op.SHOW, self.deadline, tid=tid)

    def close_connection(self, tid: int, sid: int, cid: int) -> Answer:
        """Begin to close a connection; the session ends a moment later."""
        return self._tgt.call(Mode.CONNECTION, Op.DELETE, self.deadline, tid=tid, sid=sid, cid=cid)

    def _acl(self, op: Op, tid: int, initiator: str) -> Answer:
        # The key holds a hyphen, so it cannot be a keyword.
        return self._call(Mode.TARGET, op, tid, **{"initiator-name": initiator})

    def _call(self, mode: Mode, op: Op, tid: int = -1, **parameters: str | int) -> Answer:
        return self._tgt.call(
            mode, op, self.deadline, tid=tid, parameters=format_parameters(**parameters)
        )
