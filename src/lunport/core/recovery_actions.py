"""The actions that a recovery is made of, each with its sentence for ``--dry-run``.

``changes`` tells the ones that do something from those that only tell. All are idempotent to
carry out. Which of them are needed, and in what order, :mod:`lunport.core.recovery_plan`
decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lunport.core.iqn import Iqn
from lunport.core.kernel_session import KernelSession
from lunport.core.portal import Portal
from lunport.core.scsi_address import ScsiAddress
from lunport.core.secret import Secret
from lunport.core.wwid import Wwid


@dataclass(frozen=True, slots=True)
class KernelUnit:
    """One unit that the kernel has, and who has its disk open.

    ``sid``: the session it is on. ``disk_name`` is None for what is no disk.
    """

    sid: int
    address: ScsiAddress
    disk_name: str | None
    wwid: Wwid | None
    openers: tuple[str, ...]

    @property
    def identity(self) -> str:
        """What it says it is, in words."""
        return self.wwid or "without identity"

    def __str__(self) -> str:
        return f"unit {self.address}" if self.disk_name is None else f"/dev/{self.disk_name}"


# -- a connection stays as it is -------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class KeepConnected:
    """All is as the journal says. ``unit`` is where it is now."""

    changes: ClassVar[bool] = False
    key: str
    unit: KernelUnit

    def __str__(self) -> str:
        return f"Keep {self.key}: it is connected as {self.unit}."


@dataclass(frozen=True, slots=True)
class LeaveInUse:
    """Somebody has the disk open, so nothing is done to it; its entry stays."""

    changes: ClassVar[bool] = False
    key: str
    unit: KernelUnit

    def __str__(self) -> str:
        who = ", ".join(self.unit.openers)
        return f"Leave {self.key}: {self.unit} ({self.unit.identity}) is in use by {who}."


@dataclass(frozen=True, slots=True)
class LeaveBusy:
    """Another process is working on this connection now."""

    changes: ClassVar[bool] = False
    key: str

    def __str__(self) -> str:
        return f"Leave {self.key}: another process is working on it."


# -- a connection ends -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class UndoConnect:
    """Remove the disks of a connect that was cut off, then its entry."""

    changes: ClassVar[bool] = True
    key: str
    units: tuple[KernelUnit, ...]

    def __str__(self) -> str:
        return f"Undo the connect of {self.key} that was cut off{_removing(self.units)}."


@dataclass(frozen=True, slots=True)
class FinishDisconnect:
    """Write back and remove the disks of a disconnect that was cut off, then its entry."""

    changes: ClassVar[bool] = True
    key: str
    units: tuple[KernelUnit, ...]

    def __str__(self) -> str:
        return f"Finish the disconnect of {self.key} that was cut off{_removing(self.units)}."


@dataclass(frozen=True, slots=True)
class ReportLost:
    """Remove the entry of a connection that is no more, and say so."""

    changes: ClassVar[bool] = True
    key: str
    volume_id: str | None
    reason: str

    def __str__(self) -> str:
        volume = "" if self.volume_id is None else f" (volume {self.volume_id})"
        return f"Give up {self.key}{volume}, which was connected: {self.reason}."


@dataclass(frozen=True, slots=True)
class ForgetConnection:
    """Remove the entry of work that was cut off in an earlier boot."""

    changes: ClassVar[bool] = True
    key: str

    def __str__(self) -> str:
        return f"Forget {self.key}, whose connect or disconnect was cut off before the last start."


# -- sessions and records --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LogOutUnused:
    """Log out a session of ours that nothing needs. Its record and entry are another action."""

    changes: ClassVar[bool] = True
    portal: Portal
    iqn: Iqn
    sid: int

    def __str__(self) -> str:
        return f"Log out of {self.iqn} at {self.portal} (session {self.sid}): nothing uses it."


@dataclass(frozen=True, slots=True)
class DeleteRecord:
    """Delete the node record of a session of ours that is gone, then the session's entry."""

    changes: ClassVar[bool] = True
    portal: Portal
    iqn: Iqn
    place: str

    def __str__(self) -> str:
        return f"Delete the node record {self.place}, which was written for a session of ours."


@dataclass(frozen=True, slots=True)
class RestoreRecord:
    """Put back the node record that ours replaced, then remove the session's entry."""

    changes: ClassVar[bool] = True
    portal: Portal
    iqn: Iqn
    place: str
    text: Secret

    def __str__(self) -> str:
        return f"Put back the node record {self.place} as it was before ours."


@dataclass(frozen=True, slots=True)
class ForgetSession:
    """Remove the entry of a session of ours of which nothing else is left."""

    changes: ClassVar[bool] = True
    portal: Portal
    iqn: Iqn

    def __str__(self) -> str:
        return f"Forget the session to {self.iqn} at {self.portal}, of which nothing is left."


# -- what no journal knows -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LeftoverUnit:
    """A unit that no connection accounts for, on a session that one of ours uses."""

    changes: ClassVar[bool] = False
    unit: KernelUnit

    @property
    def is_removable(self) -> bool:
        """Tell whether it may be removed, if somebody asks for it."""
        return _is_unused_disk(self.unit)

    def __str__(self) -> str:
        return f"No journal knows {self.unit} ({self.unit.identity}){_in_use([self.unit])}."


@dataclass(frozen=True, slots=True)
class LeftoverSession:
    """A session that we did not log in, with the units on it."""

    changes: ClassVar[bool] = False
    session: KernelSession
    units: tuple[KernelUnit, ...]

    @property
    def is_removable(self) -> bool:
        """Tell whether it may be logged out, if somebody asks for it."""
        return all(map(_is_unused_disk, self.units))

    def __str__(self) -> str:
        where = f"session {self.session.sid} to {self.session.iqn} at {self.session.portal}"
        disks = f" with {', '.join(map(str, self.units))}" if self.units else ""
        return f"No journal knows {where}{disks}{_in_use(self.units)}."


@dataclass(frozen=True, slots=True)
class LeftoverRecord:
    """A node record that no session of ours accounts for. ``sid``: a session there, if any."""

    changes: ClassVar[bool] = False
    place: str
    sid: int | None

    @property
    def is_removable(self) -> bool:
        """Tell whether it may be deleted, if somebody asks for it."""
        return self.sid is None

    def __str__(self) -> str:
        used = "" if self.sid is None else f", which session {self.sid} uses"
        return f"No journal knows the node record {self.place}{used}."


Leftover = LeftoverUnit | LeftoverSession | LeftoverRecord
RecoveryAction = (
    KeepConnected
    | LeaveInUse
    | LeaveBusy
    | UndoConnect
    | FinishDisconnect
    | ReportLost
    | ForgetConnection
    | LogOutUnused
    | DeleteRecord
    | RestoreRecord
    | ForgetSession
    | Leftover
)


def _is_unused_disk(unit: KernelUnit) -> bool:
    # Of what is no disk (a tape, a changer) nobody knows who has it open.
    return unit.disk_name is not None and not unit.openers


def _removing(units: tuple[KernelUnit, ...]) -> str:
    return f", removing {', '.join(map(str, units))}" if units else ""


def _in_use(units: list[KernelUnit] | tuple[KernelUnit, ...]) -> str:
    openers = dict.fromkeys(who for unit in units for who in unit.openers)
    return f", in use by {', '.join(openers)}" if openers else ""
