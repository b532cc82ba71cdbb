"""Find iSCSI sessions and their units in sysfs, whatever transport carries them.

Reads below /sys (drivers/scsi/scsi_transport_iscsi.c):

    class/iscsi_session/session1 -> ../../devices/platform/host3/session1/iscsi_session/session1
        targetname  state  ifacename  tpgt  recovery_tmo
    class/iscsi_connection/connection1:0/{persistent_address,persistent_port,address,port}
        ping_tmo  recv_tmo
    class/scsi_host/host3/proc_name
    devices/platform/host3/session1/target3:0:0/3:0:0:1

Never runs iscsiadm, never changes anything but a session's ``recovery_tmo``. A session that
vanishes while it is read is none.
"""

from __future__ import annotations

import ipaddress
import re

from lunport.core.errors import InvalidInput
from lunport.core.iqn import Iqn, same_iqn
from lunport.core.kernel_session import KernelSession
from lunport.core.portal import Portal
from lunport.core.scsi_address import ScsiAddress, parse_scsi_address
from lunport.host.systree import SysTree

_SESSIONS = "class/iscsi_session"
_SESSION = re.compile(r"session(\d+)", re.ASCII)
# devices/platform/host3/session1/iscsi_session/session1
_NODE = re.compile(r"(.*/host(\d+)/session\d+)/iscsi_session/session\d+", re.ASCII)
_TARGET = re.compile(r"target\d+:\d+:\d+", re.ASCII)
_NULL = "(null)"


def list_sessions(sys: SysTree) -> tuple[KernelSession, ...]:
    """List all sessions of this host, by their numbers."""
    found = (read_session(sys, sid) for sid in _session_ids(sys))
    return tuple(session for session in found if session is not None)


def read_session(sys: SysTree, sid: int) -> KernelSession | None:
    """Read one session; None when there is none of that number, or it is half gone."""
    folder = f"{_SESSIONS}/session{sid}"
    node = _NODE.fullmatch(sys.resolve(folder) or "")
    iqn = _text(sys, f"{folder}/targetname")
    portal = _portal(sys, sid) if node is not None and iqn is not None else None
    if node is None or iqn is None or portal is None:
        return None
    scsi_host = int(node[2])
    state = _text(sys, f"{folder}/state")
    if state is None:
        return None
    return KernelSession(
        sid=sid,
        scsi_host=scsi_host,
        iqn=Iqn(iqn),
        portal=portal,
        iface=_text(sys, f"{folder}/ifacename") or "",
        transport=transport_of_host(sys, scsi_host),
        state=state,
        tpgt=_number(_text(sys, f"{folder}/tpgt")),
        node=node[1],
    )


def session_numbers(sys: SysTree) -> frozenset[int]:
    """Number the sessions that there are, without looking at any."""
    return frozenset(_session_ids(sys))


def find_session(
    sys: SysTree, portal: Portal, iqn: Iqn, *, hint: int | None = None
) -> KernelSession | None:
    """Find the session to a target through a portal: one that is logged in before any other.

    ``hint``: the number it had when it was last seen; while that is right, nothing but that
    session is read.
    """
    if hint is not None:
        session = read_session(sys, hint)
        if session is not None and session.is_to(portal, iqn):
            return session
    best = None
    for sid in _session_ids(sys):
        if not same_iqn(sys.read(f"{_SESSIONS}/session{sid}/targetname") or "", iqn):
            continue
        session = read_session(sys, sid)
        if session is None or not session.is_to(portal, iqn):
            continue
        if session.is_logged_in:
            return session
        best = best or session
    return best


def session_units(sys: SysTree, session: KernelSession) -> tuple[ScsiAddress, ...]:
    """List the units that the kernel knows through a session, disks or not."""
    return tuple(
        parse_scsi_address(name)
        for target in session_targets(sys, session)
        for name in sys.list(f"{session.node}/{target}")
        if _is_address(name)
    )


def session_targets(sys: SysTree, session: KernelSession) -> tuple[str, ...]:
    """List the target folders of a session: ``target3:0:0``; none before its first scan."""
    return tuple(name for name in sys.list(session.node) if _TARGET.fullmatch(name))


def recovery_tmo(sys: SysTree, sid: int) -> int | None:
    """Return how many seconds a session that lost its portal keeps I/O waiting.

    None: without an end, or there is no such session.
    """
    return _number(_text(sys, f"{_SESSIONS}/session{sid}/recovery_tmo"))


def ping_times(sys: SysTree, sid: int) -> tuple[int, int] | None:
    """Return a session's pause before a ping and its patience with it, 0 for none; None if unknown.

    They are noop_out_interval and noop_out_timeout, of which the kernel has other names.
    """
    folder = f"class/iscsi_connection/connection{sid}:0"
    pause_s = _number(_text(sys, f"{folder}/recv_tmo"))
    patience_s = _number(_text(sys, f"{folder}/ping_tmo"))
    return None if pause_s is None or patience_s is None else (pause_s, patience_s)


def set_recovery_tmo(sys: SysTree, sid: int, seconds: int | None) -> bool:
    """Let a session that loses its portal keep I/O waiting that long, then fail it; None: never.

    Holds until somebody writes there again; iscsid doesn't, once it was written. Tell whether
    the session has it now: not while it has lost its portal, and not when it is gone.
    """
    # Quirk(kernel): a session whose portal is lost (FAILED) refuses another recovery_tmo with
    # EBUSY, and what was set before it was lost is what counts
    # (drivers/scsi/scsi_transport_iscsi.c, store_priv_session_recovery_tmo; 6.1).
    # Quirk(multipath-tools): multipathd writes fast_io_fail_tmo (5) there each time it loads a
    # map over the session's disks (libmultipath/discovery.c, sysfs_set_session_tmo; 0.9.4): set
    # it again after a path was added.
    if recovery_tmo(sys, sid) == seconds:
        return True
    try:
        text = "off" if seconds is None else str(seconds)
        sys.write(f"{_SESSIONS}/session{sid}/recovery_tmo", text)
    except OSError:
        return False
    return True


def _session_ids(sys: SysTree) -> list[int]:
    matches = (_SESSION.fullmatch(name) for name in sys.list(_SESSIONS))
    return sorted(int(match[1]) for match in matches if match is not None)


def _portal(sys: SysTree, sid: int) -> Portal | None:
    folder = f"class/iscsi_connection/connection{sid}:0"
    asked = _text(sys, f"{folder}/persistent_address")
    if asked is not None and _address(asked) is not None:
        port = _number(_text(sys, f"{folder}/persistent_port"))
        return Portal(_address(asked) or asked, port) if port is not None else None
    # A record that has a name in it: what the name led to is what can be compared.
    reached = _text(sys, f"{folder}/address")
    port = _number(_text(sys, f"{folder}/port"))
    host = reached if reached is not None else asked
    if host is None or port is None:
        return None
    return Portal(_address(host) or host.lower(), port)


def _address(text: str) -> str | None:
    # fd00:0000:0000:0000:0000:0000:0000:0002, [fd00::2] and FD00::2 are one address.
    try:
        return str(ipaddress.ip_address(text.strip("[]")))
    except ValueError:
        return None


def transport_of_host(sys: SysTree, scsi_host: int) -> str:
    """Return the transport of a SCSI host, by open-iscsi's name for it.

    iscsi_tcp, iscsi_iser (or ib_iser), bnx2i, cxgb4i, qla4xxx: open-iscsi drops the prefix too
    (usr/iscsi_sysfs.c, iscsi_sysfs_get_transport_by_hba).
    """
    name = _text(sys, f"class/scsi_host/host{scsi_host}/proc_name") or ""
    return name.removeprefix("iscsi_").removeprefix("ib_")


def _text(sys: SysTree, path: str) -> str | None:
    # Quirk(kernel): an attribute that nobody has set reads "(null)" or nothing at all, and so
    # do those of a session that is being torn down (scsi_transport_iscsi.c prints "%s" of a
    # null pointer; all versions).
    text = sys.read(path)
    return text if text and text not in {_NULL, "<NULL>"} else None


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() else None


def _is_address(name: str) -> bool:
    try:
        parse_scsi_address(name)
    except InvalidInput:
        return False
    return True
