"""Devices of LIO for the units of exports: make them, say what is wrong with one, drop them.

An image file is offered through a loop device under an iblock backstore, because a fileio one
keeps the size that it was made with; a block device directly. A device belongs to a unit's
identity, not to a target: several targets may show it. Its name is the identity's 25 digits.

Write cache: iblock reports that of the block device, a loop device has one and passes flushes on
to the file, so "write back" is what initiators see of files. Discard is offered where the block
device takes it. The block size is the block device's, 512 bytes for files.
"""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path

from lunport.core.errors import ExportFailed, InvalidInput
from lunport.core.identity import LuIdentity
from lunport.host.clock import Deadline
from lunport.host.lio import DEVICE_PREFIX, LioDevice, LioTree
from lunport.host.loop_device import (
    attached,
    backing_file,
    can_discard,
    device_number,
    goes_by_itself,
    grow,
    is_backed_by,
    is_loop,
    size_of,
)
from lunport.targets.helper import Unit

VENDOR = "LUNPORT"
PRODUCT = "VOLUME"
_WWID = re.compile(r"naa\.6001405([0-9a-f]{25})")
_LOOK_S = 0.005
_pause = threading.Event()


def digits_of(identity: LuIdentity) -> str:
    """Return the unit serial that LIO makes the identity of. Raises: InvalidInput."""
    match = _WWID.fullmatch(identity.wwid)
    if match is None:
        raise InvalidInput("identity", identity.wwid, "LIO has naa.6001405 and 25 hex digits only")
    return match[1]


class LioUnits:
    """What LIO offers, apart from to whom."""

    def __init__(self, tree: LioTree, *, direct_io: bool, timeout_s: float) -> None:
        self._tree = tree
        self._direct_io = direct_io
        self._timeout_s = timeout_s

    def place_of(self, unit: Unit) -> Path:
        """Return where the unit's device is, or would be."""
        return self._tree.device_place(digits_of(unit.identity))

    def fault(self, unit: Unit, place: Path) -> str | None:
        """Say why the device behind a LUN is not the unit's; None when it is. Raises: OSError."""
        device = self._tree.device(place)
        if device is None or device.number is None:
            return "nothing is behind it"
        if not _stands_for(device.number, unit.path):
            return f"it is not {unit.path}"
        if device.serial != digits_of(unit.identity):
            return "its identity is another"
        return None

    def lacks_discard(self, place: Path) -> bool:
        """Tell whether a device does not offer the discard that it could. Raises: OSError."""
        device = self._tree.device(place)
        return device is not None and _lacks_discard(device)

    def make(self, iqn: str, unit: Unit) -> None:
        """Have the unit's device be there, whole. Raises: OSError, ExportFailed."""
        place, digits = self.place_of(unit), digits_of(unit.identity)
        device = self._tree.device(place)
        if (
            device is not None
            and device.number is not None
            and not _stands_for(device.number, unit.path)
        ):
            if not self.drop(place):
                detail = f"{unit.path}: another target shows another image of this identity"
                raise ExportFailed(iqn, f"unit {unit.lun}", detail)
            device = None
        if device is None or device.number is None:
            self._enable(iqn, unit, place)
            device = self._tree.device(place)
        if device is not None and device.serial != digits:
            self._tree.name_device(place, serial=digits, vendor=VENDOR, product=PRODUCT)
        if device is not None and _lacks_discard(device):
            self._tree.set_unmap(place)

    def drop(self, place: Path) -> bool:
        """Take a device away unless a target shows it, and its loop device with it.

        False when it is shown. One that is not named as ours are stays. Raises: OSError.
        """
        if not place.name.startswith(DEVICE_PREFIX):
            return True
        device = self._tree.device(place)
        if not self._tree.remove_device(place):
            return device is None
        if device is not None and device.number is not None:
            deadline = Deadline.after(self._timeout_s)
            # a look by udev may hold a loop device open for a moment; then it goes a moment later
            while goes_by_itself(device.number) and not deadline.has_passed():
                _pause.wait(_LOOK_S)
        return True

    def path_behind(self, place: Path | None) -> Path | None:
        """Return the image behind a LUN, by the name it was made with if that is still its own.

        Raises: OSError.
        """
        device = None if place is None else self._tree.device(place)
        if device is None or device.number is None:
            return None
        if device.image is not None and _stands_for(device.number, device.image):
            return device.image
        if is_loop(device.number):
            return backing_file(device.number)
        return device.image

    def grow(self, iqn: str, lun: int, size_bytes: int) -> bool:
        """Have a unit take the size of its image; tell whether it grew.

        Raises: OSError, ExportFailed (there is no such unit, or the image has not grown).
        """
        step = f"size of unit {lun}"
        place = self._tree.lun_device(iqn, lun)
        device = None if place is None else self._tree.device(place)
        if device is None or device.number is None:
            raise ExportFailed(iqn, step, "there is no such unit")
        before = size_of(device.number)
        if before < size_bytes and is_loop(device.number):
            grow(device.number)
        after = size_of(device.number)
        if after < size_bytes:
            raise ExportFailed(iqn, step, f"its image has {after} bytes, not {size_bytes}")
        return after != before

    def _enable(self, iqn: str, unit: Unit, place: Path) -> None:
        try:
            number = device_number(unit.path)
            if number is not None:
                # a real name: the kernel's parser stops at a comma
                self._tree.enable_device(place, Path(os.path.realpath(unit.path)), unit.path)
                return
            deadline = Deadline.after(self._timeout_s)
            with attached(unit.path, deadline, direct_io=self._direct_io) as loop:
                self._tree.enable_device(place, loop, unit.path)
        except FileNotFoundError as error:
            if unit.path.exists():
                raise
            detail = f"{unit.path}: it is gone"
            raise ExportFailed(iqn, f"unit {unit.lun}", detail) from error


def _stands_for(number: int, path: Path) -> bool:
    try:
        own = device_number(path)
    except OSError:
        return False
    return own == number if own is not None else is_backed_by(number, path)


def _lacks_discard(device: LioDevice) -> bool:
    return device.number is not None and not device.unmaps and can_discard(device.number)
