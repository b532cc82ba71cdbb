"""Who the agent of a host is to the volume service, and what that lets it ask for.

A certificate names a host; enrolment binds that name to the host's initiator. What such an
agent asks for must be its own host's in both: a connector that names another host, or another
initiator, is somebody else's export. Names of hosts have no case; an initiator is compared as
it was enrolled, sign by sign, because targets and revocations do so.
"""

from __future__ import annotations

from typing import NamedTuple

from lunport.core.attachment import Attachment
from lunport.core.connector import Connector
from lunport.core.errors import NotItsHost
from lunport.core.host_name import same_host


class AgentIdentity(NamedTuple):
    """The agent of an enrolled host."""

    host: str
    initiator: str

    def require_own_connector(self, connector: Connector) -> None:
        """Refuse a connector of another host. Raises: NotItsHost."""
        if not same_host(connector.host, self.host):
            named = "no host" if connector.host is None else f"host {connector.host}"
            raise NotItsHost(self.host, f"a connector that names {named}")
        if connector.initiator != self.initiator:
            reason = f"a connector of initiator {connector.initiator}"
            raise NotItsHost(self.host, f"{reason}: it is enrolled with {self.initiator}")

    def require_own_attachment(self, attachment: Attachment) -> None:
        """Refuse an attachment that is not this host's. Raises: NotItsHost."""
        if not self.owns(attachment):
            raise NotItsHost(self.host, f"attachment {attachment.id}")

    def owns(self, attachment: Attachment) -> bool:
        """Tell whether an attachment is connected to this host, or reserved by it."""
        if not same_host(attachment.attached_host, self.host):
            return False
        wire = attachment.connector
        return wire is None or wire.get("initiator") == self.initiator
