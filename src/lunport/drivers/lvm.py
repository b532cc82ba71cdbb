"""Images as logical volumes of one volume group, thin or thick.

Thin: the images share a pool, as much is promised as ``over_subscription_ratio`` times the
pool, and what would need a pool that is nearly full is refused while the volumes in it still
work. Snapshots and clones share blocks. Thick: every image has its extents from the start, a
snapshot those for all that may be overwritten; clones are copied, from a snapshot taken for
it. What kind an image is, LVM knows: a group may hold both.

An image appears under its name by one step of LVM's, a creation or a renaming, once it is
whole. Until then, and from the begin of its end, it has a hidden name
(:mod:`lunport.drivers.lvm_names`), and :meth:`LvmDriver.sweep` knows what to do with each. A
thick volume's blocks are cleared after it lost its name and before LVM may give them away; a
kill in between loses only the time. The group belongs to one service.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from lunport.core.change import Change
from lunport.core.errors import (
    AlreadyExists,
    BackendError,
    ImageMissing,
    InvalidConfig,
    InvalidInput,
    OutOfSpace,
    Unavailable,
)
from lunport.core.size import GIB
from lunport.drivers.driver import PROTOCOL_VERSION, Capacity, Image
from lunport.drivers.lvm_group import (
    LvmSettings,
    check_host_filter,
    check_pool,
    choose_kind,
    open_group,
    present,
    wait_until_closed,
)
from lunport.drivers.lvm_names import (
    Hidden,
    hidden_names,
    image_name,
    names_with_leftovers,
    stored_name,
)
from lunport.drivers.lvm_space import (
    free_of,
    promised_of,
    require_extents,
    require_pool_room,
    require_pool_works,
    store_bytes,
)
from lunport.host import block_device
from lunport.host.block_device import Pace, WorkStopped
from lunport.host.lvm import LogicalVolume, Lvm, VolumeGroup

_LOG = logging.getLogger(__name__)
_MIB = 1 << 20
_CLEAR: Mapping[str, Callable[[Path, int, Pace], None] | None] = {
    "zero": block_device.zero,
    "discard": block_device.discard,
    "none": None,
}


def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class _Ready:
    """What :meth:`LvmDriver.check` found."""

    lvm: Lvm
    is_thin: bool


class LvmDriver:
    """The storage driver over a volume group. Safe to use from several threads."""

    protocol_version = PROTOCOL_VERSION
    copies_atomically = True

    def __init__(self, settings: LvmSettings, *, stop: Callable[[], bool] = _never) -> None:
        """Keep images in a group; ``stop`` is asked between the chunks of long work."""
        self.settings = settings
        self._stop = stop
        self._lock = threading.Lock()  # from the look at free space to its use
        self._ready: _Ready | None = None
        self._promised_bytes: int | None = None

    @property
    def grows_open_with_snapshots(self) -> bool:
        """Tell whether it makes thin volumes; an older thick one is refused by ``extend``."""
        return self._use().is_thin

    def check(self) -> None:
        """Verify group, pool and the host's filter; make the pool, activate what is inactive.

        Raises: InvalidConfig, BackendError.
        """
        with self._lock:
            self._ready = None
            self._promised_bytes = None
            lvm = open_group(self.settings)
            group = lvm.read_group()
            if GIB % group.extent_bytes:
                raise InvalidConfig(
                    "volume_group", group.name, f"its extents of {group.extent_bytes} bytes "
                    "do not divide 1 GiB, which volumes are multiples of",
                )  # fmt: skip
            check_host_filter(self.settings, lvm)
            is_thin = choose_kind(self.settings, lvm, group)
            if is_thin:
                check_pool(self.settings, lvm)
            self._ready = _Ready(lvm, is_thin)
            asleep = [
                one.name
                for one in lvm.volumes().values()
                if not one.is_active and one.name.startswith("volume-")
            ]
            if asleep:
                _LOG.info("volumes_activated count=%d group=%s", len(asleep), group.name)
                lvm.activate(*asleep)

    def capacity(self) -> Capacity:
        """Tell the space of the pool, or of the group."""
        ready = self._use()
        if ready.is_thin:
            found = ready.lvm.volumes()
            pool = self._pool(ready, found)
            return Capacity(
                pool.size_bytes,
                free_of(pool),
                provisioned_bytes=promised_of(found, pool.name),
                data_percent=pool.data_percent,
                metadata_percent=pool.metadata_percent,
            )
        group = ready.lvm.read_group()
        used = group.size_bytes - group.free_bytes
        return Capacity(group.size_bytes, group.free_bytes, provisioned_bytes=used, is_thin=False)

    def create(self, image: str, size_bytes: int) -> Change:
        """Make an image that reads as zeros, of whole extents."""
        name = stored_name(image)
        _check_size(size_bytes)
        ready = self._use()
        with self._lock:
            ready, group, found = self._look(ready, name, Hidden.NEW + name)
            size_bytes = group.round_up(size_bytes)
            if _is_there(image, found.get(name), size_bytes):
                return Change.UNCHANGED
            if ready.is_thin:
                self._require_thin(ready, self._pool(ready, found), size_bytes)
                ready.lvm.make_thin(name, size_bytes, self.settings.pool_name)
                self._count(size_bytes)
                return Change.CHANGED
            self._make_thick(ready, group, found, Hidden.NEW + name, size_bytes)
            ready.lvm.rename(Hidden.NEW + name, name)
        return Change.CHANGED

    def clone(self, image: str, source: str, size_bytes: int) -> Change:
        """Make an image with the source's bytes, zeros behind them.

        Raises as well: Unavailable (``stop`` said so), and the copy is begun anew next time.
        """
        name, origin_name = stored_name(image), stored_name(source)
        _check_size(size_bytes)
        ready = self._use()
        with self._lock:
            ready, group, found = self._look(ready, name, origin_name, *hidden_names(name))
            origin = present(ready.lvm, found, origin_name)
            size_bytes = group.round_up(size_bytes)
            if size_bytes < origin.size_bytes:
                raise InvalidInput("size", size_bytes, f"{source} has {origin.size_bytes} bytes")
            if _is_there(image, found.get(name), size_bytes):
                return Change.UNCHANGED
            if origin.is_thin:
                self._require_thin(ready, self._pool(ready, found, origin.pool), size_bytes)
                self._share(ready, found, name, origin, size_bytes)
                self._count(size_bytes)
                return Change.CHANGED
            source_name = self._prepare_copy(ready, group, found, name, origin, size_bytes)
        self._copy(ready, name, origin, source_name)
        ready.lvm.rename(Hidden.COPY + name, name)
        return Change.CHANGED

    def snapshot(self, image: str, source: str) -> Change:
        """Make a read-only image of the source as it is now."""
        name, origin_name = stored_name(image), stored_name(source)
        ready = self._use()
        with self._lock:
            ready, group, found = self._look(ready, name, origin_name, Hidden.NEW + name)
            origin = present(ready.lvm, found, origin_name)
            if _is_there(image, found.get(name), origin.size_bytes):
                return Change.UNCHANGED
            if origin.is_thin:
                self._require_thin(ready, self._pool(ready, found, origin.pool), origin.size_bytes)
                ready.lvm.take_thin_snapshot(name, origin.name, read_only=True)
                self._count(origin.size_bytes)
                return Change.CHANGED
            hidden = Hidden.NEW + name
            require_extents(self.settings, group, store_bytes(group, origin.size_bytes))
            if hidden in found:
                self._remove(ready, found[hidden], is_blank=True)
            ready.lvm.take_thick_snapshot(hidden, origin.name)
            ready.lvm.rename(hidden, name)
        return Change.CHANGED

    def extend(self, image: str, size_bytes: int) -> Change:
        """Grow an image, open or not; a thick one with snapshots only while nobody has it open."""
        name = stored_name(image)
        ready = self._use()
        with self._lock:
            ready, group, found = self._look(ready, name)
            now = present(ready.lvm, found, name)
            if size_bytes < now.size_bytes:
                reason = f"{image} has {now.size_bytes} bytes and does not shrink"
                raise InvalidInput("size", size_bytes, reason)
            size_bytes = group.round_up(size_bytes)
            more_bytes = size_bytes - now.size_bytes
            if not more_bytes:
                return Change.UNCHANGED
            if now.is_thin:
                self._require_thin(ready, self._pool(ready, found, now.pool), more_bytes)
                ready.lvm.extend(name, size_bytes)
                self._count(more_bytes)
                return Change.CHANGED
            require_extents(self.settings, group, more_bytes)
            if not now.is_thick_origin:
                ready.lvm.extend(name, size_bytes)
                return Change.CHANGED
            self._extend_origin(ready, now, size_bytes)
        return Change.CHANGED

    def revert(self, image: str, snapshot: str) -> Change:
        """Give an image the bytes of a snapshot of it.

        Thin: a new image is made of the snapshot and takes the other's place. Thick: what
        differs is copied back; the snapshot keeps what it has.
        Raises as well: Unavailable (``stop`` said so; the same call goes on).
        """
        name, kept_name = stored_name(image), stored_name(snapshot)
        ready = self._use()
        with self._lock:
            ready, _, found = self._look(ready, name, kept_name, *hidden_names(name))
            found = self._put_back(ready, found, name)
            now = present(ready.lvm, found, name)
            kept = present(ready.lvm, found, kept_name)
            if now.size_bytes != kept.size_bytes:
                reason = f"{image} has {now.size_bytes} bytes, {snapshot} {kept.size_bytes}"
                raise InvalidInput("snapshot", snapshot, reason)
            now = wait_until_closed(ready.lvm, now, "reverted")
            if now.is_thin:
                require_pool_works(ready.lvm.group, self._pool(ready, found, now.pool))
                self._replace(ready, found, name, kept_name)
                return Change.CHANGED
            ready.lvm.activate(name, kept_name)
        with self._translated(image):
            written = block_device.copy_differences(
                ready.lvm.device(kept_name),
                ready.lvm.device(name),
                kept.size_bytes,
                self._pace(self.settings.copy_bytes_per_s),
            )
        return Change.CHANGED if written else Change.UNCHANGED

    def delete(self, image: str) -> Change:
        """Remove an image, and what is half-made or half-removed of it."""
        name = stored_name(image)
        ready = self._use()
        with self._lock:
            ready, _, found = self._look(ready, name, *hidden_names(name))
            was_there = any(
                one in found for one in (name, Hidden.OLD + name, Hidden.DELETING + name)
            )
            gone = found.get(name)
            if gone is not None:
                self._hide(ready, image, gone)
                if not gone.is_thin:
                    found = ready.lvm.find(hidden_names(name))
        for kind in Hidden:
            if kind + name in found:
                self._remove(ready, found[kind + name], is_blank=kind is Hidden.NEW)
        return Change.CHANGED if was_there else Change.UNCHANGED

    def locate(self, image: str) -> Image:
        """Tell where an image is: no process is started while it is active."""
        name = stored_name(image)
        path = Path("/dev") / self.settings.volume_group / name
        try:
            return Image(path, block_device.size_of(path))
        except OSError as error:
            if error.errno not in {errno.ENOENT, errno.ENXIO, errno.ENODEV}:
                raise BackendError(f"{path}: {error.strerror}") from error
        ready = self._use()
        if name not in ready.lvm.find([name]):
            raise ImageMissing(str(path))
        ready.lvm.activate(name)
        with self._translated(image):
            return Image(path, block_device.size_of(path))

    def images(self) -> frozenset[str]:
        """List the names of the images that exist."""
        found = map(image_name, self._use().lvm.volumes())
        return frozenset(image for image in found if image is not None)

    def sweep(self, known: Collection[str]) -> tuple[str, ...]:
        """Finish or undo what kills left; whole images stay.

        What was deleted or copied to may take long to clear: where the image is known, its own
        operation comes back and does it.
        """
        ready = self._use()
        swept: list[str] = []
        with self._lock:
            ready = self._look(ready)[0]
            found = ready.lvm.volumes()
            for name in sorted(names_with_leftovers(found)):
                found = self._put_back(ready, found, name)
                later = image_name(name) in known
                for kind in Hidden:
                    left = found.get(kind + name)
                    if left is None or (later and kind in {Hidden.COPY, Hidden.DELETING}):
                        continue
                    self._remove(ready, left, is_blank=kind is Hidden.NEW)
                    swept.append(left.name)
        return tuple(swept)

    # -- looking ---------------------------------------------------------------------------

    def _use(self) -> _Ready:
        ready = self._ready
        if ready is None:
            self.check()
            ready = self._ready
            assert ready is not None
        return ready

    def _look(
        self, ready: _Ready, *names: str
    ) -> tuple[_Ready, VolumeGroup, Mapping[str, LogicalVolume]]:
        pool = [self.settings.pool_name] if ready.is_thin else []
        group, found = ready.lvm.look([*names, *pool])
        if group.missing_disks:
            # A disk was added to the group since the start.
            ready = self._ready = _Ready(open_group(self.settings), ready.is_thin)
            group, found = ready.lvm.look([*names, *pool])
        if group.missing_disks:
            raise BackendError(f"{group.missing_disks} disks of {group.name} are missing.")
        return ready, group, found

    def _pool(
        self, ready: _Ready, found: Mapping[str, LogicalVolume], name: str = ""
    ) -> LogicalVolume:
        name = name or self.settings.pool_name
        pool = found.get(name) or ready.lvm.find([name]).get(name)
        if pool is None:
            raise BackendError(f"{ready.lvm.group}/{name} is gone.")
        return pool

    # -- space -----------------------------------------------------------------------------

    def _require_thin(self, ready: _Ready, pool: LogicalVolume, more_bytes: int) -> None:
        """Refuse what the pool cannot promise, or what may soon break all that is in it."""
        limit = int(pool.size_bytes * self.settings.over_subscription_ratio)
        if self._promised_bytes is None or self._promised_bytes + more_bytes > limit:
            # Images may have been taken away by hand: count again before refusing.
            self._promised_bytes = promised_of(ready.lvm.volumes(), pool.name)
        if self._promised_bytes + more_bytes > limit:
            left = max(0, limit - self._promised_bytes)
            raise OutOfSpace(f"{ready.lvm.group}/{pool.name}", more_bytes, left)
        require_pool_room(self.settings, pool)

    def _count(self, more_bytes: int) -> None:
        if self._promised_bytes is not None:
            self._promised_bytes = max(0, self._promised_bytes + more_bytes)

    # -- making ----------------------------------------------------------------------------

    def _make_thick(
        self,
        ready: _Ready,
        group: VolumeGroup,
        found: Mapping[str, LogicalVolume],
        hidden: str,
        size_bytes: int,
        and_bytes: int = 0,
    ) -> None:
        """Make a volume under a hidden name, or take the one that a kill left there.

        ``and_bytes``: what else must be free.
        """
        left = found.get(hidden)
        if left is not None and left.size_bytes == size_bytes and not left.is_thin:
            require_extents(self.settings, group, and_bytes)
            ready.lvm.activate(hidden)
            return
        if left is not None:
            self._remove(ready, left, is_blank=hidden.startswith(Hidden.NEW))
            group = ready.lvm.read_group()
        require_extents(self.settings, group, size_bytes + and_bytes)
        ready.lvm.make_thick(hidden, size_bytes)

    def _share(
        self,
        ready: _Ready,
        found: Mapping[str, LogicalVolume],
        name: str,
        origin: LogicalVolume,
        size_bytes: int,
    ) -> None:
        """Make a thin image of another one's blocks; a larger one grows under a hidden name."""
        if size_bytes == origin.size_bytes:
            ready.lvm.take_thin_snapshot(name, origin.name, read_only=False)
            return
        hidden = Hidden.NEW + name
        if hidden in found:
            ready.lvm.remove(hidden)
        ready.lvm.take_thin_snapshot(hidden, origin.name, read_only=False)
        ready.lvm.extend(hidden, size_bytes)
        ready.lvm.rename(hidden, name)

    def _prepare_copy(
        self,
        ready: _Ready,
        group: VolumeGroup,
        found: Mapping[str, LogicalVolume],
        name: str,
        origin: LogicalVolume,
        size_bytes: int,
    ) -> str:
        """Make the target of a copy, and what it is read from; return that one's name."""
        source, target = Hidden.SOURCE + name, Hidden.COPY + name
        if source in found:
            self._remove(ready, found[source], is_blank=False)
            group = ready.lvm.read_group()
        store = 0 if origin.is_thick_snapshot else store_bytes(group, origin.size_bytes)
        if ready.is_thin:
            if target in found:
                ready.lvm.remove(target)
            require_extents(self.settings, group, store)
            self._require_thin(ready, self._pool(ready, found), size_bytes)
            ready.lvm.make_thin(target, size_bytes, self.settings.pool_name)
            self._count(size_bytes)
        else:
            self._make_thick(ready, group, found, target, size_bytes, and_bytes=store)
        if origin.is_thick_snapshot:
            ready.lvm.activate(origin.name)
            return origin.name
        ready.lvm.take_thick_snapshot(source, origin.name)
        return source

    def _copy(self, ready: _Ready, name: str, origin: LogicalVolume, source_name: str) -> None:
        """Copy to the hidden volume; what was taken to copy from goes in any case."""
        try:
            with self._translated(image_name(name) or name):
                block_device.copy(
                    ready.lvm.device(source_name),
                    ready.lvm.device(Hidden.COPY + name),
                    origin.size_bytes,
                    self._pace(self.settings.copy_bytes_per_s),
                    onto_zeros=ready.is_thin,
                )
        finally:
            taken = ready.lvm.find([source_name]).get(source_name)
            if taken is not None and source_name != origin.name:
                self._remove(ready, taken, is_blank=False)

    def _extend_origin(self, ready: _Ready, now: LogicalVolume, size_bytes: int) -> None:
        """Grow a thick volume with snapshots, which LVM does only while all are inactive."""
        family = [
            one
            for one in ready.lvm.volumes().values()
            if one.name == now.name or (one.is_thick_snapshot and one.origin == now.name)
        ]
        for one in family:
            wait_until_closed(
                ready.lvm, one, "extended: a thick volume with snapshots grows only while closed"
            )
        names = [one.name for one in family]
        ready.lvm.deactivate(*names)
        try:
            ready.lvm.extend(now.name, size_bytes)
        finally:
            ready.lvm.activate(*names)

    def _replace(
        self, ready: _Ready, found: Mapping[str, LogicalVolume], name: str, kept_name: str
    ) -> None:
        """Put a new thin image made of a snapshot in an image's place."""
        new, old = Hidden.NEW + name, Hidden.OLD + name
        if new in found:
            ready.lvm.remove(new)
        ready.lvm.take_thin_snapshot(new, kept_name, read_only=False)
        ready.lvm.rename(name, old)
        try:
            ready.lvm.rename(new, name)
        except BackendError:
            ready.lvm.rename(old, name)
            raise
        ready.lvm.remove(old)

    def _put_back(
        self, ready: _Ready, found: Mapping[str, LogicalVolume], name: str
    ) -> Mapping[str, LogicalVolume]:
        """Undo a replacement that a kill cut in two, or take away what was replaced."""
        old = found.get(Hidden.OLD + name)
        if old is None:
            return found
        rest = {key: one for key, one in found.items() if key != old.name}
        if name in found:
            ready.lvm.remove(old.name)
            return rest
        ready.lvm.rename(old.name, name)
        return rest | dict(ready.lvm.find([name]))

    # -- removing --------------------------------------------------------------------------

    def _hide(self, ready: _Ready, image: str, gone: LogicalVolume) -> None:
        """Take an image's name away; a thin one goes at once."""
        gone = wait_until_closed(ready.lvm, gone, "removed")
        if gone.is_thick_origin:
            raise BackendError(f"{image} has snapshots, which go before it.")
        if gone.is_thin:
            ready.lvm.remove(gone.name)
            self._count(-gone.size_bytes)
            return
        ready.lvm.rename(gone.name, Hidden.DELETING + gone.name)

    def _remove(self, ready: _Ready, left: LogicalVolume, *, is_blank: bool) -> None:
        """Clear a hidden volume as configured, and remove it. Raises: Unavailable."""
        if left.is_thin or (is_blank and not left.is_thick_snapshot):
            ready.lvm.remove(left.name)
            if left.is_thin:
                self._promised_bytes = None
            return
        length = left.stored_bytes
        if left.is_thick_snapshot:
            origin = ready.lvm.find([left.origin]).get(left.origin)
            if left.is_active and origin is not None and not origin.is_open:
                # It is filled from the front, and nobody writes now: the rest holds nothing.
                used = left.stored_bytes * (left.data_percent + 0.01) / 100
                length = min(length, int(used) + _MIB)
            # Its store is a volume of its own from now on.
            ready.lvm.split_snapshot(left.name)
        clear = _CLEAR[self.settings.volume_clear]
        if clear is not None:
            if left.is_read_only:  # what is split off a snapshot still is
                ready.lvm.make_writable(left.name)
            ready.lvm.activate(left.name)
            pace = self._pace(self.settings.clear_bytes_per_s)
            with self._translated(left.name):
                clear(ready.lvm.device(left.name), length // 512 * 512, pace)
        ready.lvm.remove(left.name)

    def _pace(self, bytes_per_s: int) -> Pace:
        return Pace(bytes_per_s, self._stop)

    @contextlib.contextmanager
    def _translated(self, image: str) -> Iterator[None]:
        """Turn what the kernel says of a device into errors of the tree."""
        try:
            yield
        except WorkStopped:
            raise Unavailable(f"The work on {image} was stopped; it goes on later.") from None
        except OSError as error:
            raise BackendError(f"{image}: {error.strerror or error}") from error


def _is_there(image: str, found: LogicalVolume | None, size_bytes: int) -> bool:
    if found is None:
        return False
    if found.size_bytes != size_bytes:
        raise AlreadyExists("Image", f"{image} of {found.size_bytes} bytes")
    return True


def _check_size(size_bytes: int) -> None:
    if size_bytes <= 0 or size_bytes % 512:
        raise InvalidInput("size", size_bytes, "expected a positive multiple of 512 bytes")
