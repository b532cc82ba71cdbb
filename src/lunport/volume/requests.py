"""The values that callers hand to the use cases, and the pages they get back."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Literal, NamedTuple, TypeVar

from lunport.core.attachment import Attachment
from lunport.core.volume import Volume

Row = TypeVar("Row")


class Unset(enum.Enum):
    """The one value that says: leave this field as it is."""

    UNSET = enum.auto()


UNSET = Unset.UNSET


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. ``is_service`` is set by a service token only (OSSA-2023-003)."""

    user_id: str
    project_id: str
    is_admin: bool
    is_service: bool = False
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class NewVolume:
    """A volume to create. ``size_gib`` may be None when there is a source to take it from."""

    size_gib: int | None
    name: str | None = None
    description: str | None = None
    volume_type: str | None = None
    availability_zone: str | None = None
    snapshot_id: str | None = None
    source_volid: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    multiattach: bool = False


@dataclass(frozen=True, slots=True)
class NewSnapshot:
    """A snapshot to take. ``force`` allows a volume that is in use."""

    volume_id: str
    name: str | None = None
    description: str | None = None
    force: bool = False
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NewAttachment:
    """An attachment to reserve, and to connect at once when there is a connector (wire form)."""

    volume_id: str
    instance_uuid: str | None = None
    connector: Mapping[str, object] | None = None
    mode: str | None = None


Operator = Literal["=", "in", "like", ">", ">=", "<", "<=", "!="]


@dataclass(frozen=True, slots=True)
class Filter:
    """One condition. ``key`` is a record's field; ``metadata`` takes a mapping as value."""

    key: str
    operator: Operator
    value: object


@dataclass(frozen=True, slots=True)
class Query:
    """Which rows, in which order, which page. All filters must hold.

    ``project_id`` None means every project (the API checks that the caller may). ``sort`` is
    ((field, descending), ...); the id is always the last key. ``marker`` is the id of the
    last row of the page before; an unknown one is InvalidInput.
    """

    project_id: str | None
    filters: Sequence[Filter] = ()
    sort: Sequence[tuple[str, bool]] = (("created_at", True),)
    limit: int | None = None
    marker: str | None = None
    offset: int = 0


class Page(NamedTuple, Generic[Row]):
    """Rows of one page, and whether more follow."""

    rows: Sequence[Row]
    more: bool


class VolumeView(NamedTuple):
    """A volume with its attachments."""

    volume: Volume
    attachments: Sequence[Attachment]


class VolumeType(NamedTuple):
    """A kind of volume."""

    id: str
    name: str
    description: str | None
    is_public: bool
    extra_specs: Mapping[str, str]


class Message(NamedTuple):
    """What a user is told about a request that failed after it was accepted."""

    id: str
    project_id: str
    request_id: str
    resource_type: str
    resource_uuid: str
    event_id: str
    user_message: str
    created_at: str


@dataclass(frozen=True, slots=True)
class Pool:
    """A backend as the scheduler sees it: sizes in GiB."""

    name: str
    backend: str
    total_gib: float
    free_gib: float
    provisioned_gib: float
    over_subscription_ratio: float
    multipath: bool
    multiattach: bool
    protocol: str = "iSCSI"


@dataclass(frozen=True, slots=True)
class ServiceState:
    """One process of the service."""

    binary: str
    host: str
    zone: str
    enabled: bool
    is_up: bool
    updated_at: str
    backend_state: str | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """What a project uses."""

    volumes: int
    snapshots: int
    gigabytes: int


class AttachmentView(NamedTuple):
    """An attachment, and the flattened wire connection info once it has a connector."""

    attachment: Attachment
    connection_info: Mapping[str, object] | None
