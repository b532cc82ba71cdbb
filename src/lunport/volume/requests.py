"""The values that callers hand to the use cases, and the pages they get back."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from lunport.core.agent_identity import AgentIdentity
from lunport.core.attachment import Attachment
from lunport.core.catalog import Message as Message
from lunport.core.catalog import VolumeType as VolumeType
from lunport.core.query import Filter as Filter
from lunport.core.query import Page as Page
from lunport.core.query import Query as Query
from lunport.core.volume import Volume
from lunport.store.path_reports import PathReport


class Unset(enum.Enum):
    """The one value that says: leave this field as it is."""

    UNSET = enum.auto()


UNSET = Unset.UNSET


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. ``is_service`` is set by a service token only (OSSA-2023-003).

    ``agent``: the agent of that host asks, for its own host and no other.
    """

    user_id: str
    project_id: str
    is_admin: bool
    is_service: bool = False
    request_id: str = ""
    agent: AgentIdentity | None = None

    @property
    def sees_project(self) -> str | None:
        """The project whose records the caller may touch; None for all.

        An agent works for whatever project a guest of its host is of.
        """
        return None if self.is_admin or self.agent is not None else self.project_id


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


class VolumeView(NamedTuple):
    """A volume with its attachments.

    ``shares_target``: hosts reach it through a target that other volumes are behind as well.
    """

    volume: Volume
    attachments: Sequence[Attachment]
    shares_target: bool = False


@dataclass(frozen=True, slots=True)
class Pool:
    """A backend as the scheduler sees it: sizes in GiB.

    ``allocated_gib`` is what volumes of ours are promised, ``provisioned_gib`` what everything
    that is there may take.
    """

    name: str
    backend: str
    total_gib: float
    free_gib: float
    provisioned_gib: float
    over_subscription_ratio: float
    multipath: bool
    multiattach: bool
    allocated_gib: float = 0.0
    is_thin: bool = True
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
    """An attachment, and the flattened wire connection info once it has a connector.

    ``paths``: what its host last told of the paths, where that was asked for and is known.
    """

    attachment: Attachment
    connection_info: Mapping[str, object] | None
    paths: PathReport | None = None
