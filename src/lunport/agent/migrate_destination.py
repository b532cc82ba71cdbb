"""A guest's move as the destination carries it out: prepare, say what it sees, confirm, undo.

    prepare    note -> all volumes at once: reserve -> offer -> connect, identity as the source's
    confirm    the guest lives here: its volumes are its own now
    undo       it does not: a leftover of it, connections, secrets, attachments, note

Asked by the source's agent, and done by itself after a restart: what the record at the service
has come to decides which of the two. Each may be repeated. Whether it may ask is looked up in
the record, which names both hosts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from lunport.agent.attach import AttachWish, offered, prepare_disk, reserve
from lunport.agent.migration_parts import (
    MigrationParts,
    MoveName,
    Order,
    PreparedVolume,
    Question,
    VolumeOrder,
)
from lunport.core.attachment import AttachMode
from lunport.core.connection_info import ConnectionInfo
from lunport.core.domain_xml import parse_disk
from lunport.core.errors import (
    AlreadyExists,
    Conflict,
    HypervisorUnavailable,
    LunportError,
    NotAllowed,
    UndoFailed,
    WrongDevice,
)
from lunport.core.guest_attachment import GuestAttachment, GuestPhase, OwnedGuest
from lunport.core.guest_disk import DiskSettings, InitiatorKind, parse_iotune
from lunport.core.guest_move import GuestMove
from lunport.core.guest_whereabouts import Sight, sight_of
from lunport.core.host_name import same_host
from lunport.core.migration_plan import Side, State, Word
from lunport.core.migration_preflight import DestinationFacts
from lunport.host.clock import Deadline
from lunport.host.tasks import run_all
from lunport.initiator.lock_names import guest_lock

if TYPE_CHECKING:
    from lunport.client.guest_migrations import Migration

_AT_ONCE = 8
_UNDO_S = 60.0
_PORTAL_S = 3.0


@dataclass(frozen=True, slots=True)
class MigrationDestination:
    """This host, as a place that guests come to. ``peers``: whom the asker's certificate names."""

    parts: MigrationParts

    # -- before anything ---------------------------------------------------------------------

    def facts(self, question: Question, deadline: Deadline) -> DestinationFacts:
        """Say what a preflight has to know of this host. Changes nothing."""
        parts = self.parts
        obstacles: dict[str, str] = {}
        knows = False
        try:
            knows = parts.guests.find_guest(question.guest_id, deadline) is not None
            obstacles |= parts.hypervisor.obstacles(question.live_xml, deadline)
        except LunportError as error:
            obstacles["libvirt"] = str(error)
        portals = tuple(dict.fromkeys(question.portals))
        asked = {one: partial(parts.reaches, one, deadline.at_most(_PORTAL_S)) for one in portals}
        answers = run_all(asked, limit=_AT_ONCE)
        return DestinationFacts(
            host=parts.host,
            migration_uri=parts.migration_uri,
            libvirt_uri=parts.guests.uri,
            obstacles=obstacles,
            knows_guest=knows,
            has_multipath=parts.has_multipath(),
            reachable={one.name: bool(one.value) for one in answers},
            listen=parts.listen,
            free_bytes=parts.free_bytes(),
        )

    # -- prepare -----------------------------------------------------------------------------

    def prepare(
        self, order: Order, peers: Sequence[str], deadline: Deadline
    ) -> tuple[PreparedVolume, ...]:
        """Reach all volumes of a guest that comes, all at once. Idempotent.

        On failure nothing of it is left here. Raises: NotAllowed, AlreadyExists (the guest is
        here), Conflict, WrongDevice (a volume is not the source's), UndoFailed (the note keeps
        what was begun), and what the service and the initiator raise.
        """
        name = order.name
        record = self._record(name, peers, deadline)
        if record.state is not State.PREPARING:
            raise Conflict(f"Migration {record.id} is {record.state}: nothing is prepared for it.")
        with self._alone(name.guest_id, deadline):
            self._require_free(order, deadline)
            move = self._move_of(order)
            self.parts.guests.journal.write_move(move)
            self.parts.guests.on_step("noted at the destination")
            try:
                return self._prepare_all(order, deadline)
            except (LunportError, KeyboardInterrupt) as error:
                self._undo_failed(move, error)
                raise

    def _require_free(self, order: Order, deadline: Deadline) -> None:
        """Raises: AlreadyExists, Conflict."""
        guests = self.parts.guests
        known = guests.journal.move(order.name.guest_id, Side.DESTINATION)
        if known is not None and known.migration_id != order.name.migration_id:
            words = f"Migration {known.migration_id} of guest {known.guest_name}"
            raise Conflict(f"{words} has yet to be ended at {self.parts.host}.")
        if guests.find_guest(order.name.guest_id, deadline) is not None:
            raise AlreadyExists(f"At {self.parts.host}, guest", order.name.guest_id)
        if guests.journal.get_owned(order.name.guest_id) is not None:
            guests.journal.disown(order.name.guest_id)  # of a guest that is gone

    def _move_of(self, order: Order) -> GuestMove:
        return GuestMove(
            side=Side.DESTINATION,
            migration_id=order.name.migration_id,
            uri=self.parts.guests.uri,
            guest_id=order.name.guest_id,
            guest_name=order.guest_name,
            endpoint=self.parts.believed(order.name.endpoint),
            source=order.source,
            destination=self.parts.host,
            volume_ids=tuple(one.volume_id for one in order.volumes),
            autostart=order.autostart,
            since=self.parts.guests.now(),
        )

    def _prepare_all(self, order: Order, deadline: Deadline) -> tuple[PreparedVolume, ...]:
        tasks: dict[str, Callable[[], PreparedVolume]] = {
            one.volume_id: partial(self._prepare_one, order, one, deadline) for one in order.volumes
        }
        if len(tasks) == 1:
            return tuple(task() for task in tasks.values())
        return tuple(report.unwrap() for report in run_all(tasks, limit=_AT_ONCE))

    def _prepare_one(self, order: Order, one: VolumeOrder, deadline: Deadline) -> PreparedVolume:
        guests = self.parts.guests
        endpoint = self.parts.believed(order.name.endpoint)
        api = guests.api(endpoint)
        entry = guests.entry(order.name.guest_id, one.volume_id)
        if entry is not None and entry.phase is not GuestPhase.ARRIVING:
            words = f"Volume {one.volume_id} of guest {order.guest_name}"
            raise Conflict(f"{words} is {entry.phase} at {self.parts.host}: detach it there.")
        entry = guests.write(entry or _new_entry(guests.uri, order, one, endpoint))
        attachment_id, _ = reserve(guests, api, entry, AttachWish(mode=one.mode), deadline)
        entry = guests.write(entry, attachment_id=attachment_id)
        guests.note(entry)
        guests.on_step("reserved")
        info = offered(guests, api, entry, deadline)
        guests.on_step("offered")
        self.parts.service(endpoint).prepared(
            order.name.migration_id, one.volume_id, attachment_id, deadline
        )
        info = _as_the_source_s(info, one)
        settings = DiskSettings(
            volume_id=one.volume_id,
            target=one.target,
            is_readonly=info.access_mode is AttachMode.READ_ONLY,
            discard=info.discard is not False,
            physical_block_size=info.physical_block_size,
            logical_block_size=info.logical_block_size,
            iotune=parse_iotune(info.qos_specs),
        )
        prepared = prepare_disk(guests, entry, info, settings, deadline)
        guests.on_step("connected")
        device = parse_disk(prepared.xml).source if one.initiator is InitiatorKind.KERNEL else None
        return PreparedVolume(one.volume_id, attachment_id, prepared.xml, device, prepared.portal)

    def _undo_failed(self, move: GuestMove, cause: LunportError | KeyboardInterrupt) -> None:
        """Take back what a prepare made. Raises: UndoFailed."""
        try:
            self._let_go(move, Deadline.after(_UNDO_S))
        except LunportError as error:
            if isinstance(cause, LunportError):
                raise UndoFailed(cause, [error]) from cause

    # -- where the guest is ------------------------------------------------------------------

    def look(self, name: MoveName, peers: Sequence[str], deadline: Deadline) -> Sight:
        """Say what the hypervisor shows of the guest. Raises: NotAllowed."""
        self._record(name, peers, deadline)
        return self._sight(name.guest_id, deadline)

    def tell(self, name: MoveName, peers: Sequence[str], deadline: Deadline) -> Sight:
        """Tell the service that the guest is not here, if that is so: only we can know.

        Precondition: the call that moves it has ended, which the source knows.
        """
        self._record(name, peers, deadline)
        with self._alone(name.guest_id, deadline):
            sight = self._sight(name.guest_id, deadline)
            if sight.has_no_process:
                self.parts.service(self.parts.believed(name.endpoint)).settle(
                    name.migration_id, deadline, destination=Word.ABSENT
                )
            return sight

    def _sight(self, guest_id: str, deadline: Deadline) -> Sight:
        try:
            return sight_of(self.parts.guests.find_guest(guest_id, deadline))
        except HypervisorUnavailable:
            return Sight.SILENT

    # -- the end -----------------------------------------------------------------------------

    def confirm(self, name: MoveName, peers: Sequence[str], deadline: Deadline) -> None:
        """Take over the guest, which lives here now. Idempotent. Raises: NotAllowed, Conflict."""
        with self._alone(name.guest_id, deadline):
            record = self._record(name, peers, deadline)
            move = self._known(name)
            if move is not None:
                self.take_over(move, record, deadline)

    def undo(self, name: MoveName, peers: Sequence[str], deadline: Deadline) -> None:
        """Take back what was prepared: the guest lives at the source. Idempotent.

        Raises: NotAllowed, Conflict (it may live here), and what the parts raise; then the note
        stays, and the next try goes on.
        """
        with self._alone(name.guest_id, deadline):
            record = self._record(name, peers, deadline)
            move = self._known(name)
            if move is not None:
                self.take_back(move, record, deadline)

    def take_over(self, move: GuestMove, record: Migration, deadline: Deadline) -> None:
        """Make the volumes the guest's own, and its start ours where it was the source's.

        Precondition: the guest's lock is held. Raises: Conflict (the record says otherwise).
        """
        if record.winner is not Side.DESTINATION:
            raise Conflict(f"Migration {record.id} has not come to an end at {self.parts.host}.")
        guests = self.parts.guests
        for entry in self._entries(move):
            if entry.phase is GuestPhase.ATTACHED:
                continue
            if entry.attachment_id is not None:
                guests.api(entry.endpoint).complete_attachment(entry.attachment_id, deadline)
            guests.write(entry, phase=GuestPhase.ATTACHED)
            guests.on_step("confirmed")
        if move.autostart:
            guests.journal.own(
                OwnedGuest(guests.uri, move.guest_id, move.guest_name, True, guests.boot_id())
            )
        guests.journal.remove_move(move)

    def take_back(self, move: GuestMove, record: Migration, deadline: Deadline) -> None:
        """Leave nothing of the guest here, and have the move ended.

        A guest that is here all the same was fenced, and is ended: the other one is trusted.
        Precondition: the guest's lock is held. Raises: Conflict (it may live here).
        """
        if record.winner is Side.SOURCE:
            self.parts.hypervisor.discard(move.guest_id, deadline)
            self.parts.guests.on_step("discarded")
        elif record.state is not State.PREPARING:
            raise Conflict(f"Migration {record.id} is {record.state}: the guest may live here.")
        self._let_go(move, deadline)
        if record.winner is Side.SOURCE and record.state is not State.DONE:
            self.parts.service(move.endpoint).release(record.id, deadline)

    def _let_go(self, move: GuestMove, deadline: Deadline) -> None:
        failures: list[Exception] = []
        for entry in self._entries(move):
            try:
                self.parts.guests.release(entry, deadline)
            except LunportError as error:
                failures.append(error)
        if failures:
            raise failures[0] if len(failures) == 1 else UndoFailed(failures[0], failures[1:])
        self.parts.guests.journal.remove_move(move)

    # -- parts -------------------------------------------------------------------------------

    def _known(self, name: MoveName) -> GuestMove | None:
        move = self.parts.guests.journal.move(name.guest_id, Side.DESTINATION)
        return move if move is not None and move.migration_id == name.migration_id else None

    def _entries(self, move: GuestMove) -> tuple[GuestAttachment, ...]:
        found = self.parts.guests.journal.of_guest(move.guest_id)
        return tuple(one for one in found if one.volume_id in move.volume_ids)

    def _alone(self, guest_id: str, deadline: Deadline) -> AbstractContextManager[None]:
        return self.parts.guests.locks.hold(guest_lock(guest_id), deadline)

    def _record(self, name: MoveName, peers: Sequence[str], deadline: Deadline) -> Migration:
        """Return the record that allows it. Raises: NotAllowed, MigrationNotFound."""
        record = self.parts.service(self.parts.believed(name.endpoint)).get(
            name.migration_id, deadline
        )
        is_ours = same_host(record.destination, self.parts.host)
        is_theirs = any(same_host(record.source, one) for one in peers)
        if not (is_ours and is_theirs and record.guest == name.guest_id):
            words = f"migration {name.migration_id} of guest {name.guest_id} to {self.parts.host}"
            raise NotAllowed(f"{words}, which is not {' or '.join(peers) or 'a stranger'}'s")
        return record


def _new_entry(uri: str, order: Order, one: VolumeOrder, endpoint: str) -> GuestAttachment:
    return GuestAttachment(
        uri=uri,
        guest_id=order.name.guest_id,
        guest_name=order.guest_name,
        volume_id=one.volume_id,
        endpoint=endpoint,
        phase=GuestPhase.ARRIVING,
        initiator=one.initiator,
        multipath=one.multipath,
        attachment_id=None,
        target=one.target,
        since=0.0,
    )


def _as_the_source_s(info: ConnectionInfo, one: VolumeOrder) -> ConnectionInfo:
    """Demand of the unit that it is the one that the source has. Raises: WrongDevice."""
    if info.wwid is not None and info.wwid != one.wwid:
        raise WrongDevice(f"Volume {one.volume_id}", one.wwid, info.wwid)
    return replace(info, wwid=one.wwid)
