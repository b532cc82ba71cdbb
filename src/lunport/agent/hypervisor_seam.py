"""What the agent uses of the hypervisor: the seam at which tests put another one."""

from __future__ import annotations

from typing import Protocol

from lunport.core.change import Change
from lunport.core.guest import Guest
from lunport.core.secret import Secret
from lunport.host.clock import Deadline


class AgentHypervisor(Protocol):
    """The guests of this host.

    Every method raises HypervisorUnavailable where the daemon does not answer, by the deadline
    at the latest; what was asked for may then be done all the same. It raises GuestNotFound for
    a guest that is not there, and HypervisorError for whatever else is refused.
    """

    def guests(self, deadline: Deadline) -> tuple[Guest, ...]:
        """List all guests, by name."""

    def guest(self, name_or_id: str, deadline: Deadline) -> Guest:
        """Show one guest."""

    def plug(self, guest_id: str, disk_xml: str, deadline: Deadline) -> None:
        """Give a guest a disk: now if it runs, and at its next start if it is persistent.

        Not idempotent. On failure the guest has it neither now nor then. Raises: PlugRejected.
        """

    def unplug(self, guest_id: str, serial: str, deadline: Deadline) -> Change:
        """Take the disk of a volume from a guest, and wait until it has let go. Idempotent.

        Asks again while the guest says nothing. On failure the guest has it as before; one that
        is slow may still let go later. Raises: UnplugRefused, UnplugTimedOut.
        """

    def resize(self, guest_id: str, serial: str, size_bytes: int, deadline: Deadline) -> None:
        """Tell a running guest how large the disk of a volume is now. Idempotent."""

    def keep_secret(self, secret_id: str, usage: str, value: Secret, deadline: Deadline) -> None:
        """Put a secret into the hypervisor's store: in memory, and never shown. Idempotent."""

    def forget_secret(self, secret_id: str, deadline: Deadline) -> Change:
        """Take a secret from the store. Idempotent."""

    def secrets(self, deadline: Deadline) -> tuple[str, ...]:
        """List the ids of the secrets in the store, whosever they are."""

    def set_autostart(self, guest_id: str, wanted: bool, deadline: Deadline) -> Change:
        """Say whether the hypervisor itself starts a guest with the host. Idempotent."""

    def start(self, guest_id: str, deadline: Deadline) -> Change:
        """Start a guest that is shut off. Idempotent."""
