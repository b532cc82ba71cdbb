"""One iSCSI session as the kernel shows it in /sys/class/iscsi_session.

Sessions are recognised by where they lead: addresses compared as addresses and names without
regard to case. The portal group is kept and never compared: two tools that write it
differently mean the same session. Reads nothing; ``host/iscsi_sysfs.py`` does.
"""

from __future__ import annotations

from dataclasses import dataclass

from lunport.core.iqn import Iqn, same_iqn
from lunport.core.portal import Portal

LOGGED_IN = "LOGGED_IN"


@dataclass(frozen=True, slots=True)
class KernelSession:
    """A session of this host's kernel, at the moment it was read.

    ``sid``: the N of ``sessionN``. ``portal``: the one that was asked for, even when the
    target has redirected the login. ``state``: LOGGED_IN, FAILED (in recovery) or FREE (given
    up, or not logged in yet). ``node``: its folder below /sys.
    """

    sid: int
    scsi_host: int
    iqn: Iqn
    portal: Portal
    iface: str
    transport: str
    state: str
    tpgt: int | None
    node: str

    @property
    def is_logged_in(self) -> bool:
        """Tell whether I/O can pass."""
        return self.state == LOGGED_IN

    def is_to(self, portal: Portal, iqn: Iqn) -> bool:
        """Tell whether the session leads to that target through that portal."""
        return self.portal == portal and same_iqn(self.iqn, iqn)
