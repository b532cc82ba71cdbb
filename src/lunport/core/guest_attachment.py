"""What a host's journal holds of its guests, and how it is written: one JSON object each.

    {"version": 1, "phase": "attached", "guest_id": "d0000000-...", "volume_id": "58a8...", ...}

A *guest attachment* is one volume that a guest has, or is about to have or not to have. An
*owned guest* is one whose start is the agent's, since its volumes have to be there before.
Every key is always written and must be there; a newer version is refused. No secret is in
either: the secret's name in the hypervisor's store is, which follows from the attachment.
"""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2s
from typing import Final

from lunport.core.errors import InvalidInput
from lunport.core.guest_disk import InitiatorKind
from lunport.core.journal_fields import (
    load_entry,
    optional,
    parse_flag,
    parse_moment,
    parse_text,
    require,
)
from lunport.core.wire_fields import show

VERSION: Final = 1
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


class GuestPhase(enum.StrEnum):
    """How far an attachment has come. ``ARRIVING``: its guest may come from another host."""

    ATTACHING = "attaching"
    ATTACHED = "attached"
    DETACHING = "detaching"
    ARRIVING = "arriving"


@dataclass(frozen=True, slots=True)
class GuestAttachment:
    """One volume of one guest of this host.

    ``uri``: the hypervisor that knows the guest. ``attachment_id`` is None until the service at
    ``endpoint`` answered, ``target``, the disk's name in the guest, until it was chosen.
    ``since``: seconds since the epoch, of the last change.
    """

    uri: str
    guest_id: str
    guest_name: str
    volume_id: str
    endpoint: str
    phase: GuestPhase
    initiator: InitiatorKind
    multipath: bool | None
    attachment_id: str | None
    target: str | None
    since: float

    @property
    def key(self) -> str:
        """Name it among the host's; safe as a file name."""
        return attachment_key(self.guest_id, self.volume_id)

    @property
    def secret_id(self) -> str | None:
        """Name its secret in the hypervisor's store, where it has one."""
        if self.initiator is not InitiatorKind.QEMU or self.attachment_id is None:
            return None
        return secret_id_of(self.attachment_id)


@dataclass(frozen=True, slots=True)
class OwnedGuest:
    """A guest that the agent starts with the host, if ``autostart``, in the hypervisor's stead.

    ``boot_id``: the last boot of the host in which that was done, or was not due.
    """

    uri: str
    guest_id: str
    guest_name: str
    autostart: bool
    boot_id: str


def attachment_key(guest_id: str, volume_id: str) -> str:
    """Name a volume of a guest. Raises: InvalidInput for what can't be part of a file name."""
    return f"{check_id(guest_id, 'guest')}+{check_id(volume_id, 'volume')}"


def check_id(text: str, what: str) -> str:
    """Return the id if it can be part of a file name. Raises: InvalidInput."""
    if not _ID.fullmatch(text):
        raise InvalidInput(f"{what} id", text, "expected letters, digits, -, _ and .")
    return text


def secret_id_of(attachment_id: str) -> str:
    """Derive the UUID of an attachment's secret: of version 8, of our own making (RFC 9562)."""
    digest = blake2s(f"lunport secret {attachment_id}".encode(), digest_size=16).hexdigest()
    variant = "89ab"[int(digest[16], 16) % 4]
    return "-".join(
        (digest[:8], digest[8:12], f"8{digest[13:16]}", f"{variant}{digest[17:20]}", digest[20:])
    )


# -- writing -------------------------------------------------------------------------------


def format_guest_attachment(one: GuestAttachment) -> str:
    """Write an entry; the inverse of :func:`parse_guest_attachment`."""
    return _dump(
        {
            "uri": one.uri,
            "guest_id": one.guest_id,
            "guest_name": one.guest_name,
            "volume_id": one.volume_id,
            "endpoint": one.endpoint,
            "phase": one.phase.value,
            "initiator": one.initiator.value,
            "multipath": one.multipath,
            "attachment_id": one.attachment_id,
            "target": one.target,
            "since": one.since,
        }
    )


def format_owned_guest(one: OwnedGuest) -> str:
    """Write an entry; the inverse of :func:`parse_owned_guest`."""
    return _dump(
        {
            "uri": one.uri,
            "guest_id": one.guest_id,
            "guest_name": one.guest_name,
            "autostart": one.autostart,
            "boot_id": one.boot_id,
        }
    )


def _dump(fields: Mapping[str, object]) -> str:
    return json.dumps({"version": VERSION, **fields}, indent=1) + "\n"


# -- reading -------------------------------------------------------------------------------


def parse_guest_attachment(text: str) -> GuestAttachment:
    """Read an entry. Raises: InvalidInput."""
    wire = load_entry(text, VERSION)
    return GuestAttachment(
        uri=require(wire, "uri", parse_text),
        guest_id=require(wire, "guest_id", _parse_id),
        guest_name=require(wire, "guest_name", parse_text),
        volume_id=require(wire, "volume_id", _parse_id),
        endpoint=require(wire, "endpoint", parse_text),
        phase=require(wire, "phase", _parse_phase),
        initiator=require(wire, "initiator", _parse_initiator),
        multipath=optional(wire, "multipath", parse_flag),
        attachment_id=optional(wire, "attachment_id", parse_text),
        target=optional(wire, "target", parse_text),
        since=require(wire, "since", parse_moment),
    )


def parse_owned_guest(text: str) -> OwnedGuest:
    """Read an entry. Raises: InvalidInput."""
    wire = load_entry(text, VERSION)
    return OwnedGuest(
        uri=require(wire, "uri", parse_text),
        guest_id=require(wire, "guest_id", _parse_id),
        guest_name=require(wire, "guest_name", parse_text),
        autostart=require(wire, "autostart", parse_flag),
        boot_id=require(wire, "boot_id", parse_text),
    )


def _parse_id(value: object) -> str:
    return check_id(parse_text(value), "an")


def _parse_phase(value: object) -> GuestPhase:
    if isinstance(value, str) and value in tuple(GuestPhase):
        return GuestPhase(value)
    raise InvalidInput("phase", show(value), f"expected one of {', '.join(GuestPhase)}")


def _parse_initiator(value: object) -> InitiatorKind:
    if isinstance(value, str) and value in tuple(InitiatorKind):
        return InitiatorKind(value)
    raise InvalidInput("initiator", show(value), f"expected one of {', '.join(InitiatorKind)}")
