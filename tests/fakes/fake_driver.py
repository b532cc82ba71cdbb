"""A storage driver in memory, held to the same contract suite as the real ones.

``fail_next`` makes a verb fail once, before it does anything; ``calls`` records the verbs.
"""

from __future__ import annotations

import threading
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from lunport.core.change import Change
from lunport.core.errors import AlreadyExists, ImageMissing, InvalidInput, OutOfSpace
from lunport.drivers.driver import PROTOCOL_VERSION, Capacity, Image


@dataclass(slots=True)
class _Bytes:
    """A sparse run of bytes: what was written, by offset, and the length."""

    size_bytes: int
    written: dict[int, int] = field(default_factory=dict)


class FakeDriver:
    """Images in memory. Safe to use from several threads."""

    protocol_version = PROTOCOL_VERSION

    def __init__(
        self,
        total_bytes: int = 1 << 40,
        *,
        over_subscription_ratio: float = 20.0,
        copies_atomically: bool = True,
        grows_open_with_snapshots: bool = True,
    ) -> None:
        self._total_bytes = total_bytes
        self._ratio = over_subscription_ratio
        self._copies_atomically = copies_atomically
        self.grows_open_with_snapshots = grows_open_with_snapshots
        self._images: dict[str, _Bytes] = {}
        self._lock = threading.RLock()
        self.partials: set[str] = set()
        self.calls: list[str] = []
        self.fail_next: dict[str, Exception] = {}

    @property
    def copies_atomically(self) -> bool:
        """Tell what the test chose."""
        return self._copies_atomically

    def write(self, image: str, offset: int, content: bytes) -> None:
        """Write bytes into an image."""
        with self._lock:
            self._images[image].written.update(enumerate(content, offset))

    def read(self, image: str, offset: int, length: int) -> bytes:
        """Read bytes of an image."""
        with self._lock:
            written = self._images[image].written
            return bytes(written.get(offset + index, 0) for index in range(length))

    def check(self) -> None:
        """Find nothing wrong."""
        self._begin("check")

    def capacity(self) -> Capacity:
        """Tell total and free space; only written bytes take any."""
        self._begin("capacity")
        used = sum(len(one.written) for one in self._images.values())
        return Capacity(self._total_bytes, max(0, self._total_bytes - used))

    def create(self, image: str, size_bytes: int) -> Change:
        """Make an image that reads as zeros."""
        self._begin("create")
        with self._lock:
            return self._add(image, _Bytes(size_bytes))

    def clone(self, image: str, source: str, size_bytes: int) -> Change:
        """Make an image with the source's bytes, zeros behind them."""
        self._begin("clone")
        with self._lock:
            origin = self._find(source)
            if size_bytes < origin.size_bytes:
                raise InvalidInput("size", size_bytes, f"{source} is larger")
            return self._add(image, _Bytes(size_bytes, dict(origin.written)))

    def snapshot(self, image: str, source: str) -> Change:
        """Make a read-only image of the source as it is now."""
        self._begin("snapshot")
        with self._lock:
            origin = self._find(source)
            return self._add(image, _Bytes(origin.size_bytes, dict(origin.written)))

    def extend(self, image: str, size_bytes: int) -> Change:
        """Grow an image; never shrinks."""
        self._begin("extend")
        with self._lock:
            found = self._find(image)
            if size_bytes < found.size_bytes:
                raise InvalidInput("size", size_bytes, f"{image} does not shrink")
            if size_bytes == found.size_bytes:
                return Change.UNCHANGED
            self._require(size_bytes - found.size_bytes)
            found.size_bytes = size_bytes
            return Change.CHANGED

    def revert(self, image: str, snapshot: str) -> Change:
        """Give an image the bytes of a snapshot."""
        self._begin("revert")
        with self._lock:
            found, kept = self._find(image), self._find(snapshot)
            if found.size_bytes != kept.size_bytes:
                raise InvalidInput("snapshot", snapshot, f"{image} has another size")
            found.written = dict(kept.written)
            return Change.CHANGED

    def delete(self, image: str) -> Change:
        """Remove an image."""
        self._begin("delete")
        _check_name(image)
        with self._lock:
            gone = self._images.pop(image, None)
        return Change.UNCHANGED if gone is None else Change.CHANGED

    def locate(self, image: str) -> Image:
        """Tell where an image would be."""
        self._begin("locate")
        with self._lock:
            return Image(Path("/fake") / image, self._find(image).size_bytes)

    def images(self) -> frozenset[str]:
        """List the names of the images that exist."""
        with self._lock:
            return frozenset(self._images)

    def sweep(self, known: Collection[str]) -> tuple[str, ...]:
        """Forget the partial images that a test left."""
        del known
        self._begin("sweep")
        with self._lock:
            swept = tuple(sorted(self.partials))
            self.partials.clear()
        return swept

    def _begin(self, verb: str) -> None:
        self.calls.append(verb)
        error = self.fail_next.pop(verb, None)
        if error is not None:
            raise error

    def _add(self, image: str, content: _Bytes) -> Change:
        _check_name(image)
        if content.size_bytes <= 0 or content.size_bytes % 512:
            raise InvalidInput("size", content.size_bytes, "expected a multiple of 512")
        present = self._images.get(image)
        if present is not None:
            if present.size_bytes != content.size_bytes:
                raise AlreadyExists("Image", image)
            return Change.UNCHANGED
        self._require(content.size_bytes)
        self._images[image] = content
        return Change.CHANGED

    def _find(self, image: str) -> _Bytes:
        _check_name(image)
        if image not in self._images:
            raise ImageMissing(f"/fake/{image}")
        return self._images[image]

    def _require(self, more_bytes: int) -> None:
        promised = sum(one.size_bytes for one in self._images.values())
        limit = int(self._total_bytes * self._ratio)
        if promised + more_bytes > limit:
            raise OutOfSpace("/fake", more_bytes, limit - promised)


def _check_name(image: str) -> None:
    if not image.startswith(("volume-", "snapshot-")) or "/" in image:
        raise InvalidInput("image name", image, "expected volume-UUID or snapshot-UUID")
