"""What ``lunport guest`` works with: the host's parts, and the guests of one libvirt.

One value that a test replaces; everything is made when it is first asked for.
"""

from __future__ import annotations

from dataclasses import dataclass

from lunport.agent.guest_parts import GuestParts, GuestVolumeApi
from lunport.agent.migration_parts import MigrationParts
from lunport.bootstrap.guests import make_guest_parts
from lunport.cli.host_parts import HostParts
from lunport.cli.tls_of_host import tls_of_host
from lunport.core.secret import Secret


@dataclass(frozen=True, slots=True)
class GuestCommandParts(HostParts):
    """The real parts of this host and its guests."""

    def guest_parts(
        self, uri: str, token: Secret | None, service_token: Secret | None
    ) -> GuestParts:
        """Join libvirt, this host and the service. Raises: HostLacks, CommandMissing."""

        def api(endpoint: str) -> GuestVolumeApi:
            from lunport.client.block_storage import BlockStorage  # noqa: PLC0415 - only now

            return BlockStorage(
                endpoint, token=token, service_token=service_token, tls=tls_of_host()
            )

        return make_guest_parts(
            uri, self.verbs(), api, lambda multipath: self.connector(multipath=multipath)
        )

    def migration_parts(
        self, uri: str, token: Secret | None, service_token: Secret | None
    ) -> MigrationParts:
        """Join what moving guests from here needs. Raises: HostLacks, CommandMissing."""
        from lunport.bootstrap.migrations import (  # noqa: PLC0415 - only now needed
            MovingHost,
            make_migration_parts,
        )

        return make_migration_parts(
            MovingHost(
                self.host_name(), uri, tls=tls_of_host(), token=token, service_token=service_token
            ),
            self.verbs(),
            lambda multipath: self.connector(multipath=multipath),
            self.has_multipath,
        )
