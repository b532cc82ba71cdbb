"""The body of ``PUT /enrolments/HOST/report``: ours, for the agent of that host.

{"report": {"guests": [{"id": ID, "name": "web", "state": "running",
                        "volumes": [{"volume_id": ID, "initiator": "qemu", "target": "vdb",
                                     "portal": "10.0.1.2:3260", "problem": null}]}],
            "connections": [{"volume_id": ID, "phase": "connected",
                             "portal": "10.0.1.2:3260", "wwid": "naa.6001405..."}],
            "error": null}}
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from lunport.core.host_report import (
    MAX_ENTRIES,
    HostReport,
    ReportedConnection,
    ReportedGuest,
    ReportedVolume,
)

_Word = Annotated[str, msgspec.Meta(max_length=255)]
_Words = Annotated[str, msgspec.Meta(max_length=1000)]
_AtMost = msgspec.Meta(max_length=MAX_ENTRIES)


class VolumeKeys(msgspec.Struct, forbid_unknown_fields=True):
    """One volume of a guest."""

    volume_id: _Word
    initiator: _Word
    target: _Word | None = None
    portal: _Word | None = None
    problem: _Words | None = None


class GuestKeys(msgspec.Struct, forbid_unknown_fields=True):
    """One guest."""

    id: _Word
    name: _Word
    state: _Word
    volumes: Annotated[list[VolumeKeys], _AtMost] = []


class ConnectionKeys(msgspec.Struct, forbid_unknown_fields=True):
    """One connection."""

    volume_id: _Word | None
    phase: _Word
    portal: _Word | None
    wwid: _Word | None


class ReportKeys(msgspec.Struct, forbid_unknown_fields=True):
    """What a host has."""

    guests: Annotated[list[GuestKeys], _AtMost] = []
    connections: Annotated[list[ConnectionKeys], _AtMost] = []
    error: _Words | None = None

    def value(self) -> HostReport:
        """Return it as the use case takes it."""
        return HostReport(
            guests=tuple(
                ReportedGuest(
                    one.id,
                    one.name,
                    one.state,
                    tuple(ReportedVolume(**msgspec.structs.asdict(each)) for each in one.volumes),
                )
                for one in self.guests
            ),
            connections=tuple(
                ReportedConnection(**msgspec.structs.asdict(one)) for one in self.connections
            ),
            error=self.error,
        )


class ReportBody(msgspec.Struct, forbid_unknown_fields=True):
    """``PUT /enrolments/HOST/report``."""

    report: ReportKeys


REPORT = msgspec.json.Decoder(ReportBody)
