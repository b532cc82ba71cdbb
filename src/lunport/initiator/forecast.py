"""Say what a connect or disconnect would do now, without doing it.

Reads the journal and sysfs, asks no portal. What a portal will answer is not known, so a
connect's steps are those of the first path that is due, with the others named in order.
"""

from __future__ import annotations

from collections.abc import Sequence

from lunport.core.connection_info import ConnectionInfo
from lunport.core.host_connection import HostConnection, Phase, connection_key
from lunport.core.login_plan import plan_logins
from lunport.core.scsi_address import kernel_lun
from lunport.core.target_path import TargetPath
from lunport.host.iscsiadm import login_argv
from lunport.initiator.initiator_host import InitiatorHost
from lunport.initiator.sessions import IFACE, Sessions


def foresee_connect(
    host: InitiatorHost, sessions: Sessions, info: ConnectionInfo, paths: Sequence[TargetPath]
) -> tuple[str, ...]:
    """List a connect's steps, one sentence each."""
    entry = host.journal.get(connection_key(info))
    if entry is not None and entry.phase is Phase.CONNECTED and entry.boot_id == host.boot_id:
        disk = "its disk" if entry.disk_name is None else f"/dev/{entry.disk_name}"
        return (
            f"The volume is connected already, through {entry.used}.",
            f"Verify the identity of {disk} and return it.",
        )
    cleared = () if entry is None else ("Undo what an earlier attempt left.",)
    plan = plan_logins(paths, host.memory.current())
    first = plan.paths[0]
    return (
        *cleared,
        *(
            f"{'Probe' if number == 1 else 'If need be, probe'} {path}"
            + (" (last, since its portal was seen dead lately)." * (path in plan.postponed) or ".")
            for number, path in enumerate(plan.paths, 1)
        ),
        f"Write the intent into the journal {host.journal.folder}.",
        *_session_steps(host, sessions, first, info),
        f"Scan for lun {kernel_lun(first.lun, info.addressing_mode)} of that session alone.",
        "Wait for the disk." if info.wwid is None else f"Wait for the disk, verify {info.wwid}.",
        "Note the disk in the journal.",
    )


def foresee_disconnect(
    host: InitiatorHost, sessions: Sessions, info: ConnectionInfo
) -> tuple[str, ...]:
    """List a disconnect's steps, one sentence each."""
    entry = host.journal.get(connection_key(info))
    if entry is None:
        known = [path for path in info.paths if sessions.find(path.portal, path.iqn)]
        if not known:
            return ("Nothing: the volume is not in the journal, and no session leads to it.",)
        return tuple(f"Look for the disk at {path}, and remove it." for path in known)
    disk = "the disk" if entry.disk_name is None else f"/dev/{entry.disk_name}"
    return (
        f"Write the intent into the journal {host.journal.folder}.",
        f"Make sure that nobody has {disk} open, and write back what is not on the storage yet.",
        f"Remove {disk}, and wait until the kernel let go of it.",
        *_logout_steps(host, entry),
        "Remove the journal's entry.",
    )


def _session_steps(
    host: InitiatorHost, sessions: Sessions, path: TargetPath, info: ConnectionInfo
) -> tuple[str, ...]:
    session = sessions.find(path.portal, path.iqn)
    if session is not None:
        return (f"Use session {session.sid}, which leads to {path.iqn} at {path.portal}.",)
    secret = " with its CHAP secret" if info.chap is not None else ""
    where = f"{path.iqn} at {path.portal}"
    return (
        f"Write the node record of {where}{secret}, below {host.records.folder}.",
        f"Log in: {' '.join(login_argv(path, tpgt=None, iface=IFACE))}",
    )


def _logout_steps(host: InitiatorHost, entry: HostConnection) -> tuple[str, ...]:
    path = entry.used
    if path is None or host.journal.get_session(path.portal, path.iqn) is None:
        return ("Leave the session: it was not made by Lunport.",)
    session = f"the session to {path.iqn} at {path.portal}"
    return (f"If no other disk needs {session}: log out, and remove its node record.",)
