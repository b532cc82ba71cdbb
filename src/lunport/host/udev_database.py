"""Wait until udev has looked at a block device, which others rely on (multipathd, by-id links).

    /run/udev/data/b8:0         I:1234567  S:disk/by-id/...  E:ID_SERIAL=36001405...

The file appears under this name, whole, when udev's rules for the device have run
(systemd: src/libsystemd/sd-device/device-private.c, device_update_db). Reads it and nothing
else; never asks udev to do anything.
"""

from __future__ import annotations

from pathlib import Path

from lunport.core.wwid import Wwid, same_wwid
from lunport.host.clock import Deadline
from lunport.host.inotify import ArrivalWatch

FOLDER = Path("/run/udev/data")

_SERIAL = "E:ID_SERIAL="
_LOOK_S = 0.5  # how long an arrival that nobody told us was lost may stay unnoticed


def wait_until_known(
    number: str, deadline: Deadline, *, wwid: Wwid | None = None, folder: Path = FOLDER
) -> bool:
    """Wait until udev has looked at a block device; tell whether it has.

    ``number``: "8:0". With ``wwid``, what udev remembers of an earlier disk of that number
    doesn't count. False at the deadline, and at once where udev doesn't run.
    """
    try:
        with ArrivalWatch(folder) as watch:
            has_time = True
            while has_time:
                has_time = not deadline.has_passed()
                if _is_known(folder / f"b{number}", wwid):
                    return True
                if has_time:
                    watch.wait(deadline.at_most(_LOOK_S))
    except OSError:  # no such folder, or no watch left: nobody can be heard
        return _is_known(folder / f"b{number}", wwid)
    return False


def _is_known(file: Path, wwid: Wwid | None) -> bool:
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    serials = [line.removeprefix(_SERIAL) for line in text.splitlines() if line[:12] == _SERIAL]
    return wwid is None or not serials or same_wwid(serials[0], wwid)
