"""How exports, revocations and what a check found look on the wire."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lunport.store.revocations import Revocation
from lunport.volume.checking import BackendCheck
from lunport.volume.export_list import ExportedVolume, ExportList
from lunport.volume.fencing import Fenced


def listed(found: ExportList) -> dict[str, Any]:
    """Show what is exported to whom, and who is cut off."""
    return {
        "exports": [_export(one) for one in found.exports],
        "revocations": [_revocation(one) for one in found.revocations],
    }


def fenced(done: Fenced) -> dict[str, Any]:
    """Show what a revocation or its end did."""
    return {
        "change": done.change.value,
        "volume_ids": list(done.volume_ids),
        "revocations": [_revocation(one) for one in done.revocations],
    }


def checked(backends: Sequence[BackendCheck]) -> dict[str, Any]:
    """Show what a check found."""
    return {
        "whole": all(one.is_whole for one in backends),
        "backends": [
            {
                "name": one.backend,
                "targets": one.targets,
                "differences": [
                    {"where": each.where, "what": each.what, "mended": each.mended}
                    for each in one.differences
                ],
            }
            for one in backends
        ],
    }


def _export(one: ExportedVolume) -> dict[str, Any]:
    return {
        "volume_id": one.volume_id,
        "attachment_id": one.attachment_id,
        "host": one.host,
        "initiator": one.initiator,
        "backend": one.backend,
        "iqn": one.iqn,
        "lun": one.lun,
        "portals": [str(portal) for portal in one.portals],
        "state": one.state,
        "since": one.since,
    }


def _revocation(one: Revocation) -> dict[str, Any]:
    return one._asdict()
