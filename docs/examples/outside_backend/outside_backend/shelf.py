"""The driver ``shelf``: each image is a file in a folder. Made from nothing but the protocol.

A file is written under another name and renamed when it is whole, so that a kill leaves no
half image under an image's name; :meth:`ShelfDriver.sweep` removes what it does leave.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import threading
from collections.abc import Collection, Iterator
from pathlib import Path

from lunport.core.change import Change
from lunport.core.errors import (
    AlreadyExists,
    BackendError,
    ImageMissing,
    InvalidConfig,
    InvalidInput,
    OutOfSpace,
)
from lunport.drivers.driver import PROTOCOL_VERSION, Capacity, Image
from lunport.drivers.registry import DriverSettings

_NAME = re.compile(r"(volume|snapshot)-[0-9a-zA-Z-]{1,64}")
_HALF = ".half-"


def make_shelf(settings: DriverSettings) -> ShelfDriver:
    """Make the driver from its options. Raises: InvalidConfig."""
    options = dict(settings.options)
    ratio = options.pop("promise", 1.0)
    if options:
        where, unknown = f"backend.{settings.backend}", ", ".join(sorted(options))
        raise InvalidConfig(where, unknown, "known option: promise")
    if isinstance(ratio, bool) or not isinstance(ratio, int | float) or ratio < 1:
        raise InvalidConfig(
            f"backend.{settings.backend}.driver_options.promise", ratio, "expected at least 1"
        )
    return ShelfDriver(settings.folder, float(ratio))


class ShelfDriver:
    """The driver. Several threads call it, never two of them about one image."""

    protocol_version = PROTOCOL_VERSION
    grows_open_with_snapshots = True
    copies_atomically = False  # a copy takes its time: the service does not copy what is written

    def __init__(self, folder: Path, ratio: float) -> None:
        """Keep images in ``folder``; promise ``ratio`` times what the file system holds."""
        self._folder = folder
        self._ratio = ratio
        self._space = threading.Lock()

    def check(self) -> None:
        """Make the folder. Raises: InvalidConfig."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise InvalidConfig("folder", str(self._folder), str(error)) from error

    def capacity(self) -> Capacity:
        """Ask the file system."""
        with _told():
            found = shutil.disk_usage(self._folder)
            return Capacity(found.total, found.free, self._promised())

    def create(self, image: str, size_bytes: int) -> Change:
        """Make a file without content, of that length: it reads as zeros."""
        _check_size(size_bytes)
        if self._is_there(image, size_bytes):
            return Change.UNCHANGED
        with _told(), self._space:
            self._require_promise(size_bytes)
            with self._half(image) as half, half.open("xb") as file:
                file.truncate(size_bytes)
        return Change.CHANGED

    def clone(self, image: str, source: str, size_bytes: int) -> Change:
        """Copy a file, and make it as long as asked."""
        _check_size(size_bytes)
        origin = self.locate(source)
        if size_bytes < origin.size_bytes:
            raise InvalidInput("size", size_bytes, f"{source} has {origin.size_bytes} bytes")
        if self._is_there(image, size_bytes):
            return Change.UNCHANGED
        with _told(), self._space:
            self._require_promise(size_bytes)
            with self._half(image) as half:
                shutil.copyfile(origin.path, half)
                os.truncate(half, size_bytes)
        return Change.CHANGED

    def snapshot(self, image: str, source: str) -> Change:
        """Copy it as it is now."""
        return self.clone(image, source, self.locate(source).size_bytes)

    def extend(self, image: str, size_bytes: int) -> Change:
        """Make the file longer."""
        now = self.locate(image)
        if size_bytes < now.size_bytes:
            raise InvalidInput("size", size_bytes, f"{image} has {now.size_bytes} bytes")
        if size_bytes == now.size_bytes:
            return Change.UNCHANGED
        with _told(), self._space:
            self._require_promise(size_bytes - now.size_bytes)
            os.truncate(now.path, size_bytes)
        return Change.CHANGED

    def revert(self, image: str, snapshot: str) -> Change:
        """Put a copy of the snapshot in the image's place."""
        now, kept = self.locate(image), self.locate(snapshot)
        if now.size_bytes != kept.size_bytes:
            reason = f"{image} has {now.size_bytes} bytes, {snapshot} {kept.size_bytes}"
            raise InvalidInput("snapshot", snapshot, reason)
        with _told(), self._half(image) as half:
            shutil.copyfile(kept.path, half)
        return Change.CHANGED

    def delete(self, image: str) -> Change:
        """Remove the file."""
        path = self._path(image)
        with _told():
            try:
                path.unlink()
            except FileNotFoundError:
                self._folder.stat()  # without the folder nobody knows
                return Change.UNCHANGED
        return Change.CHANGED

    def locate(self, image: str) -> Image:
        """Look at the file."""
        path = self._path(image)
        with _told():
            try:
                return Image(path, path.stat().st_size)
            except FileNotFoundError:
                raise ImageMissing(str(path)) from None

    def images(self) -> frozenset[str]:
        """List the whole files."""
        with _told():
            names = {path.name for path in self._folder.iterdir()}
        return frozenset(name for name in names if _NAME.fullmatch(name))

    def sweep(self, known: Collection[str]) -> tuple[str, ...]:
        """Remove the files that a kill left half-made. It runs before anything else does."""
        del known  # a whole image stays, known or not
        with _told():
            left = sorted(self._folder.glob(f"{_HALF}*"))
            for path in left:
                path.unlink(missing_ok=True)
        return tuple(path.name for path in left)

    # -- inside --------------------------------------------------------------------------

    def _path(self, image: str) -> Path:
        if not _NAME.fullmatch(image):
            raise InvalidInput("image name", image, "expected volume-UUID or snapshot-UUID")
        return self._folder / image

    def _is_there(self, image: str, size_bytes: int) -> bool:
        try:
            found = self.locate(image)
        except ImageMissing:
            return False
        if found.size_bytes != size_bytes:
            raise AlreadyExists("Image", f"{image} of {found.size_bytes} bytes")
        return True

    @contextlib.contextmanager
    def _half(self, image: str) -> Iterator[Path]:
        """Give the name to write under; afterwards it is the image, or nothing is left."""
        half = self._folder / f"{_HALF}{image}"
        try:
            yield half
            with half.open("rb") as file:
                os.fsync(file.fileno())
            half.replace(self._folder / image)
        finally:
            half.unlink(missing_ok=True)

    def _promised(self) -> int:
        return sum(self.locate(image).size_bytes for image in self.images())

    def _require_promise(self, more_bytes: int) -> None:
        """Refuse what goes beyond the promise, with the numbers. Raises: OutOfSpace."""
        left = int(shutil.disk_usage(self._folder).total * self._ratio) - self._promised()
        if more_bytes > left:
            raise OutOfSpace(str(self._folder), more_bytes, max(0, left))


def _check_size(size_bytes: int) -> None:
    if size_bytes <= 0 or size_bytes % 512:
        raise InvalidInput("size", size_bytes, "expected a positive multiple of 512 bytes")


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Turn what the kernel says into errors that the service knows: never an OSError outside."""
    try:
        yield
    except OSError as error:
        raise BackendError(f"{error.filename}: {error.strerror}") from error
