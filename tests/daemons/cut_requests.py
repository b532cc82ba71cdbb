"""Speak to a test's tgtd behind the helper's back, and cut or refuse the helper's requests."""

from __future__ import annotations

from lunport.core.change import Change
from lunport.host.clock import Deadline
from lunport.host.tgt_requests import TgtRequests
from lunport.host.tgt_show import parse_accounts, parse_targets
from lunport.host.tgt_socket import Answer, Direction, Mode, Op, TgtSocket, TgtStatus
from lunport.host.tgtd import OwnTgtd
from lunport.targets.tgt import TgtHelper
from tests.daemons.conftest import RunningTgtd


def requests_of(running: RunningTgtd) -> TgtRequests:
    """Speak to the daemon behind the helper's back."""
    return TgtRequests(running.daemon.socket, Deadline.after(10))


def later_helper(running: RunningTgtd) -> TgtHelper:
    """Be the next service: it takes the daemon over and knows nothing."""
    helper = TgtHelper(OwnTgtd(running.daemon.folder, running.portals))
    assert helper.start() is Change.UNCHANGED
    return helper


def is_bare(running: RunningTgtd) -> bool:
    """Tell whether the daemon holds no target and no account."""
    requests = requests_of(running)
    accounts = parse_accounts(requests.show_accounts().text)
    return not accounts and not parse_targets(requests.show_targets().text)


class CutError(BaseException):
    """The moment of the kill; no handler of the code under test catches it."""


class CuttingSocket(TgtSocket):
    """The real socket, which counts, and at one request kills the caller or refuses it."""

    def __init__(self, running: RunningTgtd, cut_at: int, *, refuses: bool = False) -> None:
        super().__init__(running.daemon.socket.path)
        self.cut_at = cut_at
        self.refuses = refuses
        self.count = 0
        self.shows = 0

    def call(
        self,
        mode: Mode,
        op: Op,
        deadline: Deadline,
        *,
        tid: int = -1,
        lun: int = 0,
        sid: int = 0,
        cid: int = 0,
        direction: Direction = Direction.INCOMING,
        force: bool = False,
        parameters: bytes = b"",
    ) -> Answer:
        """Make the request, or not."""
        self.count += 1
        self.shows += (mode, op, tid) == (Mode.TARGET, Op.SHOW, -1)
        if self.count == self.cut_at:
            if self.refuses:
                return Answer(TgtStatus.OUT_OF_MEMORY, "", 0)
            raise CutError
        return super().call(
            mode,
            op,
            deadline,
            tid=tid,
            lun=lun,
            sid=sid,
            cid=cid,
            direction=direction,
            force=force,
            parameters=parameters,
        )
