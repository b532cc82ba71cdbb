"""The parts of moving guests, made of the real ones, and what keeps them in a host's agent."""

from __future__ import annotations

import functools
import logging
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lunport.agent.agent import Agent
from lunport.agent.guest_keeper import GuestKeeper
from lunport.agent.guest_parts import ConnectingHost
from lunport.agent.migrate_destination import MigrationDestination
from lunport.agent.migration_keeper import MigrationKeeper
from lunport.agent.migration_parts import DestinationPeer, MigrationParts
from lunport.bootstrap.guests import (
    DEFAULT_URI,
    connect_hypervisor,
    make_connector,
    make_guest_parts,
)
from lunport.bootstrap.remote_destination import RemoteDestination
from lunport.client.agent import PEER_PORT, AgentPeer
from lunport.client.block_storage import BlockStorage
from lunport.client.guest_migrations import GuestMigrations
from lunport.core.connector import Connector
from lunport.core.errors import HostLacks, LunportError
from lunport.core.iqn import Iqn
from lunport.core.portal import parse_portal
from lunport.core.secret import Secret
from lunport.core.target_path import TargetPath
from lunport.host.clock import Deadline
from lunport.host.host_root import state_directory
from lunport.host.portal_probe import probe_path
from lunport.host.tls import TlsFolder
from lunport.initiator.initiator_host import InitiatorHost

_LOG = logging.getLogger(__name__)
# No target has this name: whatever a portal answers to it, it answers.
_NOBODY = Iqn("iqn.2026-11.io.lunport:is-anybody-there")
GRAPHICS = ("vnc", "spice")


@dataclass(frozen=True, slots=True)
class MovingHost:
    """How this host takes part in moves.

    ``name``: what it is called. ``libvirt``: which one has its guests, and ``migration_uri``
    where other hosts' libvirts reach that; None: by the host's name, with TLS.
    ``graphics_listen``: where graphics of guests that come listen; None: as they did.
    ``endpoint``: the service that it believes; None: the one that the other side names.
    """

    name: str
    libvirt: str = DEFAULT_URI
    migration_uri: str | None = None
    graphics_listen: str | None = None
    endpoint: str | None = None
    tls: TlsFolder | None = None
    token: Secret | None = None
    service_token: Secret | None = None

    @property
    def listen(self) -> Mapping[str, str]:
        """Where graphics listen, by kind."""
        address = self.graphics_listen
        return {} if address is None else dict.fromkeys(GRAPHICS, address)


def make_migration_parts(
    host: MovingHost,
    verbs: ConnectingHost,
    connector: Callable[[bool | None], Connector],
    has_multipath: Callable[[], bool],
) -> MigrationParts:
    """Join them. Raises: HostLacks."""
    hypervisor = connect_hypervisor(host.libvirt)

    # One for all requests to a service: a handshake costs more than most of them.
    @functools.cache
    def api(endpoint: str) -> BlockStorage:
        return BlockStorage(
            endpoint, token=host.token, service_token=host.service_token, tls=host.tls
        )

    def peer(name: str, at: str | None) -> DestinationPeer:
        if host.tls is None:
            how = "say --tls FOLDER, or LUNPORT_TLS; lunport pki makes one"
            raise HostLacks("Other hosts cannot be asked", "this one shows no certificate", how)
        if at is None:
            return RemoteDestination(AgentPeer(name, host.tls))
        text = at if ":" in at.rpartition("]")[2] else f"{at}:{PEER_PORT}"
        portal = parse_portal(text)
        return RemoteDestination(AgentPeer(name, host.tls, port=portal.port, at=portal.host))

    def reaches(portal: str, deadline: Deadline) -> bool:
        try:
            path = TargetPath(parse_portal(portal), _NOBODY, 0)
            outcome = probe_path(
                path,
                connector(False).initiator,
                None,
                expected_wwid=None,
                check_lun=False,
                deadline=deadline,
            )
        except LunportError:
            return False
        return not outcome.verdict.is_silence

    return MigrationParts(
        guests=make_guest_parts(host.libvirt, verbs, api, connector, hypervisor=hypervisor),
        hypervisor=hypervisor,
        host=host.name,
        moves=lambda endpoint: GuestMigrations(api(endpoint)),
        peer=peer,
        migration_uri=host.migration_uri or f"qemu+tls://{host.name}/system",
        reaches=reaches,
        free_bytes=lambda: _free_bytes(state_directory()),
        has_multipath=has_multipath,
        listen=host.listen,
        endpoint=host.endpoint,
        has_token=host.token is not None or host.service_token is not None,
    )


def make_guest_side(
    host: MovingHost, agent: Agent, initiator: InitiatorHost, is_host_ready: Callable[[], bool]
) -> tuple[GuestKeeper, MigrationDestination] | None:
    """Make what an agent does for guests; None where libvirt's binding is absent."""

    def connector(multipath: bool | None) -> Connector:
        wants_all = multipath is not False and initiator.multipathd.is_running()
        return make_connector(initiator.initiator_name(), multipath=wants_all, host=host.name)

    try:
        parts = make_migration_parts(host, agent, connector, initiator.multipathd.is_running)
    except HostLacks as error:
        _LOG.info("guests_not_kept error=%s", error)
        return None
    keeper = GuestKeeper(
        parts.guests, is_host_ready=is_host_ready, moves=MigrationKeeper(parts).round
    )
    return keeper, MigrationDestination(parts)


def _free_bytes(folder: Path) -> int:
    """Return what is free where a folder is, or will be."""
    there = next(one for one in (folder, *folder.parents) if one.exists())
    return shutil.disk_usage(there).free
