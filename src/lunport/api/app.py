"""The application: settings, the route table, and the WSGI callable made of both.

Translates between HTTP and the use cases of ``lunport.volume``, and decides nothing. The
server around it and the concrete collaborators are chosen in ``bootstrap``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import falcon

from lunport.api.auth import Authenticator, NoAuth
from lunport.api.faults import answer_error
from lunport.api.gate import Gate
from lunport.api.request import ApiRequest
from lunport.api.request_log import RequestLog
from lunport.api.resources import catalog, discovery, metadata, snapshots, volumes
from lunport.api.resources.actions import VolumeActionResource
from lunport.api.resources.attachments import AttachmentResource, AttachmentsResource
from lunport.api.resources.enrolments import EnrolmentsResource
from lunport.api.resources.exports import ExportsResource
from lunport.api.resources.migrations import MigrationsResource
from lunport.api.views.volumes import VolumeViews
from lunport.volume import catalog as catalog_cases
from lunport.volume import enrolments as enrolment_cases
from lunport.volume.requests import Caller
from lunport.volume.service import Service

WsgiApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

_INTERNAL = Caller("lunport", "lunport", is_admin=True)


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """What the application is told beside the service.

    ``service_token_hash``: what :func:`lunport.api.auth.hash_token` made of the service token;
    None means that nobody is the service. ``public_endpoint`` replaces ``http://HOST`` in
    links. ``default_project`` is where requests without any project belong (mode none).
    """

    authenticator: Authenticator = field(default_factory=NoAuth)
    service_token_hash: str | None = None
    default_project: str = "admin"
    public_endpoint: str | None = None
    service_uuid: str | None = None


class Route(NamedTuple):
    """One route: its path behind the version and project, and what answers it."""

    path: str
    resource: object
    suffix: str | None = None


def make_app(service: Service, settings: ApiSettings) -> WsgiApp:
    """Make the WSGI application."""
    table = tuple(routes(service, settings))
    gate = Gate(
        authenticator=settings.authenticator,
        service_token_hash=settings.service_token_hash,
        default_project=settings.default_project,
        public_endpoint=settings.public_endpoint and settings.public_endpoint.rstrip("/"),
        resources=frozenset(route.path.split("/")[1] for route in table),
        identify_agent=functools.partial(enrolment_cases.identify, service),
    )
    app = falcon.App(
        media_type=falcon.MEDIA_JSON,
        request_type=ApiRequest,
        middleware=[RequestLog(), gate] if RequestLog.is_wanted() else [gate],
        sink_before_static_route=False,
    )
    # Falcon has a handler of its own for its own errors; the nearest class decides.
    for kind in (Exception, falcon.HTTPError):
        app.add_error_handler(kind, answer_error)
    versions = discovery.VersionsResource()
    app.add_route("/", versions)
    app.add_route("/v3", versions, suffix="v3")
    for route in table:
        app.add_route(route.path, route.resource, suffix=route.suffix)
    return app


def routes(service: Service, settings: ApiSettings) -> Iterator[Route]:
    """Give the route table."""
    views = VolumeViews(TypeNames(service), settings.service_uuid)
    many, one = volumes.VolumesResource(service, views), volumes.VolumeResource(service, views)
    yield Route("/volumes", many)
    yield Route("/volumes/detail", many, "detail")
    yield Route("/volumes/summary", many, "summary")
    yield Route("/volumes/{identifier}", one)
    yield Route("/volumes/{identifier}/encryption", one, "encryption")
    yield Route("/volumes/{identifier}/action", VolumeActionResource(service))
    entries = metadata.volume_metadata(service)
    yield Route("/volumes/{identifier}/metadata", entries)
    yield Route("/volumes/{identifier}/metadata/{key}", entries, "key")

    taken = snapshots.SnapshotsResource(service)
    yield Route("/snapshots", taken)
    yield Route("/snapshots/detail", taken, "detail")
    yield Route("/snapshots/{identifier}", snapshots.SnapshotResource(service))
    yield Route("/snapshots/{identifier}/action", snapshots.SnapshotActionResource(service))
    entries = metadata.snapshot_metadata(service)
    yield Route("/snapshots/{identifier}/metadata", entries)
    yield Route("/snapshots/{identifier}/metadata/{key}", entries, "key")

    attached, attachment = AttachmentsResource(service), AttachmentResource(service)
    yield Route("/attachments", attached)
    yield Route("/attachments/detail", attached, "detail")
    yield Route("/attachments/{attachment_id}", attachment)
    yield Route("/attachments/{attachment_id}/action", attachment, "action")

    exported = ExportsResource(service)
    yield Route("/exports", exported)
    yield Route("/exports/action", exported, "action")

    yield from _host_routes(service)

    types = catalog.TypesResource(service)
    yield Route("/types", types)
    yield Route("/types/{type_id}", types, "one")
    yield Route("/types/{type_id}/extra_specs", types, "specs")
    yield Route("/types/{type_id}/extra_specs/{key}", types, "spec")
    yield Route("/types/{type_id}/encryption", types, "encryption")
    yield Route("/types/{type_id}/os-volume-type-access", types, "access")

    capacity = catalog.CapacityResource(service)
    yield Route("/scheduler-stats/get_pools", capacity, "pools")
    yield Route("/os-services", capacity, "services")
    yield Route("/limits", capacity, "limits")
    yield Route("/os-quota-sets/{project_id}", capacity, "quotas")
    yield Route("/os-quota-sets/{project_id}/defaults", capacity, "defaults")
    yield Route("/os-availability-zone", capacity, "zones")

    told = catalog.MessagesResource(service)
    yield Route("/messages", told)
    yield Route("/messages/{message_id}", told, "one")

    extensions = discovery.ExtensionsResource()
    yield Route("/extensions", extensions)
    yield Route("/extensions/{alias}", extensions, "one")
    yield Route("/resource_filters", discovery.ResourceFiltersResource())


def _host_routes(service: Service) -> Iterator[Route]:
    """Give the routes that are about hosts and their guests; ours alone."""
    enrolled = EnrolmentsResource(service)
    yield Route("/enrolments", enrolled)
    yield Route("/enrolments/{host}", enrolled, "host")
    yield Route("/enrolments/{host}/report", enrolled, "report")

    moved = MigrationsResource(service)
    yield Route("/migrations", moved)
    yield Route("/migrations/{migration_id}", moved, "one")
    yield Route("/migrations/{migration_id}/action", moved, "action")


class TypeNames:
    """The names of volume types by id, read again when an unknown one is met."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._names: dict[str, str] = {}

    def __call__(self, type_id: str) -> str:
        """Return a type's name; the id itself when there is no such type any more."""
        name = self._names.get(type_id)
        if name is None:
            types = catalog_cases.list_types(self._service, _INTERNAL)
            self._names = {one.id: one.name for one in types}
            name = self._names.setdefault(type_id, type_id)
        return name
