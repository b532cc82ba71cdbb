"""The version documents, and what a client asks about the API itself.

The version document is answered to whoever asks, at ``/``, ``/v3`` and ``/v3/{project}``: the
standard clients look for it without a token, and find nothing else to speak to.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import falcon

from lunport.api import list_rules
from lunport.api import microversions as mv
from lunport.api.faults import ApiError
from lunport.api.request import ApiRequest, encode


class VersionsResource:
    """The one version that there is."""

    def on_get(self, req: ApiRequest, resp: falcon.Response) -> None:
        """Show all versions, as a choice."""
        resp.status = falcon.HTTP_300
        resp.data = encode(_versions(req))

    def on_get_v3(self, req: ApiRequest, resp: falcon.Response) -> None:
        """Show the version."""
        resp.data = encode(_versions(req))


class ExtensionsResource:
    """The extensions of old, which are all part of the API now."""

    def on_get(self, req: ApiRequest, resp: falcon.Response) -> None:
        """List the extensions that are here."""
        resp.data = encode({"extensions": [_extension(alias) for alias in sorted(_EXTENSIONS)]})

    def on_get_one(self, req: ApiRequest, resp: falcon.Response, alias: str) -> None:
        """Show an extension."""
        if alias not in _EXTENSIONS:
            raise ApiError(404)
        resp.data = encode({"extension": _extension(alias)})


class ResourceFiltersResource:
    """Which filters each list allows to everybody (3.33)."""

    def on_get(self, req: ApiRequest, resp: falcon.Response) -> None:
        """List the filters, of one resource when one is named."""
        req.require_version(mv.RESOURCE_FILTERS)
        wanted = req.parameter("resource")
        found = [
            {"resource": name, "filters": filters}
            for name, filters in _FILTERS.items()
            if wanted in (None, name)
        ]
        resp.data = encode({"resource_filters": found})


def _versions(req: ApiRequest) -> dict[str, Any]:
    # The document is the same under a project: its link is to the version itself.
    return {
        "versions": [
            {
                "id": f"v{mv.MAJOR}.{mv.MINIMUM}",
                "status": "CURRENT",
                "version": f"{mv.MAJOR}.{mv.MAXIMUM}",
                "min_version": f"{mv.MAJOR}.{mv.MINIMUM}",
                "updated": mv.UPDATED,
                "links": [
                    {
                        "rel": "describedby",
                        "type": "text/html",
                        "href": "https://docs.openstack.org/",
                    },
                    {"rel": "self", "href": f"{req.root}/v{mv.MAJOR}/"},
                ],
                "media-types": [
                    {
                        "base": "application/json",
                        "type": f"application/vnd.openstack.volume+json;version={mv.MAJOR}",
                    }
                ],
            }
        ]
    }


def _public(rules: list_rules.ListRules) -> list[str]:
    return [name for name, field in rules.filters.items() if field.is_public]


_FILTERS: Mapping[str, list[str]] = {
    "volume": _public(list_rules.VOLUME_RULES),
    "snapshot": _public(list_rules.SNAPSHOT_RULES),
    "attachment": _public(list_rules.ATTACHMENT_RULES),
    "message": _public(list_rules.MESSAGE_RULES),
    "volume_type": _public(list_rules.TYPE_RULES),
    "pool": ["name", "volume_type"],
}

_EXTENSIONS: Mapping[str, str] = {
    "os-admin-actions": "AdminActions",
    "os-availability-zone": "AvailabilityZones",
    "os-extended-snapshot-attributes": "ExtendedSnapshotAttributes",
    "os-quota-sets": "Quotas",
    "os-services": "Services",
    "os-snapshot-actions": "SnapshotActions",
    "os-types-extra-specs": "TypesExtraSpecs",
    "os-used-limits": "UsedLimits",
    "os-vol-host-attr": "VolumeHostAttribute",
    "os-vol-mig-status-attr": "VolumeMigStatusAttribute",
    "os-vol-tenant-attr": "VolumeTenantAttribute",
    "os-volume-actions": "VolumeActions",
    "os-volume-encryption-metadata": "VolumeEncryptionMetadata",
    "scheduler-stats": "Scheduler_stats",
}


def _extension(alias: str) -> dict[str, Any]:
    return {
        "alias": alias,
        "name": _EXTENSIONS[alias],
        "description": f"{_EXTENSIONS[alias]} is part of the API.",
        "updated": mv.UPDATED,
        "links": [],
    }
