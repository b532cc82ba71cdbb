"""The backend's stored string from which a volume's paths are rebuilt.

    10.0.1.2:3260;10.0.2.2:3260,0 iqn.2010-10.org.openstack:volume-12345678 1
    portal[;portal...]         ,N iqn                                     [lun]

N is tgt's target id, a portal group tag elsewhere: an opaque number, kept. It looks like a
line of ``iscsiadm -m discovery`` with more portals. Reading is tolerant of blanks; writing
has one form, with the LUN. A missing LUN is 0, as Block Storage reads it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from lunport.core.errors import InvalidInput, InvalidProviderLocation
from lunport.core.iqn import Iqn, parse_iqn
from lunport.core.portal import Portal, parse_portal
from lunport.core.target_path import TargetPath, parse_lun
from lunport.core.transport import Transport

_SHAPE = re.compile(r"([^,]+),\s*(-?[0-9]{1,10})\s+(.+)", re.DOTALL)
_WHAT = "provider location"
_EXPECTED = "expected PORTAL[;PORTAL...],NUMBER IQN [LUN]"


@dataclass(frozen=True, slots=True)
class ProviderLocation:
    """The portals in the backend's order, N, the target and the LUN."""

    portals: tuple[Portal, ...]
    number: int
    iqn: Iqn
    lun: int = 0

    def paths(self, transport: Transport = Transport.TCP) -> tuple[TargetPath, ...]:
        """Give the complete way to the logical unit through each portal, in order."""
        return tuple(TargetPath(portal, self.iqn, self.lun, transport) for portal in self.portals)


def parse_provider_location(text: object) -> ProviderLocation:
    """Parse a stored location; a portal named twice counts once.

    Raises: InvalidProviderLocation.
    """
    shape = _SHAPE.fullmatch(text.strip()) if isinstance(text, str) else None
    if shape is None:
        raise InvalidProviderLocation(_WHAT, text, _EXPECTED)
    portals, number, rest = shape.groups()
    iqn, *others = rest.split()
    if others and _is_wrapped(iqn, others[0]):
        iqn += others.pop(0)
    if len(others) > 1:
        raise InvalidProviderLocation(_WHAT, text, f"{_EXPECTED}; {others[1]!r} is too much")
    try:
        return ProviderLocation(
            portals=tuple(dict.fromkeys(parse_portal(portal) for portal in portals.split(";"))),
            number=int(number),
            iqn=parse_iqn(iqn),
            lun=parse_lun(others[0]) if others else 0,
        )
    except InvalidInput as error:
        raise InvalidProviderLocation(_WHAT, text, str(error).removesuffix(".")) from error


def format_provider_location(location: ProviderLocation) -> str:
    """Write a location in its one form; the inverse of :func:`parse_provider_location`."""
    portals = ";".join(map(str, location.portals))
    return f"{portals},{location.number} {location.iqn} {location.lun}"


def _is_wrapped(iqn: str, following: str) -> bool:
    # "iqn.2010-10.org.openstack: volume-1" was wrapped behind its colon, since no name ends
    # with its first colon; in "iqn.2010-10.org.openstack:a: 1" the 1 is the LUN.
    return iqn.endswith(":") and (iqn.count(":") == 1 or not following.isdigit())
