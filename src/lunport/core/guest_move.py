"""A host's own note of a guest's move, so that whoever starts anew can finish it.

    {"version": 1, "side": "source", "migration_id": "0d0c...", "guest_id": "d0000000-...", ...}

What the move has come to is the volume service's record (:mod:`lunport.core.migration_plan`);
the note says that this host takes part, as what, and with whom. It is written before anything
is changed here and removed when nothing is left to do. No secret is in it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from lunport.core.errors import InvalidInput
from lunport.core.guest_attachment import check_id
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
    try:
        wire = json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidInput("journal entry", f"of {len(text)} characters", "not JSON") from None
    if not isinstance(wire, dict):
        raise InvalidInput("journal entry", f"a {type(wire).__name__}", "expected an object")
    version = wire.get("version")
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise InvalidInput("version", show(version), "expected a number from 1")
    if version > VERSION:
        raise InvalidInput("version", version, f"written by a newer release; known is {VERSION}")
    side = _text(wire, "side")
    if side not in tuple(Side):
        raise InvalidInput("side", show(side), f"expected one of {', '.join(Side)}")
    autostart = wire.get("autostart")
    if not isinstance(autostart, bool):
        raise InvalidInput("autostart", show(autostart), "expected true or false")
    return GuestMove(
        side=Side(side),
        migration_id=_text_or_none(wire, "migration_id"),
        uri=_text(wire, "uri"),
        guest_id=check_id(_text(wire, "guest_id"), "guest"),
        guest_name=_text(wire, "guest_name"),
        endpoint=_text(wire, "endpoint"),
        source=_text(wire, "source"),
        destination=_text(wire, "destination"),
        volume_ids=_ids(wire),
        autostart=autostart,
        since=_moment(wire),
        peer=_text_or_none(wire, "peer"),
    )


def _text(wire: Mapping[str, object], key: str) -> str:
    value = wire.get(key)
    if isinstance(value, str) and value:
        return value
    raise InvalidInput(key, show(value), "expected a text that is not empty")


def _text_or_none(wire: Mapping[str, object], key: str) -> str | None:
    if key not in wire:
        raise InvalidInput(key, None, "it is missing")
    return None if wire[key] is None else _text(wire, key)


def _ids(wire: Mapping[str, object]) -> tuple[str, ...]:
    value = wire.get("volume_ids")
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return tuple(check_id(str(one), "volume") for one in value)
    raise InvalidInput("volume_ids", show(value), "expected a list of ids")


def _moment(wire: Mapping[str, object]) -> float:
    value = wire.get("since")
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e12:
        return float(value)
    raise InvalidInput("since", show(value), "expected seconds since the epoch")
