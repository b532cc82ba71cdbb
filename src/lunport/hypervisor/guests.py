"""The guests of one libvirt: disks in and out, secrets, start.

Each verb is one or a few calls of libvirt's API, within a deadline; what a guest is asked for
(to let go of a disk) is waited for by libvirt's events. Follows libvirt's reference of domains
and secrets. Decides neither which disk a guest gets nor when.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import libvirt

from lunport.core.change import Change
from lunport.core.domain_xml import DomainSummary, parse_disk, parse_domain
from lunport.core.errors import (
    GuestNotFound,
    LunportError,
    PlugRejected,
    UnplugRefused,
    UnplugTimedOut,
)
from lunport.core.guest import Guest, GuestState
from lunport.core.guest_disk import GuestDisk
from lunport.core.secret import Secret
from lunport.core.xml_spans import escaped
from lunport.host.clock import Deadline
from lunport.hypervisor.connection import LibvirtConnection
from lunport.hypervisor.error_mapping import code_of, is_lost, translate, words_of

T = TypeVar("T")

_STATES = {
    libvirt.VIR_DOMAIN_RUNNING: GuestState.RUNNING,
    libvirt.VIR_DOMAIN_BLOCKED: GuestState.RUNNING,
    libvirt.VIR_DOMAIN_PAUSED: GuestState.PAUSED,
    libvirt.VIR_DOMAIN_SHUTDOWN: GuestState.RUNNING,  # on its way down; its disks are in use
    libvirt.VIR_DOMAIN_SHUTOFF: GuestState.SHUT_OFF,
    libvirt.VIR_DOMAIN_CRASHED: GuestState.CRASHED,
    libvirt.VIR_DOMAIN_PMSUSPENDED: GuestState.PAUSED,
}
_REASONS = {
    libvirt.VIR_DOMAIN_RUNNING: {
        libvirt.VIR_DOMAIN_RUNNING_BOOTED: "booted",
        libvirt.VIR_DOMAIN_RUNNING_MIGRATED: "migrated",
        libvirt.VIR_DOMAIN_RUNNING_RESTORED: "restored",
        libvirt.VIR_DOMAIN_RUNNING_UNPAUSED: "unpaused",
        libvirt.VIR_DOMAIN_RUNNING_MIGRATION_CANCELED: "migration canceled",
        libvirt.VIR_DOMAIN_RUNNING_POSTCOPY: "postcopy",
    },
    libvirt.VIR_DOMAIN_PAUSED: {
        libvirt.VIR_DOMAIN_PAUSED_USER: "user",
        libvirt.VIR_DOMAIN_PAUSED_MIGRATION: "migration",
        libvirt.VIR_DOMAIN_PAUSED_IOERROR: "i/o error",
        libvirt.VIR_DOMAIN_PAUSED_STARTING_UP: "starting up",
        libvirt.VIR_DOMAIN_PAUSED_POSTCOPY: "postcopy",
        libvirt.VIR_DOMAIN_PAUSED_POSTCOPY_FAILED: "postcopy failed",
    },
    libvirt.VIR_DOMAIN_SHUTOFF: {
        libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN: "shut down",
        libvirt.VIR_DOMAIN_SHUTOFF_DESTROYED: "destroyed",
        libvirt.VIR_DOMAIN_SHUTOFF_CRASHED: "crashed",
        libvirt.VIR_DOMAIN_SHUTOFF_MIGRATED: "migrated",
        libvirt.VIR_DOMAIN_SHUTOFF_FAILED: "failed",
    },
}
_GONE = frozenset({libvirt.VIR_ERR_DEVICE_MISSING, libvirt.VIR_ERR_NO_DOMAIN})
# Quirk(libvirt): two of unplugging's answers have no code of their own (9.0.0: all are
# VIR_ERR_OPERATION_FAILED, VIR_ERR_INTERNAL_ERROR or VIR_ERR_INVALID_ARG), so their words are
# read: those of src/qemu/qemu_hotplug.c and of QEMU's device_del.
_REFUSED_WORDS = "rejected by"
_UNDER_WAY_WORDS = "already in the process of unplug"
_NOT_THERE_WORDS = ("not found", "no target device")


@dataclass(frozen=True, slots=True)
class UnplugPatience:
    """How long one request to let go of a disk is waited for, before it is made again."""

    request_s: float = 10.0


class LibvirtGuests:
    """The guests at one libvirt; the agent's hypervisor. Safe to share between threads."""

    def __init__(
        self, connection: LibvirtConnection, patience: UnplugPatience | None = None
    ) -> None:
        self.connection = connection
        self._patience = patience or UnplugPatience()

    # -- looking -------------------------------------------------------------------------

    def guests(self, deadline: Deadline) -> tuple[Guest, ...]:
        """List all guests, by name."""

        def look(connection: libvirt.virConnect) -> list[Guest]:
            found = []
            for domain in connection.listAllDomains():
                guest = _unless_gone(partial(_guest, domain))
                if guest is not None:
                    found.append(guest)
            return found

        guests = self.connection.call("listing guests", look, deadline)
        return tuple(sorted(guests, key=lambda guest: guest.name))

    def guest(self, name_or_id: str, deadline: Deadline) -> Guest:
        """Show one guest, by its name or UUID. Raises: GuestNotFound."""
        return self._about("looking at the guest", name_or_id, _guest, deadline)

    # -- disks ---------------------------------------------------------------------------

    def plug(self, guest_id: str, disk_xml: str, deadline: Deadline) -> None:
        """Give a guest a disk, now and at its next start. Raises: PlugRejected."""

        def attach(domain: libvirt.virDomain) -> None:
            domain.attachDeviceFlags(disk_xml, _scope(domain))

        request = "plugging a disk"
        try:
            self._raw_about(request, guest_id, attach, deadline)
        except libvirt.libvirtError as error:
            if is_lost(error) or code_of(error) == libvirt.VIR_ERR_NO_DOMAIN:
                raise self._translated(error, request, guest_id) from error
            target = parse_disk(disk_xml).target
            raise PlugRejected(guest_id, target, words_of(error)) from error

    def unplug(self, guest_id: str, serial: str, deadline: Deadline) -> Change:
        """Take a volume's disk from a guest, the running one first. Idempotent.

        Raises: UnplugRefused, UnplugTimedOut; the guest's next start has the disk then as well.
        """
        guest = self.guest(guest_id, deadline)
        change = Change.UNCHANGED
        live = guest.live_disk(serial)
        if live is not None:
            change |= self._unplug_live(guest, live, deadline)
        persistent = guest.persistent_disk(serial)
        if persistent is not None:
            self._drop_persistent(guest, persistent, deadline)
            change = Change.CHANGED
        return change

    def resize(self, guest_id: str, serial: str, size_bytes: int, deadline: Deadline) -> None:
        """Tell a running guest how large the disk of a volume is now; it hears of it at once."""

        def grow(domain: libvirt.virDomain) -> None:
            summary = parse_domain(domain.XMLDesc(0))
            target = next((one.target for one in summary.disks if one.serial == serial), None)
            if target is not None and domain.isActive():
                flags = libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES
                domain.blockResize(target, size_bytes, flags)

        self._about("telling a disk's size", guest_id, grow, deadline)

    # -- secrets -------------------------------------------------------------------------

    def keep_secret(self, secret_id: str, usage: str, value: Secret, deadline: Deadline) -> None:
        """Put a secret into libvirt's store: ephemeral, private. Idempotent."""
        xml = (
            "<secret ephemeral='yes' private='yes'>"
            f"<uuid>{escaped(secret_id)}</uuid>"
            f"<usage type='iscsi'><target>{escaped(usage)}</target></usage>"
            "</secret>"
        )

        def keep(connection: libvirt.virConnect) -> None:
            connection.secretDefineXML(xml).setValue(value.reveal().encode())

        self.connection.call("keeping a secret", keep, deadline)

    def forget_secret(self, secret_id: str, deadline: Deadline) -> Change:
        """Take a secret from libvirt's store. Idempotent."""

        def forget(connection: libvirt.virConnect) -> Change:
            try:
                connection.secretLookupByUUIDString(secret_id).undefine()
            except libvirt.libvirtError as error:
                if code_of(error) != libvirt.VIR_ERR_NO_SECRET:
                    raise
                return Change.UNCHANGED
            return Change.CHANGED

        return self.connection.call("forgetting a secret", forget, deadline)

    def secrets(self, deadline: Deadline) -> tuple[str, ...]:
        """List the UUIDs of the secrets in the store."""

        def look(connection: libvirt.virConnect) -> tuple[str, ...]:
            return tuple(sorted(one.UUIDString() for one in connection.listAllSecrets()))

        return self.connection.call("listing secrets", look, deadline)

    # -- a guest as a whole --------------------------------------------------------------

    def set_autostart(self, guest_id: str, wanted: bool, deadline: Deadline) -> Change:
        """Say whether libvirt itself starts the guest with the host. Idempotent."""

        def say(domain: libvirt.virDomain) -> Change:
            if bool(domain.autostart()) == wanted:
                return Change.UNCHANGED
            domain.setAutostart(int(wanted))
            return Change.CHANGED

        return self._about("setting a guest's autostart", guest_id, say, deadline)

    def start(self, guest_id: str, deadline: Deadline) -> Change:
        """Start a guest that is shut off. Idempotent."""

        def start(domain: libvirt.virDomain) -> Change:
            if domain.isActive():
                return Change.UNCHANGED
            domain.create()
            return Change.CHANGED

        return self._about("starting the guest", guest_id, start, deadline)

    # -- parts ---------------------------------------------------------------------------

    def _unplug_live(self, guest: Guest, disk: GuestDisk, deadline: Deadline) -> Change:
        refusal: str | None = None
        with self._told(guest, deadline) as told:
            while not deadline.has_passed():
                refusal = self._ask_to_let_go(guest, disk, deadline) or refusal
                if self._live_disk(guest.id, disk.serial or "") is None:
                    return Change.CHANGED
                until = deadline.at_most(self._patience.request_s)
                answer = told.wait(disk, until)
                if answer == _REFUSED:
                    refusal = "it answers that the device is in use"
                    told.wait(disk, deadline.at_most(_PAUSE_S))
                if self._live_disk(guest.id, disk.serial or "") is None:
                    return Change.CHANGED
        if refusal is not None:
            raise UnplugRefused(guest.name, disk.target, refusal)
        raise UnplugTimedOut(guest.name, disk.target, deadline.budget_s)

    def _ask_to_let_go(self, guest: Guest, disk: GuestDisk, deadline: Deadline) -> str | None:
        """Ask a guest for a disk; return its refusal, if it answers by one at once."""

        def detach(domain: libvirt.virDomain) -> None:
            domain.detachDeviceFlags(disk.xml, libvirt.VIR_DOMAIN_AFFECT_LIVE)

        request = f"unplugging {disk.target}"
        try:
            self._raw_about(request, guest.id, detach, deadline)
        except libvirt.libvirtError as error:
            if is_lost(error):
                raise self._translated(error, request, guest.id) from error
            words = words_of(error)
            if _REFUSED_WORDS in words:
                return words
            is_under_way = _UNDER_WAY_WORDS in words
            if is_under_way or code_of(error) in _GONE or any(w in words for w in _NOT_THERE_WORDS):
                return None
            # A guest that ends at that moment is told as a failure of its monitor.
            if self._live_disk(guest.id, disk.serial or "") is not None:
                raise self._translated(error, request, guest.id) from error
        return None

    def _live_disk(self, guest_id: str, serial: str) -> GuestDisk | None:
        # Of its own deadline: what became of the disk has to be known, also when time is over.
        try:
            return self.guest(guest_id, Deadline.after(_LOOK_S)).live_disk(serial)
        except GuestNotFound:
            return None

    def _drop_persistent(self, guest: Guest, disk: GuestDisk, deadline: Deadline) -> None:
        def drop(domain: libvirt.virDomain) -> None:
            domain.detachDeviceFlags(disk.xml, libvirt.VIR_DOMAIN_AFFECT_CONFIG)

        request = f"taking {disk.target} from the guest's definition"
        try:
            self._raw_about(request, guest.id, drop, deadline)
        except libvirt.libvirtError as error:
            is_gone = code_of(error) in _GONE
            if not is_gone and not any(one in words_of(error) for one in _NOT_THERE_WORDS):
                raise self._translated(error, request, guest.id) from error

    @contextmanager
    def _told(self, guest: Guest, deadline: Deadline) -> Iterator[_Told]:
        """Hear what a guest says of its devices, for as long as the block lasts."""
        told = _Told()
        kinds = (
            (libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED, told.removed),
            (libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVAL_FAILED, told.refused),
            (libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, told.changed),
        )

        def listen(connection: libvirt.virConnect) -> Callable[[], None]:
            domain = connection.lookupByUUIDString(guest.id)
            ids = [connection.domainEventRegisterAny(domain, *kind, None) for kind in kinds]
            return partial(_stop_listening, connection, ids)

        stop = self.connection.call("listening to a guest", listen, deadline, guest=guest.name)
        try:
            yield told
        finally:
            # A connection that was lost meanwhile listens no more.
            _within(self.connection, stop)

    def _about(
        self,
        request: str,
        guest: str,
        function: Callable[[libvirt.virDomain], T],
        deadline: Deadline,
    ) -> T:
        try:
            return self._raw_about(request, guest, function, deadline)
        except libvirt.libvirtError as error:
            raise self._translated(error, request, guest) from error

    def _raw_about(
        self,
        request: str,
        guest: str,
        function: Callable[[libvirt.virDomain], T],
        deadline: Deadline,
    ) -> T:
        return self.connection.raw(
            request, lambda connection: function(_domain(connection, guest)), deadline
        )

    def _translated(self, error: libvirt.libvirtError, request: str, guest: str) -> LunportError:
        return translate(error, request, uri=self.connection.uri, guest=guest)


_LOOK_S = 5.0
_PAUSE_S = 1.0
_REMOVED = "removed"
_REFUSED = "refused"
_CHANGED = "changed"


class _Told:
    """What a guest said of its devices; called from the event loop's thread."""

    def __init__(self) -> None:
        self._answers: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()

    def removed(self, _connection: object, _domain: object, alias: str, _opaque: object) -> None:
        """Note that a device is gone."""
        self._answers.put((_REMOVED, alias))

    def refused(self, _connection: object, _domain: object, alias: str, _opaque: object) -> None:
        """Note that the guest keeps a device."""
        self._answers.put((_REFUSED, alias))

    def changed(self, *_: object) -> None:
        """Note that the guest started or stopped."""
        self._answers.put((_CHANGED, ""))

    def wait(self, disk: GuestDisk, deadline: Deadline) -> str | None:
        """Return the next answer about a disk; None if there is none by the deadline."""
        while not deadline.has_passed():
            try:
                answer, alias = self._answers.get(timeout=deadline.remaining_s())
            except queue.Empty:
                return None
            if answer == _CHANGED or alias == disk.alias:
                return answer
        return None


def _domain(connection: libvirt.virConnect, name_or_id: str) -> libvirt.virDomain:
    """Find a guest by its UUID, or else by its name."""
    try:
        return connection.lookupByUUIDString(name_or_id)
    except libvirt.libvirtError as error:
        if is_lost(error):
            raise
        return connection.lookupByName(name_or_id)


def _guest(domain: libvirt.virDomain) -> Guest:
    """Read all that is used of a guest."""
    state, reason = domain.state()
    is_persistent = bool(domain.isPersistent())
    live: DomainSummary | None = None
    persistent: DomainSummary | None = None
    if domain.isActive():
        live = parse_domain(domain.XMLDesc(0))
    if is_persistent:
        persistent = parse_domain(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
    return Guest(
        id=domain.UUIDString(),
        name=domain.name(),
        state=_STATES.get(state, GuestState.UNKNOWN),
        reason=_REASONS.get(state, {}).get(reason, "unknown"),
        autostart=is_persistent and bool(domain.autostart()),
        live=live,
        persistent=persistent,
    )


def _unless_gone(look: Callable[[], T]) -> T | None:
    """Look at a guest that may have gone since it was listed."""
    try:
        return look()
    except libvirt.libvirtError as error:
        if code_of(error) != libvirt.VIR_ERR_NO_DOMAIN:
            raise
        return None


def _scope(domain: libvirt.virDomain) -> int:
    """Say what a change of a guest's disks is for: what runs, what will be started, or both."""
    flags = libvirt.VIR_DOMAIN_AFFECT_LIVE if domain.isActive() else 0
    return int(flags | (libvirt.VIR_DOMAIN_AFFECT_CONFIG if domain.isPersistent() else 0))


def _stop_listening(connection: libvirt.virConnect, ids: list[int]) -> None:
    for one in ids:
        connection.domainEventDeregisterAny(one)


def _within(connection: LibvirtConnection, stop: Callable[[], None]) -> None:
    try:
        connection.call("listening no more", lambda _: stop(), Deadline.after(_LOOK_S))
    except LunportError:
        return
