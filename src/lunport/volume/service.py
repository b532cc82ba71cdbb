"""What the use cases work with: store, backends, clock, and the queue of accepted work.

One frozen value, put together in ``bootstrap``; tests put it together with fakes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from lunport.core.chap import ChapCredentials
from lunport.core.errors import BackendNotFound
from lunport.core.iqn import Iqn
from lunport.core.portal_order import PortalOrder
from lunport.drivers.driver import StorageDriver
from lunport.host.locks import NamedLocks
from lunport.store.engine import Store
from lunport.store.operations import Operation
from lunport.targets.helper import TargetHelper
from lunport.volume.host_reports import HostReports

ExportKind = Literal["target_per_volume", "target_per_host", "shared_target"]

# How long a request waits for another one on the same volume. Short, because it holds one of
# the few HTTP threads; only a copy without reflinks takes longer, and its client asks again.
LOCK_WAIT_S = 10.0


@dataclass(frozen=True, slots=True)
class ExportPolicy:
    """How a backend offers its volumes.

    ``lun`` is that of a volume's own target. ``max_luns`` of one target and ``max_targets`` of
    the backend: None is what the helper can.
    """

    export: ExportKind = "target_per_volume"
    lun: int = 1
    max_luns: int | None = None
    max_targets: int | None = None
    portal_order: PortalOrder = "fixed"
    multipath: bool = True
    alternatives: bool = True
    resilient: bool = False
    chap: bool = True


@dataclass(frozen=True, slots=True)
class Backend:
    """A configured driver and target helper.

    ``host`` is Block Storage's ``HOST@BACKEND#POOL``. ``target_name`` names a volume's target,
    and ``volume_of`` is its inverse: None for a target that is not one of ours.
    ``host_target`` names the target of an initiator, ``shared_target`` the one of all, and
    ``is_of_several`` tells whether a name is such a one of ours. ``is_elsewhere``: its units
    are offered by somebody else's targets, which are not ours to change.
    """

    name: str
    host: str
    driver: StorageDriver
    helper: TargetHelper
    policy: ExportPolicy
    target_name: Callable[[str], Iqn]
    volume_of: Callable[[str], str | None]
    host_target: Callable[[str], Iqn]
    shared_target: Iqn
    is_of_several: Callable[[str], bool]
    over_subscription_ratio: float = 20.0
    is_elsewhere: bool = False

    @property
    def shares_targets(self) -> bool:
        """Tell whether new connections go through targets of several volumes."""
        return self.policy.export != "target_per_volume"

    @property
    def max_luns(self) -> int:
        """The most units that one target may have."""
        limit = self.helper.limits.max_units
        return limit if self.policy.max_luns is None else min(limit, self.policy.max_luns)

    @property
    def max_targets(self) -> int:
        """The most targets that the backend may have."""
        limit = self.helper.limits.max_targets
        return limit if self.policy.max_targets is None else min(limit, self.policy.max_targets)


class WorkQueue(Protocol):
    """Where accepted work is handed to the workers."""

    def submit(self, operation: Operation) -> None:
        """Hand over one operation; returns soon, whether it has ended or not."""


@dataclass(frozen=True, slots=True)
class Service:
    """The collaborators of every use case."""

    store: Store
    backends: Mapping[str, Backend]
    default_backend: str
    queue: WorkQueue
    locks: NamedLocks
    now: Callable[[], str]
    new_id: Callable[[], str]
    new_chap: Callable[[], ChapCredentials]
    host: str
    zone: str = "nova"
    reports: HostReports = field(default_factory=HostReports)

    def backend(self, name: str) -> Backend:
        """Return a configured backend. Raises: BackendNotFound."""
        try:
            return self.backends[name]
        except KeyError:
            raise BackendNotFound(name) from None
