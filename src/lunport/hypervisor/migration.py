"""Guests on their way between two libvirts: the call that moves one, its progress, its end.

The call is peer to peer: this libvirt speaks to the other one by itself, so it goes on when its
caller is gone. An error of it says nothing about where the guest is: that is asked of both sides
by those who decide. Follows libvirt's reference (virDomainMigrateToURI3) and what Nova asks for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import libvirt

from lunport.core.change import Change
from lunport.core.errors import GuestNotFound
from lunport.core.move_call import Definitions, MoveOptions, MoveProgress
from lunport.core.xml_spans import encode_xml, read_elements
from lunport.host.clock import Deadline
from lunport.hypervisor.error_mapping import code_of, is_lost, words_of
from lunport.hypervisor.guests import LibvirtGuests

_ENDLESS_S = 366 * 86_400.0  # the caller ends the call, by stop_move
# A transfer's own states: no job, or none any more since the guest is gone.
_NO_JOB = frozenset({libvirt.VIR_ERR_OPERATION_INVALID, libvirt.VIR_ERR_NO_DOMAIN})
_MIGRATABLE = libvirt.VIR_DOMAIN_XML_MIGRATABLE | libvirt.VIR_DOMAIN_XML_SECURE


class LibvirtMoves(LibvirtGuests):
    """The guests at one libvirt, and their moves out of it. Safe to share between threads."""

    def definitions(self, guest_id: str, deadline: Deadline) -> Definitions:
        """Return a running guest's XML, as another libvirt takes it; secrets included."""

        def read(domain: libvirt.virDomain) -> Definitions:
            inactive = libvirt.VIR_DOMAIN_XML_INACTIVE | _MIGRATABLE
            persistent = domain.XMLDesc(inactive) if domain.isPersistent() else None
            return Definitions(domain.XMLDesc(_MIGRATABLE), persistent)

        return self._about("reading the guest's definition", guest_id, read, deadline)

    def obstacles(self, live_xml: str, deadline: Deadline) -> Mapping[str, str]:
        """Say why a guest from elsewhere cannot run here: ``machine``, ``cpu``."""
        asked = _Asked(live_xml)
        return self.connection.call("asking what can run here", asked.ask, deadline)

    def move(self, guest_id: str, uri: str, target: Definitions, options: MoveOptions) -> None:
        """Move a running guest to the libvirt at a URI. Ends when that is over, or failed."""
        flags, parameters = _request(target, options)

        def go(domain: libvirt.virDomain) -> None:
            if options.downtime_ms is not None:
                domain.migrateSetMaxDowntime(options.downtime_ms)
            domain.migrateToURI3(uri, parameters, flags)

        self._about("moving the guest", guest_id, go, Deadline.after(_ENDLESS_S))

    def move_progress(self, guest_id: str, deadline: Deadline) -> MoveProgress | None:
        """Say how far a move out of here is; None where none is under way."""

        def look(domain: libvirt.virDomain) -> MoveProgress | None:
            try:
                return _progress(domain.jobStats())
            except libvirt.libvirtError as error:
                if is_lost(error) or code_of(error) not in _NO_JOB:
                    raise
                return None

        try:
            return self._about("looking at a move", guest_id, look, deadline)
        except GuestNotFound:
            return None

    def begin_postcopy(self, guest_id: str, deadline: Deadline) -> None:
        """Let a moving guest run at its destination now, its memory following it."""

        def begin(domain: libvirt.virDomain) -> None:
            domain.migrateStartPostCopy()

        self._about("going over to post-copy", guest_id, begin, deadline)

    def stop_move(self, guest_id: str, deadline: Deadline) -> Change:
        """Ask for the end of a move. Idempotent."""

        def stop(domain: libvirt.virDomain) -> Change:
            try:
                if _progress(domain.jobStats()) is None:
                    return Change.UNCHANGED
                domain.abortJob()
            except libvirt.libvirtError as error:
                if is_lost(error) or code_of(error) not in _NO_JOB:
                    raise
                return Change.UNCHANGED
            return Change.CHANGED

        try:
            return self._about("stopping a move", guest_id, stop, deadline)
        except GuestNotFound:
            return Change.UNCHANGED

    def discard(self, guest_id: str, deadline: Deadline) -> Change:
        """End a guest's process at once, if there is one, and forget the guest. Idempotent."""

        def discard(domain: libvirt.virDomain) -> Change:
            is_persistent = bool(domain.isPersistent())
            if domain.isActive():
                domain.destroy()
            if is_persistent:
                # What its firmware keeps may be shared with the host where it lives.
                flags = libvirt.VIR_DOMAIN_UNDEFINE_KEEP_NVRAM
                domain.undefineFlags(
                    flags
                    | libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
                    | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
                    | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
                )
            return Change.CHANGED

        try:
            return self._about("ending what is left of a guest", guest_id, discard, deadline)
        except GuestNotFound:
            return Change.UNCHANGED


class _Asked:
    """What a guest's XML demands of a host, as a question to its libvirt."""

    def __init__(self, xml: str) -> None:
        data = encode_xml(xml)
        root = read_elements(data)
        emulator, cpu = root.first("devices", "emulator"), root.first("cpu")
        self._kind = root.attributes.get("type")
        self._arch = root.attribute(("os", "type"), "arch")
        self._machine = root.attribute(("os", "type"), "machine")
        self._emulator = None if emulator is None else emulator.text.strip()
        self._cpu = None if cpu is None else data[cpu.start : cpu.end].decode()

    def ask(self, connection: libvirt.virConnect) -> dict[str, str]:
        """Return what stands against it, by subject."""
        demands = (self._emulator, self._arch, self._machine, self._kind)
        try:
            connection.getDomainCapabilities(*demands)
        except libvirt.libvirtError as error:
            if is_lost(error):
                raise
            return {"machine": words_of(error)}
        if self._cpu is None:
            return {}
        try:
            verdict = connection.compareHypervisorCPU(*demands, self._cpu)
        except libvirt.libvirtError as error:
            if is_lost(error):
                raise
            # Not every kind of CPU can be compared; then the call itself finds it out, unharmed.
            is_verdict = code_of(error) == libvirt.VIR_ERR_CPU_INCOMPATIBLE
            return {"cpu": words_of(error)} if is_verdict else {}
        if verdict == libvirt.VIR_CPU_COMPARE_INCOMPATIBLE:
            return {"cpu": "its features cannot be had there"}
        return {}


def _request(target: Definitions, options: MoveOptions) -> tuple[int, dict[str, Any]]:
    """Return the call's flags and parameters."""
    flags = libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_PEER2PEER
    parameters: dict[str, Any] = {libvirt.VIR_MIGRATE_PARAM_DEST_XML: target.live}
    if target.persistent is not None:
        flags |= libvirt.VIR_MIGRATE_UNDEFINE_SOURCE | libvirt.VIR_MIGRATE_PERSIST_DEST
        parameters[libvirt.VIR_MIGRATE_PARAM_PERSIST_XML] = target.persistent
    for is_wanted, flag in (
        (options.auto_converge, libvirt.VIR_MIGRATE_AUTO_CONVERGE),
        (options.postcopy, libvirt.VIR_MIGRATE_POSTCOPY),
        (options.tls, libvirt.VIR_MIGRATE_TLS),
        (options.parallel is not None, libvirt.VIR_MIGRATE_PARALLEL),
    ):
        if is_wanted:
            flags |= flag
    if options.bandwidth_mib_s is not None:
        parameters[libvirt.VIR_MIGRATE_PARAM_BANDWIDTH] = options.bandwidth_mib_s
    if options.parallel is not None:
        parameters[libvirt.VIR_MIGRATE_PARAM_PARALLEL_CONNECTIONS] = options.parallel
    return int(flags), parameters


def _progress(stats: Mapping[str, Any]) -> MoveProgress | None:
    """Read the statistics of a job; None where it is none that moves the guest away."""
    is_running = stats.get("type") in (
        libvirt.VIR_DOMAIN_JOB_BOUNDED,
        libvirt.VIR_DOMAIN_JOB_UNBOUNDED,
    )
    kind = stats.get("operation", libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT)
    if not is_running or kind != libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT:
        return None
    return MoveProgress(
        elapsed_s=stats.get("time_elapsed", 0) / 1000,
        total_bytes=int(stats.get("data_total", 0)),
        processed_bytes=int(stats.get("data_processed", 0)),
        remaining_bytes=int(stats.get("data_remaining", 0)),
        rate_bytes_s=int(stats.get("memory_bps", 0)),
        dirty_pages_s=int(stats.get("memory_dirty_rate", 0)),
        passes=int(stats.get("memory_iteration", 0)),
    )
