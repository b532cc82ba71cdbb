"""The logical units of a tgt target: put there, compared, taken away beside live sessions.

Source: tgt 1.0.85, ``usr/target.c``, ``usr/spc.c``, ``usr/sbc.c``.

Quirk(tgt): an identity cannot be given with a new unit, only to one that is there. Between
the two requests a unit shows ``IET`` and its numbers, which no initiator of ours accepts; one
that still does is half-made, and is completed.
Quirk(tgt): a unit with commands in flight is not deleted. ``removable=1,online=0`` refuses
new ones (NOT READY) until those in flight have ended.
Quirk(tgt): a size is read when an image is opened, and it is opened again only offline. The
commands of a target that is offline are neither carried out nor answered, and those in
flight would read from a closed file: so nobody may be connected when a unit grows.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lunport.core.change import Change
from lunport.core.errors import ExportFailed, LunportError, UndoFailed
from lunport.host.tgt_show import ShownLun, ShownTarget
from lunport.host.tgt_socket import TgtStatus
from lunport.targets.helper import Unit
from lunport.targets.tgt_target import OneTarget

VENDOR = "LUNPORT"
PRODUCT = "VOLUME"
_UNNAMED = "IET "
_LOOK_S = 0.005
_pause = threading.Event()


@dataclass(frozen=True, slots=True)
class UnitRepair:
    """What makes a target's units those wanted.

    ``wrong`` are shown under LUNs of ``wanted`` units with another image or identity.
    """

    surplus: tuple[int, ...]
    unnamed: tuple[Unit, ...]
    wrong: tuple[Unit, ...]
    absent: tuple[Unit, ...]

    def __bool__(self) -> bool:
        return bool(self.surplus or self.unnamed or self.wrong or self.absent)


def plan_repair(shown: Iterable[ShownLun], wanted: Iterable[Unit]) -> UnitRepair:
    """Compare the units that are shown with those wanted."""
    present = {lun.lun: lun for lun in shown}
    units = {unit.lun: unit for unit in wanted}
    differing = [
        unit
        for unit in units.values()
        if unit.lun in present and not is_the_unit(present[unit.lun], unit)
    ]
    unnamed = tuple(unit for unit in differing if _is_unnamed(present[unit.lun], unit))
    return UnitRepair(
        surplus=tuple(lun for lun in present if lun not in units),
        unnamed=unnamed,
        wrong=tuple(unit for unit in differing if unit not in unnamed),
        absent=tuple(unit for unit in units.values() if unit.lun not in present),
    )


def is_the_unit(shown: ShownLun, unit: Unit) -> bool:
    """Tell whether the LUN shows the unit's image, with its identity."""
    return (shown.lun, shown.path, shown.scsi_id, shown.serial, shown.is_thin) == (
        unit.lun,
        unit.path,
        _scsi_id(unit),
        unit.identity.serial,
        True,
    )


def describe_difference(shown: ShownLun, unit: Unit) -> str:
    """Say what a LUN shows that it should not."""
    if shown.path != unit.path:
        return f"LUN {unit.lun} shows {shown.path or 'no image'}, not {unit.path}"
    if shown.scsi_id != _scsi_id(unit):
        return f"LUN {unit.lun} is {shown.scsi_id}, not {_scsi_id(unit)}"
    if shown.serial != unit.identity.serial:
        return f"LUN {unit.lun} has serial {shown.serial}, not {unit.identity.serial}"
    return f"LUN {unit.lun} takes no discard"


def add_unit(target: OneTarget, unit: Unit) -> bool:
    """Put the image behind the LUN and give it its identity; False when a unit was there.

    Raises: ExportFailed (then the unit is not there).
    """
    answer = target.requests.new_unit(target.tid, unit.lun, unit.path)
    if answer.status is TgtStatus.INVALID_REQUEST:
        why = "tgtd cannot open it" if unit.path.exists() else "it is gone"
        raise ExportFailed(target.iqn, "logical unit", f"{unit.path}: {why}")
    if not target.expect(answer, "logical unit", TgtStatus.LUN_EXISTS):
        return False
    try:
        name_unit(target, unit)
    except ExportFailed as cause:
        try:
            remove_unit(target, unit.lun)
        except LunportError as failure:
            raise UndoFailed(cause, [failure]) from cause
        raise
    return True


def name_unit(target: OneTarget, unit: Unit) -> None:
    """Give a unit its identity."""
    answer = target.requests.set_unit(
        target.tid,
        unit.lun,
        scsi_id=_scsi_id(unit),
        scsi_sn=unit.identity.serial,
        vendor_id=VENDOR,
        product_id=PRODUCT,
        thin_provisioning=1,
    )
    target.expect(answer, "identity")


def map_beside(target: OneTarget, shown: ShownTarget, unit: Unit) -> Change:
    """Add a unit to a target that was looked at, or complete it.

    Raises: ExportFailed (the LUN shows something else).
    """
    present = next((lun for lun in shown.luns if lun.lun == unit.lun), None)
    if present is not None and is_the_unit(present, unit):
        return Change.UNCHANGED
    if present is not None and not _is_unnamed(present, unit):
        raise ExportFailed(target.iqn, "logical unit", describe_difference(present, unit))
    if present is not None:
        name_unit(target, unit)
    elif not add_unit(target, unit):
        raise ExportFailed(target.iqn, "logical unit", f"LUN {unit.lun} came at this moment")
    return Change.CHANGED


def remove_unit(target: OneTarget, lun: int) -> Change:
    """Take a unit off the target; its commands fail from now on, those of others do not.

    Raises: ExportFailed (its commands do not end; it is there as before).
    """
    requests = target.requests
    answer = requests.delete_unit(target.tid, lun)
    if answer.status is TgtStatus.LUN_ACTIVE:
        requests.set_unit(target.tid, lun, removable=1, online=0)
        patience = requests.deadline.at_most(requests.deadline.remaining_s() / 2)
        while answer.status is TgtStatus.LUN_ACTIVE and not patience.has_passed():
            _pause.wait(_LOOK_S)
            answer = requests.delete_unit(target.tid, lun)
        if answer.status is TgtStatus.LUN_ACTIVE:
            requests.set_unit(target.tid, lun, online=1, removable=0)
    did = target.expect(answer, "logical unit", TgtStatus.NO_LUN, TgtStatus.NO_TARGET)
    return Change.CHANGED if did else Change.UNCHANGED


def reopen_image(target: OneTarget, lun: int, path: Path) -> None:
    """Have the daemon read the image's size anew. Precondition: no session has commands."""
    answer = target.requests.set_unit(target.tid, lun, online=0, path=str(path))
    target.expect(answer, "size")


def _is_unnamed(shown: ShownLun, unit: Unit) -> bool:
    return shown.path == unit.path and shown.scsi_id.startswith(_UNNAMED)


def _scsi_id(unit: Unit) -> str:
    # tgtd reads it as hexadecimal and keeps the last 31 digits behind the 6.
    return unit.identity.wwid.removeprefix("naa.")
