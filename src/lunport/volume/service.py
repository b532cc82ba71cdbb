"""What the use cases work with: store, backends, clock, and the queue of accepted work.

One frozen value, put together in ``bootstrap``; tests put it together with fakes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from lunport.core.chap import ChapCredentials
from lunport.core.errors import BackendNotFound
from lunport.core.iqn import Iqn
from lunport.drivers.driver import StorageDriver
from lunport.host.locks import NamedLocks
from lunport.store.engine import Store
from lunport.store.operations import Operation
from lunport.targets.helper import TargetHelper

PortalOrder = Literal["fixed", "rotate"]

# How long a request waits for another one on the same volume. Short, because it holds one of
# the few HTTP threads; only a copy without reflinks takes longer, and its client asks again.
LOCK_WAIT_S = 10.0


@dataclass(frozen=True, slots=True)
class ExportPolicy:
    """How a backend offers its volumes."""

    lun: int = 1
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
    """

    name: str
    host: str
    driver: StorageDriver
    helper: TargetHelper
    policy: ExportPolicy
    target_name: Callable[[str], Iqn]
    volume_of: Callable[[str], str | None]
    over_subscription_ratio: float = 20.0


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

    def backend(self, name: str) -> Backend:
        """Return a configured backend. Raises: BackendNotFound."""
        try:
            return self.backends[name]
        except KeyError:
            raise BackendNotFound(name) from None
