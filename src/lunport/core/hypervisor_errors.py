"""The branch of the error tree for guests and the hypervisor they run in.

Drawn in :mod:`lunport.core.errors`, from where everybody imports.
"""

from __future__ import annotations

from lunport.core.error_root import LunportError


class HypervisorError(LunportError):
    """The hypervisor did not do what it was asked for; ``detail`` is what it said."""

    def __init__(self, request: str, detail: str) -> None:
        super().__init__(request, detail)
        self.request = request
        self.detail = detail

    def __str__(self) -> str:
        return f"The hypervisor failed at {self.request}: {self.detail.rstrip('.')}."


class PlugRejected(HypervisorError):
    """A disk could not be given to a guest."""

    def __init__(self, guest: str, disk: str, detail: str) -> None:
        super().__init__(f"plugging {disk} into guest {guest}", detail)
        self.args = (guest, disk, detail)
        self.guest = guest
        self.disk = disk


class UnplugRefused(HypervisorError):
    """A guest answered that it keeps a disk: something in it has the disk in use."""

    def __init__(self, guest: str, disk: str, detail: str) -> None:
        super().__init__(f"unplugging {disk}", detail)
        self.args = (guest, disk, detail)
        self.guest = guest
        self.disk = disk

    def __str__(self) -> str:
        return (
            f"Guest {self.guest} refuses to give up disk {self.disk} ({self.detail}): unmount it "
            "in the guest, and detach again."
        )


class UnplugTimedOut(HypervisorError):
    """A guest did not answer whether it gives up a disk; it may still do so."""

    def __init__(self, guest: str, disk: str, waited_s: float) -> None:
        super().__init__(f"unplugging {disk}", "no answer")
        self.args = (guest, disk, waited_s)
        self.guest = guest
        self.disk = disk
        self.waited_s = waited_s

    def __str__(self) -> str:
        return (
            f"Guest {self.guest} was asked for disk {self.disk} and said neither yes nor no for "
            f"{self.waited_s:.1f} s: it is slow, or has no driver for it; detach again, or stop it."
        )


class XmlMismatch(HypervisorError):
    """A guest's definition is not what it must be to go on."""

    def __init__(self, guest: str, disk: str, reason: str) -> None:
        super().__init__("reading the guest's definition", reason)
        self.args = (guest, disk, reason)
        self.guest = guest
        self.disk = disk
        self.reason = reason

    def __str__(self) -> str:
        return f"Guest {self.guest}, {self.disk}: {self.reason}."


class MigrationFailed(HypervisorError):
    """A guest was not moved: it is where it was, and the other side has nothing of it."""

    def __init__(self, guest: str, destination: str, detail: str) -> None:
        super().__init__(f"moving guest {guest}", detail)
        self.args = (guest, destination, detail)
        self.guest = guest
        self.destination = destination

    def __str__(self) -> str:
        return (
            f"Guest {self.guest} was not moved to {self.destination}, and is where it was: "
            f"{self.detail.rstrip('.')}."
        )
