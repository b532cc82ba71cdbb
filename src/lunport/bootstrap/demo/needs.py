"""What the second act needs: addresses, and what guests are made of. Imports none of it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from lunport.core.errors import HostLacks
from lunport.host.linux_kernel import find_kernel
from lunport.host.runner import find_program

SERVICE_ADDRESS = "10.0.4.2"
HOSTS = {"kvm-a": "10.0.4.11", "kvm-b": "10.0.4.12"}
ADDRESSES = (SERVICE_ADDRESS, *HOSTS.values())
QEMU = "qemu-system-x86_64"
GUEST_MODULES = ("virtio_pci", "virtio_blk", "virtio_scsi", "sd_mod")
PACKAGES = {
    "libvirtd": "libvirt-daemon libvirt-daemon-driver-qemu",
    QEMU: "qemu-system-x86",
    "iscsiadm": "open-iscsi",
    "busybox": "busybox-static",
    "gcc": "gcc libc6-dev",
    "mount": "mount",
    "unshare": "util-linux",
    "nsenter": "util-linux",
}
_BINDING = "libvirt"
_QUICK = "or see the first act alone: make demo-quick"


def expect_guest_parts() -> None:
    """Check that libvirt, QEMU and what a guest is made of are here. Raises: HostLacks."""
    missing = {one: package for one, package in PACKAGES.items() if find_program(one) is None}
    if importlib.util.find_spec(_BINDING) is None:
        missing["libvirt's binding for Python"] = "python3-libvirt"
    if missing:
        how = f"apt-get install {' '.join(dict.fromkeys(missing.values()))}; {_QUICK}"
        raise HostLacks("What a guest needs is missing", ", ".join(missing), how)
    if not Path("/etc/iscsi").is_dir():
        how = f"apt-get install {PACKAGES['iscsiadm']}; {_QUICK}"
        raise HostLacks("What a guest needs is missing", "/etc/iscsi", how)
    try:
        find_kernel(GUEST_MODULES)
    except HostLacks as error:
        raise HostLacks(error.what, error.detail, f"{error.how}; {_QUICK}") from error
