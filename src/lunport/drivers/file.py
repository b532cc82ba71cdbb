"""Images as sparse files in one folder.

A file is written as ``.partial-NAME`` and linked to ``NAME`` when it is whole and on disk, so
whoever sees the name sees all of it; what a kill leaves behind is swept. Space is promised
beyond what there is, up to ``over_subscription_ratio`` times the file system (Cinder's name
and default), but nothing is begun that cannot be held now.

The folder belongs to one service: the promised bytes are counted once and then kept.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import threading
from collections.abc import Callable, Collection, Iterator
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
from lunport.drivers.driver import PROTOCOL_VERSION, Capacity, Image
from lunport.host.sparse_file import (
    CopyStopped,
    copy_data,
    new_file,
    open_to_read,
    publish,
    reflink,
    sync_folder,
)

DEFAULT_RATIO = 20.0
DEFAULT_RESERVE_BYTES = 16 << 20
_NAME = re.compile(r"(?:volume|snapshot)-[0-9a-zA-Z-]{1,64}")
_PARTIAL = ".partial-"
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def _never() -> bool:
    return False


class FileDriver:
    """The storage driver over a folder. Safe to use from several threads."""

    protocol_version = PROTOCOL_VERSION
    grows_open_with_snapshots = True

    def __init__(
        self,
        folder: Path,
        *,
        over_subscription_ratio: float = DEFAULT_RATIO,
        reserve_bytes: int = DEFAULT_RESERVE_BYTES,
        stop: Callable[[], bool] = _never,
    ) -> None:
        """Keep images in ``folder``; ``stop`` is asked between the chunks of a copy."""
        if over_subscription_ratio < 1:
            raise InvalidConfig("over_subscription_ratio", over_subscription_ratio, "at least 1")
        if reserve_bytes < 0:
            raise InvalidConfig("reserve_bytes", reserve_bytes, "at least 0")
        self._folder = folder
        self._ratio = over_subscription_ratio
        self._reserve_bytes = reserve_bytes
        self._stop = stop
        self._lock = threading.Lock()
        self._in_work: set[str] = set()
        self._promised_bytes: int | None = None
        self._has_reflinks: bool | None = None

    @property
    def copies_atomically(self) -> bool:
        """Tell whether the file system has reflinks: they show the source at one moment."""
        if self._has_reflinks is None:
            self._has_reflinks = self._try_reflink()
        return bool(self._has_reflinks)

    def check(self) -> None:
        """Make the folder if need be, and verify that files can be made in it.

        Raises: InvalidConfig.
        """
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise InvalidConfig("directory", str(self._folder), _say(error)) from error
        self._has_reflinks = self._try_reflink()

    def capacity(self) -> Capacity:
        """Tell total and free space now."""
        with self._translated():
            found = os.statvfs(self._folder)
        return Capacity(found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize)

    def create(self, image: str, size_bytes: int) -> Change:
        """Make an image that reads as zeros."""
        final = self._path(image)
        _check_size(size_bytes)
        if self._is_there(image, size_bytes):
            return Change.UNCHANGED
        with self._making(image, size_bytes) as partial, new_file(partial) as target:
            os.ftruncate(target, size_bytes)
            os.fsync(target)
            publish(partial, final)
        return Change.CHANGED

    def clone(self, image: str, source: str, size_bytes: int) -> Change:
        """Make an image with the source's bytes, zeros behind them.

        Raises as well: Unavailable (``stop`` said so; nothing is left).
        """
        _check_size(size_bytes)
        return self._clone(image, source, size_bytes, mode=0o600)

    def snapshot(self, image: str, source: str) -> Change:
        """Make a read-only image of the source as it is now."""
        return self._clone(image, source, self.locate(source).size_bytes, mode=0o400)

    def extend(self, image: str, size_bytes: int) -> Change:
        """Grow an image; never shrinks."""
        path = self._path(image)
        now = self.locate(image).size_bytes
        if size_bytes < now:
            raise InvalidInput("size", size_bytes, f"{image} has {now} bytes and does not shrink")
        if size_bytes == now:
            return Change.UNCHANGED
        with self._promised(size_bytes - now), self._translated(size_bytes - now):
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                os.ftruncate(descriptor, size_bytes)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        return Change.CHANGED

    def revert(self, image: str, snapshot: str) -> Change:
        """Give an image the bytes of a snapshot: a copy of it takes the image's place at once.

        Raises as well: Unavailable (``stop`` said so; the image is as it was).
        """
        final, kept = self._path(image), self.locate(snapshot)
        now = self.locate(image)
        if now.size_bytes != kept.size_bytes:
            reason = f"{image} has {now.size_bytes} bytes, {snapshot} {kept.size_bytes}"
            raise InvalidInput("snapshot", snapshot, reason)
        with (
            self._making(image, 0, copied_bytes=_allocated(kept.path)) as partial,
            open_to_read(kept.path) as from_file,
            new_file(partial) as to_file,
        ):
            self._share_or_copy(from_file, to_file, kept.path, image)
            os.ftruncate(to_file, kept.size_bytes)
            os.fsync(to_file)
            partial.replace(final)
            sync_folder(self._folder)
        return Change.CHANGED

    def delete(self, image: str) -> Change:
        """Remove an image, and what is half-made of it."""
        path = self._path(image)
        with self._translated():
            self._partial(image).unlink(missing_ok=True)
            try:
                size_bytes = path.lstat().st_size
                path.unlink()
            except FileNotFoundError:
                # Without its folder (which may be mounted again) nobody knows.
                self._folder.stat()
                return Change.UNCHANGED
            sync_folder(self._folder)
        self._count(-size_bytes)
        return Change.CHANGED

    def locate(self, image: str) -> Image:
        """Tell where an image is."""
        path = self._path(image)
        with self._translated():
            try:
                found = path.lstat()
            except FileNotFoundError:
                raise ImageMissing(str(path)) from None
        if not stat.S_ISREG(found.st_mode):
            raise BackendError(f"{path} is not a regular file.")
        return Image(path, found.st_size)

    def images(self) -> frozenset[str]:
        """List the names of the images that exist."""
        with self._translated():
            names = [path.name for path in self._folder.iterdir()]
        return frozenset(name for name in names if _NAME.fullmatch(name))

    def sweep(self, known: Collection[str]) -> tuple[str, ...]:
        """Remove half-made files that nobody works on any more. Whole images stay."""
        del known
        with self._translated(), self._lock:
            left = [
                path
                for path in self._folder.glob(f"{_PARTIAL}*")
                if path.name.removeprefix(_PARTIAL) not in self._in_work
            ]
            for path in left:
                path.unlink(missing_ok=True)
        return tuple(sorted(path.name for path in left))

    # -- copying -------------------------------------------------------------------------

    def _clone(self, image: str, source: str, size_bytes: int, *, mode: int) -> Change:
        final = self._path(image)
        origin = self.locate(source)
        if size_bytes < origin.size_bytes:
            raise InvalidInput("size", size_bytes, f"{source} has {origin.size_bytes} bytes")
        if self._is_there(image, size_bytes):
            return Change.UNCHANGED
        with (
            self._making(image, size_bytes, copied_bytes=_allocated(origin.path)) as partial,
            open_to_read(origin.path) as from_file,
            new_file(partial) as to_file,
        ):
            self._share_or_copy(from_file, to_file, origin.path, image)
            os.ftruncate(to_file, size_bytes)
            os.fchmod(to_file, mode)
            os.fsync(to_file)
            publish(partial, final)
        return Change.CHANGED

    def _share_or_copy(self, from_file: int, to_file: int, source: Path, image: str) -> None:
        if reflink(from_file, to_file):
            return
        self._require_free(_allocated(source))
        try:
            copy_data(from_file, to_file, self._stop)
        except CopyStopped:
            raise Unavailable(f"The copy to {image} was stopped; nothing of it is left.") from None

    def _try_reflink(self) -> bool | None:
        """Make two files and let one share the other's block; None when the disk is full."""
        trials = [self._folder / f"{_PARTIAL}check-{os.getpid()}-{number}" for number in (1, 2)]
        try:
            for trial in trials:
                trial.unlink(missing_ok=True)
            with new_file(trials[0]) as source, new_file(trials[1]) as target:
                os.write(source, bytes(4096))
                return reflink(source, target)
        except OSError as error:
            if error.errno in _FULL:
                return None
            raise InvalidConfig("directory", str(self._folder), _say(error)) from error
        finally:
            for trial in trials:
                trial.unlink(missing_ok=True)

    # -- names ---------------------------------------------------------------------------

    def _path(self, image: str) -> Path:
        if not _NAME.fullmatch(image):
            raise InvalidInput("image name", image, "expected volume-UUID or snapshot-UUID")
        return self._folder / image

    def _partial(self, image: str) -> Path:
        return self._folder / f"{_PARTIAL}{image}"

    def _is_there(self, image: str, size_bytes: int) -> bool:
        try:
            found = self.locate(image).size_bytes
        except ImageMissing:
            return False
        if found != size_bytes:
            raise AlreadyExists("Image", f"{image} of {found} bytes")
        return True

    # -- space and errors ----------------------------------------------------------------

    @contextlib.contextmanager
    def _making(self, image: str, size_bytes: int, *, copied_bytes: int = 0) -> Iterator[Path]:
        """Reserve the name and the space for a new image; all is given back on an error."""
        partial = self._partial(image)
        with self._lock:
            if image in self._in_work:
                raise AlreadyExists("Image", f"{image}, which is being made now,")
            self._in_work.add(image)
        try:
            with self._translated(copied_bytes or size_bytes), self._promised(size_bytes):
                self._require_free(0)
                partial.unlink(missing_ok=True)
                yield partial
        finally:
            with self._lock:
                self._in_work.discard(image)

    @contextlib.contextmanager
    def _promised(self, more_bytes: int) -> Iterator[None]:
        """Count bytes as promised, unless what comes of it fails. Raises: OutOfSpace."""
        limit = int(self.capacity().total_bytes * self._ratio)
        with self._lock:
            if self._promised_bytes is None or self._promised_bytes + more_bytes > limit:
                # Files may have been taken away by hand: count again before refusing.
                self._promised_bytes = self._count_anew()
            if self._promised_bytes + more_bytes > limit:
                left = max(0, limit - self._promised_bytes)
                raise OutOfSpace(str(self._folder), more_bytes, left)
            self._promised_bytes += more_bytes
        try:
            yield
        except BaseException:
            self._count(-more_bytes)
            raise

    def _count(self, more_bytes: int) -> None:
        with self._lock:
            if self._promised_bytes is not None:
                self._promised_bytes = max(0, self._promised_bytes + more_bytes)

    def _count_anew(self) -> int:
        total = 0
        with os.scandir(self._folder) as entries:
            for entry in entries:
                if _NAME.fullmatch(entry.name):
                    with contextlib.suppress(FileNotFoundError):
                        total += entry.stat(follow_symlinks=False).st_size
        return total

    def _require_free(self, needed_bytes: int) -> None:
        free_bytes = self.capacity().free_bytes
        if needed_bytes + self._reserve_bytes > free_bytes:
            raise OutOfSpace(str(self._folder), needed_bytes + self._reserve_bytes, free_bytes)

    @contextlib.contextmanager
    def _translated(self, needed_bytes: int = 0) -> Iterator[None]:
        """Turn what the kernel says into errors of the tree: the one border of this driver."""
        try:
            yield
        except OSError as error:
            if error.errno in _FULL:
                free_bytes = self.capacity().free_bytes
                raise OutOfSpace(str(self._folder), needed_bytes, free_bytes) from error
            if isinstance(error, FileExistsError):
                raise AlreadyExists("Image", str(error.filename2 or error.filename)) from error
            raise BackendError(f"{error.filename or self._folder}: {_say(error)}") from error


def _allocated(path: Path) -> int:
    return path.stat().st_blocks * 512


def _check_size(size_bytes: int) -> None:
    if size_bytes <= 0 or size_bytes % 512:
        raise InvalidInput("size", size_bytes, "expected a positive multiple of 512 bytes")


def _say(error: OSError) -> str:
    return error.strerror or str(error)
