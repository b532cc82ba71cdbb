"""The kernel that the lab boots: one that has the modules of a target and of our shares."""

from __future__ import annotations

from lab.errors import LabCannot
from lunport.core.errors import HostLacks
from lunport.host.linux_kernel import Kernel, find_kernel

_NEEDED = ("iscsi_target_mod", "iscsi_tcp", "9pnet_virtio", "overlay")


def lab_kernel() -> Kernel:
    """Return the newest one that is installed. Raises: LabCannot."""
    try:
        return find_kernel(_NEEDED)
    except HostLacks as error:
        raise LabCannot(str(error)) from error
