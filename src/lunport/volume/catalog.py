"""What there is: volume types, pools, services, zones, and what a project uses."""

from __future__ import annotations

from collections.abc import Sequence

from lunport.core.errors import BackendError
from lunport.core.size import GIB
from lunport.store import operations, snapshots, volumes
from lunport.volume.requests import Caller, Pool, Query, ServiceState, Usage, VolumeType
from lunport.volume.service import Backend, Service
from lunport.volume.volumes import find_type


def list_types(service: Service, caller: Caller) -> Sequence[VolumeType]:
    """Return all volume types by name."""
    with service.store.read() as connection:
        return operations.types(connection)


def get_type(service: Service, caller: Caller, name_or_id: str) -> VolumeType:
    """Return a volume type. Raises: VolumeTypeNotFound."""
    with service.store.read() as connection:
        return find_type(connection, name_or_id)


def default_type(service: Service, caller: Caller) -> VolumeType:
    """Return the type of volumes that name none."""
    with service.store.read() as connection:
        return find_type(connection, None)


def list_pools(service: Service, caller: Caller) -> Sequence[Pool]:
    """Return the backends that can tell their capacity now."""
    return [pool for backend in service.backends.values() if (pool := _pool(service, backend))]


def list_services(service: Service, caller: Caller) -> Sequence[ServiceState]:
    """Return the parts of this process as Block Storage names them."""
    now = service.now()
    scheduler = ServiceState("cinder-scheduler", service.host, service.zone, True, True, now)
    return [
        scheduler,
        *(
            ServiceState(
                "cinder-volume",
                backend.host.partition("#")[0],
                service.zone,
                True,
                is_alive,
                now,
                "up" if is_alive else "down",
            )
            for backend in service.backends.values()
            for is_alive in (backend.helper.is_alive(),)
        ),
    ]


def read_usage(service: Service, caller: Caller, project_id: str | None = None) -> Usage:
    """Add up what a project uses."""
    query = Query(project_id=project_id or caller.project_id)
    with service.store.read(snapshot=True) as connection:
        volume_count, volume_gib = volumes.totals(connection, query)
        snapshot_count, snapshot_gib = snapshots.totals(connection, query)
    return Usage(volume_count, snapshot_count, volume_gib + snapshot_gib)


def availability_zones(service: Service) -> Sequence[str]:
    """Return the zones."""
    return [service.zone]


def _pool(service: Service, backend: Backend) -> Pool | None:
    try:
        capacity = backend.driver.capacity()
    except BackendError:
        return None
    with service.store.read() as connection:
        allocated = float(volumes.total_gib(connection, backend.name))
    provisioned = capacity.provisioned_bytes
    return Pool(
        name=backend.host,
        backend=backend.name,
        total_gib=round(capacity.total_bytes / GIB, 2),
        free_gib=round(capacity.free_bytes / GIB, 2),
        provisioned_gib=allocated if provisioned is None else round(provisioned / GIB, 2),
        allocated_gib=allocated,
        is_thin=capacity.is_thin,
        over_subscription_ratio=backend.over_subscription_ratio,
        multipath=backend.policy.multipath,
        multiattach=True,
    )
