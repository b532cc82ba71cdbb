"""The storage driver: where the bytes of volumes and snapshots live. Version 1 of the protocol.

A driver is policy-free and knows nothing of targets, requests or the database. An image is
one volume's or snapshot's bytes, named by the caller (``volume-UUID``, ``snapshot-UUID``).
Every verb is idempotent, says whether it changed anything, and leaves nothing half-made
under the image's name: a kill inside ``create`` or ``clone`` leaves at most a partial file
that :meth:`StorageDriver.sweep` removes.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lunport.core.change import Change
from lunport.core.chap import Chap
from lunport.core.target_path import TargetPath
from lunport.core.wwid import Wwid

PROTOCOL_VERSION = 1


@dataclass(frozen=True, slots=True)
class Capacity:
    """What the backend can hold, in bytes.

    ``provisioned_bytes`` is what all images would take if they were written in full; None where
    the driver does not count it. The percentages are a thin pool's.
    """

    total_bytes: int
    free_bytes: int
    provisioned_bytes: int | None = None
    is_thin: bool = True
    data_percent: float | None = None
    metadata_percent: float | None = None


@dataclass(frozen=True, slots=True)
class Offer:
    """How hosts reach an image that a target of somebody else's offers already.

    ``is_discovered``: there are more paths, which hosts find by discovery.
    """

    paths: tuple[TargetPath, ...]
    wwid: Wwid
    chap: Chap | None
    is_discovered: bool = False


@dataclass(frozen=True, slots=True)
class Image:
    """Where an image can be opened, and how long it is; or, with an ``offer``, only its name."""

    path: Path
    size_bytes: int
    offer: Offer | None = None


class StorageDriver(Protocol):
    """What a backend's driver does. Third parties implement this."""

    protocol_version: int

    @property
    def copies_atomically(self) -> bool:
        """Tell whether a copy shows its source at one point in time, even while it is written."""

    @property
    def grows_open_with_snapshots(self) -> bool:
        """Tell whether ``extend`` takes an image that is open and has snapshots."""

    def check(self) -> None:
        """Verify that the backend can be used at all. Raises: InvalidConfig, BackendError."""

    def capacity(self) -> Capacity:
        """Tell total and free space now. Raises: BackendError."""

    def create(self, image: str, size_bytes: int) -> Change:
        """Make an image that reads as zeros. Raises: OutOfSpace, AlreadyExists (other size)."""

    def clone(self, image: str, source: str, size_bytes: int) -> Change:
        """Make an image with the source's bytes, zeros behind them.

        Precondition: ``size_bytes`` is at least the source's size.
        Raises: OutOfSpace, ImageMissing.
        """

    def snapshot(self, image: str, source: str) -> Change:
        """Make a read-only image of the source as it is now. Raises: OutOfSpace, ImageMissing."""

    def extend(self, image: str, size_bytes: int) -> Change:
        """Grow an image; never shrinks. Raises: OutOfSpace, ImageMissing, InvalidInput."""

    def revert(self, image: str, snapshot: str) -> Change:
        """Give an image the bytes of a snapshot of it; the snapshot stays.

        Precondition: nobody has the image open, and both have the same size. Where the bytes
        are copied in place, a kill leaves a mixture until the same call is made again.
        Raises: ImageMissing, InvalidInput (other size), OutOfSpace, BackendError.
        """

    def delete(self, image: str) -> Change:
        """Remove an image; one that is not there is ``UNCHANGED``.

        Snapshots go before what they are of. Raises: BackendError (among others: it is open),
        Unavailable (``stop`` said so; the image is gone, its bytes wait to be cleared).
        """

    def locate(self, image: str) -> Image:
        """Tell where an image can be opened now, cheaply: each use of one asks.

        One that a reboot left inactive is activated. Raises: ImageMissing.
        """

    def images(self) -> frozenset[str]:
        """List the names of the images that exist."""

    def sweep(self, known: Collection[str]) -> tuple[str, ...]:
        """Remove what killed operations left half-made; never an image that is whole.

        ``known`` are the images that the database implies. Returns what was removed.
        """
