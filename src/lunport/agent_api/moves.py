"""``/v1/peer/moves/...``: what the agent of a source may ask of a destination, and the answers.

    POST /v1/peer/moves/facts     what a preflight has to know
    POST /v1/peer/moves/prepare   {"migration_id": ..., "volumes": [...], ...} -> disks, by volume
    POST /v1/peer/moves/look      what the hypervisor shows of the guest
    POST /v1/peer/moves/tell      the same, told to the service where the guest is not here
    POST /v1/peer/moves/confirm, undo

The asker is known by its certificate; whether the move is its own is looked up in the record.
Both sides are of one release. No secret is in an answer: a disk names one in libvirt's store.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, TypeVar

import falcon
import msgspec

from lunport.agent.migrate_destination import MigrationDestination
from lunport.agent.migration_parts import MoveName, Order, PreparedVolume, Question, VolumeOrder
from lunport.agent_api.bodies import Timeout, decode, read_body
from lunport.agent_api.peers import peer_of
from lunport.agent_api.verbs import Verbs
from lunport.core.attachment import AttachMode
from lunport.core.errors import AgentUnavailable, HostLacks
from lunport.core.guest_attachment import check_id
from lunport.core.guest_disk import InitiatorKind
from lunport.core.guest_whereabouts import Sight
from lunport.core.migration_preflight import DestinationFacts
from lunport.core.wwid import parse_wwid
from lunport.host.clock import Deadline

PREFIX = "/v1/peer/moves"
_Document = TypeVar("_Document")


class _Body(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    timeout_s: Timeout

    @property
    def deadline(self) -> Deadline:
        """By when the asker wants an answer."""
        return Deadline.after(self.timeout_s)


class FactsBody(_Body):
    """``facts``."""

    guest_id: str
    live_xml: str
    portals: tuple[str, ...]

    @classmethod
    def of(cls, question: Question, timeout_s: float) -> FactsBody:
        """Write a question."""
        return cls(
            guest_id=question.guest_id,
            live_xml=question.live_xml,
            portals=question.portals,
            timeout_s=timeout_s,
        )

    def question(self) -> Question:
        """Read it. Raises: InvalidInput."""
        return Question(check_id(self.guest_id, "guest"), self.live_xml, self.portals)


class NameBody(_Body):
    """``look``, ``tell``, ``confirm``, ``undo``."""

    migration_id: str
    guest_id: str
    endpoint: str

    @classmethod
    def of(cls, name: MoveName, timeout_s: float) -> NameBody:
        """Write which move is meant."""
        return cls(
            migration_id=name.migration_id,
            guest_id=name.guest_id,
            endpoint=name.endpoint,
            timeout_s=timeout_s,
        )

    def name(self) -> MoveName:
        """Read it. Raises: InvalidInput."""
        guest_id = check_id(self.guest_id, "guest")
        return MoveName(check_id(self.migration_id, "migration"), guest_id, self.endpoint)


class VolumeKeys(msgspec.Struct, forbid_unknown_fields=True):
    """One volume of an order."""

    volume_id: str
    wwid: str
    initiator: InitiatorKind
    multipath: bool | None
    mode: AttachMode
    target: str

    def order(self) -> VolumeOrder:
        """Read it. Raises: InvalidInput."""
        return VolumeOrder(
            check_id(self.volume_id, "volume"),
            parse_wwid(self.wwid),
            self.initiator,
            self.multipath,
            self.mode,
            self.target,
        )


class PrepareBody(NameBody):
    """``prepare``."""

    guest_name: str
    source: str
    autostart: bool
    volumes: Annotated[tuple[VolumeKeys, ...], msgspec.Meta(min_length=1, max_length=64)]

    @classmethod
    def of_order(cls, order: Order, timeout_s: float) -> PrepareBody:
        """Write an order."""
        return cls(
            migration_id=order.name.migration_id,
            guest_id=order.name.guest_id,
            endpoint=order.name.endpoint,
            guest_name=order.guest_name,
            source=order.source,
            autostart=order.autostart,
            volumes=tuple(
                VolumeKeys(
                    one.volume_id, one.wwid, one.initiator, one.multipath, one.mode, one.target
                )
                for one in order.volumes
            ),
            timeout_s=timeout_s,
        )

    def order(self) -> Order:
        """Read it. Raises: InvalidInput."""
        volumes = tuple(one.order() for one in self.volumes)
        return Order(self.name(), self.guest_name, self.source, self.autostart, volumes)


class FactsDocument(msgspec.Struct):
    """What a destination says of itself."""

    host: str
    migration_uri: str
    libvirt_uri: str
    obstacles: dict[str, str]
    knows_guest: bool
    has_multipath: bool
    reachable: dict[str, bool]
    listen: dict[str, str]
    free_bytes: int

    def facts(self) -> DestinationFacts:
        """Read it."""
        return DestinationFacts(**msgspec.structs.asdict(self))


class PreparedDocument(msgspec.Struct):
    """One volume that the destination reaches."""

    volume_id: str
    attachment_id: str
    xml: str
    device_path: str | None
    portal: str | None


class _Prepared(msgspec.Struct):
    volumes: tuple[PreparedDocument, ...]


class _Sight(msgspec.Struct):
    sight: Sight


@dataclass(frozen=True, slots=True)
class MovesResource:
    """The destination's verbs; ``here`` is None on a host without libvirt's binding."""

    here: MigrationDestination | None
    verbs: Verbs

    def on_post_facts(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Say what a preflight has to know."""
        body = decode(FactsBody, read_body(req))
        facts = self._here.facts(body.question(), body.deadline)
        document = FactsDocument(
            host=facts.host,
            migration_uri=facts.migration_uri,
            libvirt_uri=facts.libvirt_uri,
            obstacles=dict(facts.obstacles),
            knows_guest=facts.knows_guest,
            has_multipath=facts.has_multipath,
            reachable=dict(facts.reachable),
            listen=dict(facts.listen),
            free_bytes=facts.free_bytes,
        )
        resp.data = msgspec.json.encode(document)

    def on_post_prepare(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Reach all volumes."""
        body = decode(PrepareBody, read_body(req))
        with self.verbs.one("prepare", body.guest_id):
            prepared = self._here.prepare(body.order(), peer_of(req), body.deadline)
        resp.data = format_prepared(prepared)

    def on_post_look(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Say what the hypervisor shows."""
        body = decode(NameBody, read_body(req))
        sight = self._here.look(body.name(), peer_of(req), body.deadline)
        resp.data = msgspec.json.encode(_Sight(sight))

    def on_post_tell(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Tell the service."""
        body = decode(NameBody, read_body(req))
        sight = self._here.tell(body.name(), peer_of(req), body.deadline)
        resp.data = msgspec.json.encode(_Sight(sight))

    def on_post_confirm(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Take the guest over."""
        body = decode(NameBody, read_body(req))
        with self.verbs.one("confirm", body.guest_id):
            self._here.confirm(body.name(), peer_of(req), body.deadline)
        resp.data = b"{}"

    def on_post_undo(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Take back what was prepared."""
        body = decode(NameBody, read_body(req))
        with self.verbs.one("undo", body.guest_id):
            self._here.undo(body.name(), peer_of(req), body.deadline)
        resp.data = b"{}"

    @property
    def _here(self) -> MigrationDestination:
        if self.here is None:
            how = "install libvirt's Python binding, and start the agent anew"
            raise HostLacks("Guests cannot come to this host", "libvirt cannot be used", how)
        return self.here


def encode(body: FactsBody | NameBody) -> bytes:
    """Write a request."""
    return msgspec.json.encode(body)


def format_prepared(prepared: Sequence[PreparedVolume]) -> bytes:
    """Write what was prepared."""
    documents = tuple(
        PreparedDocument(one.volume_id, one.attachment_id, one.xml, one.device_path, one.portal)
        for one in prepared
    )
    return msgspec.json.encode(_Prepared(documents))


def parse_prepared(document: bytes) -> tuple[PreparedVolume, ...]:
    """Read what was prepared. Raises: AgentUnavailable."""
    return tuple(
        PreparedVolume(one.volume_id, one.attachment_id, one.xml, one.device_path, one.portal)
        for one in _read(_Prepared, document).volumes
    )


def parse_sight(document: bytes) -> Sight:
    """Read what a hypervisor shows. Raises: AgentUnavailable."""
    return _read(_Sight, document).sight


def parse_facts(document: bytes) -> DestinationFacts:
    """Read what a destination says of itself. Raises: AgentUnavailable."""
    return _read(FactsDocument, document).facts()


def _read(kind: type[_Document], document: bytes) -> _Document:
    try:
        return msgspec.json.decode(document, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        words = f"The other agent's answer cannot be read ({error}): is it of another release?"
        raise AgentUnavailable(words) from error
