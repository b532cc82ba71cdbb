"""The ifaces of this host: what there is, what it is good for, made and taken away.

A record of others is never changed. One of ours goes when nothing uses it: no session, no node
record, and nothing in the journal.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from lunport.core.change import Change
from lunport.core.errors import InvalidInput, InvalidState
from lunport.core.iface import MADE_BY_COMMAND, MADE_ON_THE_FLY, Iface
from lunport.core.iface_check import Verdict, check_iface
from lunport.core.iface_choice import iface_of_source
from lunport.core.iface_hardware import HostHardware
from lunport.core.node_record import parse_record_place
from lunport.host.clock import Deadline
from lunport.host.iface_records import IfaceRecord, IfaceRecords, generate
from lunport.host.iscsi_hardware import read_hardware
from lunport.host.iscsi_sysfs import list_sessions
from lunport.initiator.initiator_host import InitiatorHost

_SETTING = "iface.iscsi_ifacename"


@dataclass(frozen=True, slots=True)
class Ifaces:
    """The ifaces of one host."""

    host: InitiatorHost
    records: IfaceRecords = field(default_factory=IfaceRecords)

    def all(self) -> tuple[IfaceRecord, ...]:
        """List the records, those that open-iscsi has built in first. Raises: HostLacks."""
        return self.records.all()

    def get(self, name: str) -> IfaceRecord:
        """Return a record. Raises: InvalidInput without one, HostLacks."""
        found = self.records.get(name)
        if found is None:
            raise InvalidInput("iface", name, "there is no record of it: lunport iface list")
        return found

    def by_name(self) -> dict[str, Iface]:
        """Map the names of all records that can be read to what they say."""
        return {one.name: one.iface for one in self.all() if one.iface is not None}

    def hardware(self, deadline: Deadline) -> HostHardware:
        """Look at what this host has."""
        return read_hardware(self.host.sys, deadline)

    def generate(self, deadline: Deadline) -> None:
        """Have open-iscsi make the records of the adapters whose driver is loaded.

        Raises: CommandMissing, CommandError, CommandTimedOut.
        """
        generate(deadline)

    def check(self, name: str, hardware: HostHardware) -> Verdict:
        """Judge an iface. Raises: InvalidInput (no record, or one that can't be read)."""
        found = self.get(name)
        if found.iface is None:
            raise InvalidInput("iface", name, found.damage or "its record can't be read")
        return check_iface(found.iface, hardware)

    def create(self, iface: Iface, hardware: HostHardware, *, force: bool = False) -> Change:
        """Make a record that the hardware does not contradict; ``force``: in any case.

        Idempotent. Raises: InvalidInput (it could not be used), AlreadyExists, HostLacks.
        """
        verdict = check_iface(iface, hardware)
        if not verdict.is_usable and not force:
            raise InvalidInput("iface", iface.name, verdict.why_not or "it can't be used")
        return self.records.make(iface, heading=MADE_BY_COMMAND)

    def of_source(self, address: str, hardware: HostHardware) -> Iface:
        """Find the iface of an address of this host. Raises: InvalidInput."""
        return iface_of_source(address, self.by_name(), hardware)

    def delete(self, name: str) -> Change:
        """Take a record of ours away. Idempotent.

        Raises: InvalidInput (it is not ours), InvalidState (something uses it), HostLacks.
        """
        found = self.records.get(name)
        if found is None:
            return Change.UNCHANGED
        if not found.is_ours:
            reason = "its record is not Lunport's: iscsiadm -m iface -o delete -I " + name
            raise InvalidInput("iface", name, reason)
        users = tuple(self.users(name))
        if users:
            raise InvalidState("iface", name, "in use by " + ", ".join(users), "unused")
        return self.records.remove(name)

    def drop_unused(self, name: str) -> Change:
        """Take away a record that was made on the fly, if nothing uses it any more."""
        if next(self.users(name), None) is not None:
            return Change.UNCHANGED
        return self.records.remove(name, if_made=MADE_ON_THE_FLY)

    def users(self, name: str) -> Iterator[str]:
        """Name what uses an iface: sessions, node records, and what the journal has of it."""
        for session in list_sessions(self.host.sys):
            if session.iface == name:
                yield f"session {session.sid}"
        for place in self.host.records.all_places():
            key = parse_record_place(place)
            if key is not None and name in (key.iface, self._named_in(place, key.iface)):
                yield f"the node record {place}"
        for owned in self.host.journal.sessions():
            if owned.iface == name:
                yield f"the journal's session to {owned.portal}"
        for entry in self.host.journal.connections():
            if entry.iface == name:
                yield f"the connection {entry.key}"

    def _named_in(self, place: str, iface: str | None) -> str | None:
        return self.host.records.settings(place).get(_SETTING) if iface is None else None
