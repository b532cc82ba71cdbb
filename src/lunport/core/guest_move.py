"""A host's own note of a guest's move, so that whoever starts anew can finish it.

    {"version": 1, "side": "source", "migration_id": "0d0c...", "guest_id": "d0000000-...", ...}

What the move has come to is the volume service's record (:mod:`lunport.core.migration_plan`);
the note says that this host takes part, as what, and with whom. It is written before anything
is changed here and removed when nothing is left to do. No secret is in it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

from lunport.core.errors import InvalidInput
from lunport.core.guest_attachment import check_id
from lunport.core.journal_fields import (
    load_entry,
    optional,
    parse_flag,
    parse_moment,
    parse_text,
    require,
)
from lunport.core.migration_plan import Side
from lunport.core.wire_fields import show

VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class GuestMove:
    """One move that this host takes part in.

    ``uri``: this host's hypervisor. ``endpoint``: the service with the record; ``migration_id``
    is None at the source until it answered. ``peer``: where the other host's agent answers, as
    ``HOST:PORT``, at the source. ``autostart``: the guest starts with its host.
    ``since``: seconds since the epoch.
    """

    side: Side
    migration_id: str | None
    uri: str
    guest_id: str
    guest_name: str
    endpoint: str
    source: str
    destination: str
    volume_ids: tuple[str, ...]
    autostart: bool
    since: float
    peer: str | None = None

    @property
    def key(self) -> str:
        """Name it among the host's; safe as a file name. Both sides may be on one machine."""
        return f"{check_id(self.guest_id, 'guest')}+{self.side}"


def format_guest_move(move: GuestMove) -> str:
    """Write a note; the inverse of :func:`parse_guest_move`."""
    fields: dict[str, object] = {
        "version": VERSION,
        "side": move.side.value,
        "migration_id": move.migration_id,
        "uri": move.uri,
        "guest_id": move.guest_id,
        "guest_name": move.guest_name,
        "endpoint": move.endpoint,
        "source": move.source,
        "destination": move.destination,
        "volume_ids": list(move.volume_ids),
        "autostart": move.autostart,
        "since": move.since,
        "peer": move.peer,
    }
    return json.dumps(fields, indent=1) + "\n"


def parse_guest_move(text: str) -> GuestMove:
    """Read a note. Raises: InvalidInput."""
    wire = load_entry(text, VERSION)
    return GuestMove(
        side=require(wire, "side", _parse_side),
        migration_id=optional(wire, "migration_id", parse_text),
        uri=require(wire, "uri", parse_text),
        guest_id=check_id(require(wire, "guest_id", parse_text), "guest"),
        guest_name=require(wire, "guest_name", parse_text),
        endpoint=require(wire, "endpoint", parse_text),
        source=require(wire, "source", parse_text),
        destination=require(wire, "destination", parse_text),
        volume_ids=require(wire, "volume_ids", _parse_ids),
        autostart=require(wire, "autostart", parse_flag),
        since=require(wire, "since", parse_moment),
        peer=optional(wire, "peer", parse_text),
    )


def _parse_side(value: object) -> Side:
    if isinstance(value, str) and value in tuple(Side):
        return Side(value)
    raise InvalidInput("side", show(value), f"expected one of {', '.join(Side)}")


def _parse_ids(value: object) -> tuple[str, ...]:
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return tuple(check_id(str(one), "volume") for one in value)
    raise InvalidInput("volume_ids", show(value), "expected a list of ids")
