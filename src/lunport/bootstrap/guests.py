"""The parts of attaching to guests, made of the real ones: libvirt, the host's files, the service.

libvirt's binding is imported here and only when it is needed, so that a host without guests needs
neither it nor libvirt.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

from lunport.agent.guest_parts import ConnectingHost, GuestParts, GuestVolumeApi
from lunport.agent.hypervisor_seam import AgentHypervisor
from lunport.agent.migration_parts import MovingHypervisor
from lunport.core.connection_info import ConnectionInfo
from lunport.core.connector import Connector
from lunport.core.errors import HostLacks, InvalidInput
from lunport.core.guest_disk import GuestDisk
from lunport.core.iqn import Iqn, parse_iqn
from lunport.core.portal import parse_portal
from lunport.core.target_path import TargetPath, parse_lun
from lunport.host.attachment_notes import AttachmentNotes
from lunport.host.clock import Deadline
from lunport.host.dead_portals import DeadPortals
from lunport.host.file_locks import FileLocks
from lunport.host.guest_journal import GuestJournal
from lunport.host.host_root import run_directory
from lunport.host.local_address import local_address
from lunport.host.portal_probe import probe_path
from lunport.initiator.portal_choice import PathChoice, choose_path

DEFAULT_URI = "qemu:///system"


def connect_hypervisor(uri: str) -> MovingHypervisor:
    """Return the guests at a libvirt; nothing is asked yet. Raises: HostLacks."""
    try:
        from lunport.hypervisor.connection import LibvirtConnection  # noqa: PLC0415 - only now
        from lunport.hypervisor.migration import LibvirtMoves  # noqa: PLC0415 - only now needed
    except ImportError as error:
        how = "pip install 'lunport[guests]', or python3-libvirt of the distribution"
        raise HostLacks("libvirt's Python binding cannot be used", str(error), how) from error
    return LibvirtMoves(LibvirtConnection(uri))


def make_connector(
    initiator: Iqn, *, multipath: bool, enforce_multipath: bool = False, host: str | None = None
) -> Connector:
    """Say what this host is to the storage side."""
    return Connector(
        initiator=initiator,
        ip=local_address(),
        host=host or socket.gethostname(),
        multipath=multipath,
        enforce_multipath=enforce_multipath,
    )


def make_guest_parts(
    uri: str,
    host: ConnectingHost,
    api: Callable[[str], GuestVolumeApi],
    connector: Callable[[bool | None], Connector],
    *,
    hypervisor: AgentHypervisor | None = None,
) -> GuestParts:
    """Join them. Raises: HostLacks."""

    def choose(info: ConnectionInfo, deadline: Deadline) -> PathChoice:
        # By the name of this host, as QEMU will log in.
        return choose_path(
            info.paths,
            connector(False).initiator,
            chap=info.chap,
            wwid=info.wwid,
            memory=DeadPortals(),
            deadline=deadline,
            addressing_mode=info.addressing_mode,
        )

    def answers(disk: GuestDisk, deadline: Deadline) -> bool:
        try:
            iqn, _, lun = (disk.source or "").rpartition("/")
            path = TargetPath(parse_portal(disk.portal), parse_iqn(iqn), parse_lun(lun))
        except InvalidInput:
            return True  # a name, which QEMU resolves by itself
        initiator = connector(False).initiator
        outcome = probe_path(
            path, initiator, None, expected_wwid=None, check_lun=False, deadline=deadline
        )
        return not outcome.verdict.is_silence

    return GuestParts(
        uri=uri,
        hypervisor=hypervisor or connect_hypervisor(uri),
        host=host,
        api=api,
        journal=GuestJournal(),
        notes=AttachmentNotes(),
        locks=FileLocks(run_directory() / "locks"),
        connector=connector,
        choose=choose,
        answers=answers,
    )
