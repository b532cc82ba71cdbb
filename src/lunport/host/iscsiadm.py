"""Log in and log out by iscsiadm(8), and say who should act when it fails.

One program start for a login, one for a logout; what to log in to is in the node record
(``host/node_records.py``), and nothing secret is in an argv. Statuses are those of
``include/iscsi_err.h``, the same from 2.1.8 to 2.1.11; all of them stand in ``EXIT_CODES``.
It never reads iscsiadm's text to decide anything, never looks for sessions (that is
``host/iscsi_sysfs.py``), and never retries a login that the target or the network refused.

Quirk(open-iscsi): iscsiadm only asks iscsid. Killed at the end of its time it changes nothing
about the login, which may succeed later: after CommandTimedOut the kernel is to be asked.
Quirk(open-iscsi): with no iscsid behind its socket, iscsiadm runs ``iscsid.startup`` (systemctl),
tries once more a second later and ends with 20.
Quirk(open-iscsi): iscsid tries a refused connection again and again, and a login that LIO rejects
because the target is gone, until login timeout times retries is over; both end with 8, timed out
(2.1.8). Only a probe finds at once that a portal refuses.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from lunport.core.change import Change
from lunport.core.errors import (
    CommandError,
    HostLacks,
    InitiatorDown,
    IscsiError,
    LoginRejected,
    LoginTimedOut,
    LunportError,
    PortalUnreachable,
    SessionMissing,
    TransportMissing,
)
from lunport.core.node_record import DEFAULT_IFACE
from lunport.core.target_path import TargetPath
from lunport.host.clock import Deadline
from lunport.host.node_records import remove_stale_lock
from lunport.host.runner import Completed, run

PROGRAM = "iscsiadm"
PACKAGE = "open-iscsi"

_DATABASE = 6
_EXISTS = 15
_NO_RECORD = 21
_NOTHING_TO_LOG_OUT = frozenset({2, 21, 22})  # 22: there is no session of that number
_TRIES = 20  # of a login that another tool's change of the database disturbed


class LoginAnswer(enum.Enum):
    """``ALREADY``: there was a session of that portal, target and iface before."""

    LOGGED_IN = "logged in"
    ALREADY = "already"


class Actor(enum.Enum):
    """Who has to do something about a status."""

    NOBODY = "nobody"
    PLANNER = "whoever plans the paths: another one may work"
    STORAGE = "whoever runs the storage, or another path"
    HOST = "whoever runs this host"
    PROGRAM = "this program: it asked for something that makes no sense"


@dataclass(frozen=True, slots=True)
class ExitMeaning:
    """What a status of iscsiadm means. ``error`` None: it is no failure, or only of a command.

    ``how`` is the command that mends it, where there is one.
    """

    name: str
    meaning: str
    actor: Actor
    error: type[LunportError] | None = None
    how: str = ""


_START = "systemctl start iscsid.socket"
_RESTART = "systemctl restart iscsid.service"

# Generic (error None, actor not NOBODY): CommandError, which quotes iscsiadm.
EXIT_CODES: Mapping[int, ExitMeaning] = {
    0: ExitMeaning("ISCSI_SUCCESS", "done", Actor.NOBODY),
    1: ExitMeaning("ISCSI_ERR", "it does not say what failed", Actor.HOST),
    2: ExitMeaning("ISCSI_ERR_SESS_NOT_FOUND", "no such session", Actor.PLANNER, SessionMissing),
    3: ExitMeaning("ISCSI_ERR_NOMEM", "no memory", Actor.HOST),
    4: ExitMeaning("ISCSI_ERR_TRANS", "the connection failed", Actor.PLANNER, PortalUnreachable),
    5: ExitMeaning("ISCSI_ERR_LOGIN", "the login failed", Actor.PLANNER, LoginRejected),
    6: ExitMeaning("ISCSI_ERR_IDBM", "its database could not be read", Actor.HOST),
    7: ExitMeaning("ISCSI_ERR_INVAL", "an argument is invalid", Actor.PROGRAM),
    8: ExitMeaning(
        "ISCSI_ERR_TRANS_TIMEOUT", "no connection in time", Actor.PLANNER, LoginTimedOut
    ),
    9: ExitMeaning("ISCSI_ERR_INTERNAL", "iscsid failed, see its log", Actor.HOST),
    10: ExitMeaning("ISCSI_ERR_LOGOUT", "the logout failed", Actor.STORAGE),
    11: ExitMeaning(
        "ISCSI_ERR_PDU_TIMEOUT", "the target did not answer in time", Actor.PLANNER, LoginTimedOut
    ),
    12: ExitMeaning(
        "ISCSI_ERR_TRANS_NOT_FOUND",
        "the kernel module of the transport is not loaded",
        Actor.HOST,
        TransportMissing,
        "modprobe iscsi_tcp",
    ),
    13: ExitMeaning(
        "ISCSI_ERR_ACCESS", "iscsid serves root only", Actor.HOST, HostLacks, "run as root"
    ),
    14: ExitMeaning(
        "ISCSI_ERR_TRANS_CAPS", "the transport cannot do it", Actor.HOST, TransportMissing
    ),
    15: ExitMeaning("ISCSI_ERR_SESS_EXISTS", "there is a session", Actor.NOBODY),
    16: ExitMeaning(
        "ISCSI_ERR_INVALID_MGMT_REQ",
        "iscsid does not know the request; it is of another version than iscsiadm",
        Actor.HOST,
        InitiatorDown,
        _RESTART,
    ),
    17: ExitMeaning("ISCSI_ERR_ISNS_UNAVAILABLE", "iSNS is not supported", Actor.PROGRAM),
    18: ExitMeaning(
        "ISCSI_ERR_ISCSID_COMM_ERR",
        "iscsid went away during the request",
        Actor.HOST,
        InitiatorDown,
        _RESTART,
    ),
    # 19 includes target not found (0x0203), 24 CHAP and forbidden (0x0201, 0x0202): which of
    # them it is, the probe in user space says. So neither keeps another path from being tried.
    19: ExitMeaning(
        "ISCSI_ERR_FATAL_LOGIN",
        "the target refused the login for good: unknown target, or refused host",
        Actor.STORAGE,
        LoginRejected,
    ),
    20: ExitMeaning(
        "ISCSI_ERR_ISCSID_NOTCONN", "iscsid does not run", Actor.HOST, InitiatorDown, _START
    ),
    21: ExitMeaning("ISCSI_ERR_NO_OBJS_FOUND", "it found no record", Actor.PROGRAM),
    22: ExitMeaning("ISCSI_ERR_SYSFS_LOOKUP", "sysfs lacks what it looked for", Actor.HOST),
    23: ExitMeaning(
        "ISCSI_ERR_HOST_NOT_FOUND",
        "there is no SCSI host for the iface",
        Actor.HOST,
        TransportMissing,
    ),
    24: ExitMeaning(
        "ISCSI_ERR_LOGIN_AUTH_FAILED",
        "CHAP failed, or the target forbids this host",
        Actor.STORAGE,
        LoginRejected,
    ),
    25: ExitMeaning("ISCSI_ERR_ISNS_QUERY", "the iSNS query failed", Actor.PROGRAM),
    26: ExitMeaning("ISCSI_ERR_ISNS_REG_FAILED", "the iSNS registration failed", Actor.PROGRAM),
    27: ExitMeaning("ISCSI_ERR_OP_NOT_SUPP", "not supported", Actor.PROGRAM),
    28: ExitMeaning(
        "ISCSI_ERR_BUSY",
        "the session has mounted disks, and iscsid.safe_logout is set",
        Actor.HOST,
    ),
    29: ExitMeaning("ISCSI_ERR_AGAIN", "iscsid wants it tried again", Actor.PLANNER, LoginTimedOut),
    30: ExitMeaning("ISCSI_ERR_UNKNOWN_DISCOVERY_TYPE", "no such discovery", Actor.PROGRAM),
    31: ExitMeaning(
        "ISCSI_ERR_CHILD_TERMINATED",
        "a child of iscsid ended",
        Actor.HOST,
        InitiatorDown,
        _RESTART,
    ),
    32: ExitMeaning(
        "ISCSI_ERR_SESSION_NOT_CONNECTED",
        "the session reconnects, and cannot be ended now",
        Actor.PLANNER,
        PortalUnreachable,
    ),
    33: ExitMeaning(
        "ISCSI_ERR_REQ_TIMEDOUT",
        "iscsid did not answer in time",
        Actor.HOST,
        InitiatorDown,
        _RESTART,
    ),
    255: ExitMeaning("-1", "it does not say what failed", Actor.HOST),
}
_KNOWN = tuple(EXIT_CODES)


def login(
    path: TargetPath,
    *,
    tpgt: int | None,
    iface: str,
    is_there: Callable[[], bool],
    deadline: Deadline,
) -> LoginAnswer:
    """Log in by the record of that portal, target and iface.

    ``is_there`` asks the kernel for that session. It is asked when the status only says that
    somebody else changed the database meanwhile, before or after the login was done; until
    there is a session such a login is repeated. When the deadline ends a login, iscsid may
    still log in later: ask the kernel. So it is after any error from a command.
    Raises: PortalUnreachable, LoginTimedOut, LoginRejected, TransportMissing, InitiatorDown,
    HostLacks, CommandMissing, CommandTimedOut, CommandError.
    """
    argv = login_argv(path, tpgt=tpgt, iface=iface)
    remove_stale_lock()
    disturbed = False
    for _ in range(_TRIES):
        completed = _run(argv, deadline)
        if completed.status != _DATABASE:
            break
        disturbed = True
        if is_there():
            return LoginAnswer.LOGGED_IN
        if deadline.has_passed():
            break
    if completed.status == 0 or (disturbed and completed.status == _EXISTS):
        return LoginAnswer.LOGGED_IN
    if completed.status == _EXISTS:
        return LoginAnswer.ALREADY
    raise error_of(completed, argv, where=str(path), iface=iface, is_root=_is_root())


def logout(sid: int, *, where: str, deadline: Deadline) -> Change:
    """Log out of one session by its number; its record may be gone. None there is fine.

    ``where`` names the session in errors. Raises: as :func:`login`.
    """
    return _logout(["--mode", "session", "--sid", str(sid), "--logout"], where, deadline)


def logout_record(path: TargetPath, *, iface: str, deadline: Deadline) -> Change:
    """Log out of every session to that portal and target on that iface. None there is fine.

    The record may be gone as well. Raises: as :func:`login`.
    """
    where = ["--targetname", path.iqn, "--portal", str(path.portal), "--interface", iface]
    return _logout(["--mode", "node", *where, "--logout"], str(path), deadline)


def login_argv(path: TargetPath, *, tpgt: int | None, iface: str) -> tuple[str, ...]:
    """Build the command of a login; the plan of a connect shows it."""
    portal = str(path.portal) if tpgt is None else f"{path.portal},{tpgt}"
    where = ("--targetname", path.iqn, "--portal", portal, "--interface", iface)
    return (PROGRAM, "--mode", "node", *where, "--login")


def _logout(words: Sequence[str], where: str, deadline: Deadline) -> Change:
    argv = [PROGRAM, *words]
    remove_stale_lock()
    completed = _run(argv, deadline)
    if completed.status in _NOTHING_TO_LOG_OUT:
        return Change.UNCHANGED
    if completed.status != 0:
        raise error_of(completed, argv, where=where, iface=DEFAULT_IFACE, is_root=_is_root())
    return Change.CHANGED


def _run(argv: Sequence[str], deadline: Deadline) -> Completed:
    return run(argv, deadline, accepted=_KNOWN, package=PACKAGE)


def error_of(
    completed: Completed, argv: Sequence[str], *, where: str, iface: str, is_root: bool
) -> LunportError:
    """Make the error for a status that was not wanted.

    Quirk(open-iscsi): who is not root gets 21 and not 13: records that iscsiadm may not read
    are no records to it (2.1.8 to 2.1.11).
    """
    found = EXIT_CODES[completed.status]
    detail = f"{found.meaning} (iscsiadm {completed.status})"
    if found.error is HostLacks or (completed.status == _NO_RECORD and not is_root):
        return HostLacks("open-iscsi serves root only", detail, "run as root")
    if found.error is InitiatorDown or (
        found.error is TransportMissing and found.how and iface == DEFAULT_IFACE
    ):
        return InitiatorDown(detail, found.how)
    if found.error is not None and issubclass(found.error, IscsiError):
        return found.error(where, detail)
    said = completed.stderr.strip() or found.meaning
    return CommandError(argv, completed.status, said, completed.elapsed_s)


def _is_root() -> bool:
    return os.geteuid() == 0
