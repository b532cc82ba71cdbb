"""What a volume group or a thin pool can still hold, and what is refused before it is full.

Writes to a full thin pool fail for every volume in it, whoever made the promise that could not
be kept; so what would need more of a pool that is nearly full is refused, with the numbers.
"""

from __future__ import annotations

from collections.abc import Mapping

from lunport.core.errors import BackendError, OutOfSpace
from lunport.drivers.lvm_group import LvmSettings
from lunport.host.lvm import LogicalVolume, VolumeGroup

_METADATA_LIMIT_PERCENT = 90.0
_RESERVE_PERCENT = 5.0
# A thick snapshot's store: chunks of 4 KiB, and 16 bytes for each to find it by (dm-snapshot).
_CHUNK_BYTES = 4096
_CHUNKS_OF_A_TABLE = 256


def free_of(pool: LogicalVolume) -> int:
    """Return how many bytes of a pool hold nothing."""
    return int(pool.size_bytes * (100 - pool.data_percent) / 100)


def promised_of(found: Mapping[str, LogicalVolume], pool: str) -> int:
    """Return how large a pool's volumes are together."""
    return sum(one.size_bytes for one in found.values() if one.pool == pool)


def store_bytes(group: VolumeGroup, size_bytes: int) -> int:
    """Return what a thick snapshot of that size takes when all was overwritten."""
    return group.round_up(size_bytes + size_bytes // _CHUNKS_OF_A_TABLE + 3 * _CHUNK_BYTES)


def require_pool_works(group: str, pool: LogicalVolume) -> None:
    """Refuse to change anything in a pool that is in trouble. Raises: BackendError."""
    if pool.health:
        raise BackendError(f"{group}/{pool.name} is in trouble: {pool.health}; see lvmthin(7).")
    if pool.metadata_percent > _METADATA_LIMIT_PERCENT:
        free = int(pool.metadata_bytes * (100 - pool.metadata_percent) / 100)
        needed = int(pool.metadata_bytes * (100 - _METADATA_LIMIT_PERCENT) / 100)
        raise OutOfSpace(f"The metadata of {group}/{pool.name}", needed, free)


def require_pool_room(settings: LvmSettings, pool: LogicalVolume) -> None:
    """Refuse to add to a pool that is nearly full. Raises: OutOfSpace, BackendError."""
    require_pool_works(settings.volume_group, pool)
    reserve = settings.reserve_bytes
    if reserve is None:
        reserve = int(pool.size_bytes * _RESERVE_PERCENT / 100)
    if (free := free_of(pool)) < reserve:
        raise OutOfSpace(
            f"{settings.volume_group}/{pool.name}, which is nearly full", reserve, free
        )


def require_extents(settings: LvmSettings, group: VolumeGroup, more_bytes: int) -> None:
    """Refuse what the group has no extents for. Raises: OutOfSpace."""
    needed = more_bytes + (settings.reserve_bytes or 0)
    if needed > group.free_bytes:
        raise OutOfSpace(group.name, needed, group.free_bytes)
