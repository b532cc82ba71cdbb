"""``/volumes/{id}/metadata`` and ``/snapshots/{id}/metadata``, whole and by key.

Volumes carry an ``ETag`` from 3.15 on, and a write with ``If-Match`` fails with 412 when the
metadata is no longer what the caller saw.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import falcon

from lunport.api import microversions as mv
from lunport.api.faults import ApiError
from lunport.api.request import ApiRequest, encode
from lunport.api.schemas import metadata as schema
from lunport.core.errors import MetadataKeyNotFound
from lunport.volume import metadata
from lunport.volume.requests import Caller
from lunport.volume.service import Service

Entries = Mapping[str, str]


class ReadEntries(Protocol):
    """The use case that reads the metadata of one kind of resource."""

    def __call__(self, service: Service, caller: Caller, identifier: str, /) -> Entries:
        """Return the entries."""


class WriteEntries(Protocol):
    """The use case that writes it."""

    def __call__(
        self,
        service: Service,
        caller: Caller,
        identifier: str,
        entries: Entries,
        /,
        *,
        replace: bool,
    ) -> Entries:
        """Write entries and return all."""


class DeleteEntry(Protocol):
    """The use case that removes one entry."""

    def __call__(self, service: Service, caller: Caller, identifier: str, key: str, /) -> None:
        """Remove an entry."""


@dataclass(frozen=True, slots=True)
class MetadataResource:
    """The metadata of one volume or snapshot."""

    service: Service
    read: ReadEntries
    write: WriteEntries
    delete: DeleteEntry
    has_etag: bool

    def on_get(self, req: ApiRequest, resp: falcon.Response, identifier: str) -> None:
        """Show all entries."""
        shown = encode({"metadata": self.read(self.service, req.caller, identifier)})
        if self.has_etag and req.minor >= mv.METADATA_ETAG:
            resp.set_header("ETag", f'"{_etag(shown)}"')
        resp.data = shown

    def on_post(self, req: ApiRequest, resp: falcon.Response, identifier: str) -> None:
        """Add entries."""
        entries = schema.to_entries(req.decode(schema.METADATA))
        self._write(req, resp, identifier, entries, replace=False)

    def on_put(self, req: ApiRequest, resp: falcon.Response, identifier: str) -> None:
        """Replace all entries."""
        entries = schema.to_entries(req.decode(schema.METADATA))
        self._check_etag(req, identifier)
        self._write(req, resp, identifier, entries, replace=True)

    def on_get_key(self, req: ApiRequest, resp: falcon.Response, identifier: str, key: str) -> None:
        """Show one entry."""
        entries = self.read(self.service, req.caller, identifier)
        if key not in entries:
            raise MetadataKeyNotFound(key)
        resp.data = encode({"meta": {key: entries[key]}})

    def on_put_key(self, req: ApiRequest, resp: falcon.Response, identifier: str, key: str) -> None:
        """Set one entry."""
        entry = schema.to_entry(req.decode(schema.META), key)
        self._check_etag(req, identifier)
        self.write(self.service, req.caller, identifier, entry, replace=False)
        resp.data = encode({"meta": entry})

    def on_delete_key(
        self, req: ApiRequest, resp: falcon.Response, identifier: str, key: str
    ) -> None:
        """Remove one entry."""
        self.delete(self.service, req.caller, identifier, key)
        resp.status = falcon.HTTP_200

    def _write(
        self,
        req: ApiRequest,
        resp: falcon.Response,
        identifier: str,
        entries: Entries,
        *,
        replace: bool,
    ) -> None:
        written = self.write(self.service, req.caller, identifier, entries, replace=replace)
        resp.data = encode({"metadata": written})

    def _check_etag(self, req: ApiRequest, identifier: str) -> None:
        wanted = req.get_header("If-Match")
        if not (wanted and self.has_etag and req.minor >= mv.METADATA_ETAG):
            return
        now = _etag(encode({"metadata": self.read(self.service, req.caller, identifier)}))
        given = {one.strip().removeprefix("W/").strip('"') for one in wanted.split(",")}
        if not given & {now, "*"}:
            raise ApiError(412)


def volume_metadata(service: Service) -> MetadataResource:
    """Make the resource of volumes."""
    return MetadataResource(
        service,
        metadata.read_volume_metadata,
        metadata.write_volume_metadata,
        metadata.delete_volume_metadata_key,
        has_etag=True,
    )


def snapshot_metadata(service: Service) -> MetadataResource:
    """Make the resource of snapshots."""
    return MetadataResource(
        service,
        metadata.read_snapshot_metadata,
        metadata.write_snapshot_metadata,
        metadata.delete_snapshot_metadata_key,
        has_etag=False,
    )


def _etag(body: bytes) -> str:
    return hashlib.blake2s(body, digest_size=16).hexdigest()
