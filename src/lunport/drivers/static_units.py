"""Units that somebody else administers, as they are declared, and which image has which.

    {"naa.6001405...": {"image": "volume-0f0e...", "size_bytes": 10737418240, "phase": "used"}}

The declaration is the configuration's and never written here. What is kept, in one small file
of the backend's folder, is who has what: without it a unit could be given to two volumes. Pure
but for :class:`Assignments`, which reads and writes that file.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lunport.core.chap import Chap
from lunport.core.errors import BackendError
from lunport.core.target_path import TargetPath
from lunport.core.wwid import Wwid
from lunport.host.durable_file import write_durably


@dataclass(frozen=True, slots=True)
class StaticUnit:
    """One declared unit. ``paths`` in the order in which hosts shall try them.

    ``wwid`` None: the identity that it showed when it was given to a volume counts.
    """

    paths: tuple[TargetPath, ...]
    size_gib: int
    wwid: Wwid | None = None
    chap: Chap | None = None

    @property
    def key(self) -> str:
        """What it is known by, whatever its place in the list is: its main path."""
        return str(self.paths[0])


class Phase(enum.StrEnum):
    """What an image has of its unit."""

    USED = "used"
    WIPING = "wiping"


@dataclass(frozen=True, slots=True)
class Assignment:
    """An image on a unit; ``size_bytes`` and ``wwid`` as the unit told them then."""

    image: str
    size_bytes: int
    wwid: Wwid
    phase: Phase = Phase.USED


def choose_unit(
    units: Mapping[str, StaticUnit], taken: Mapping[str, Assignment], size_gib: int
) -> StaticUnit | None:
    """Choose the first free unit of exactly that size; None when there is none."""
    for key, unit in units.items():
        if key not in taken and unit.size_gib == size_gib:
            return unit
    return None


def describe_free(units: Mapping[str, StaticUnit], taken: Mapping[str, Assignment]) -> str:
    """Say what is free: ``2 of 10 GiB, 1 of 50 GiB``."""
    sizes = sorted(unit.size_gib for key, unit in units.items() if key not in taken)
    counted = {size: sizes.count(size) for size in sizes}
    return ", ".join(f"{count} of {size} GiB" for size, count in counted.items()) or "none"


@dataclass(frozen=True, slots=True)
class Assignments:
    """The file that says which image has which unit. The caller keeps writers apart."""

    file: Path

    def read(self) -> dict[str, Assignment]:
        """Read all, by the unit's key. Raises: BackendError (it is damaged)."""
        try:
            document = json.loads(self.file.read_text(encoding="utf-8"))
            return {
                key: Assignment(
                    image=one["image"],
                    size_bytes=int(one["size_bytes"]),
                    wwid=Wwid(one["wwid"]),
                    phase=Phase(one["phase"]),
                )
                for key, one in document.items()
            }
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise BackendError(f"{self.file} cannot be read: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BackendError(
                f"{self.file} is damaged ({error}); it says which unit belongs to which volume: "
                "restore it from a backup"
            ) from error

    def write(self, assignments: Mapping[str, Assignment]) -> None:
        """Replace all, durably. Raises: BackendError."""
        document = {
            key: {
                "image": one.image,
                "size_bytes": one.size_bytes,
                "wwid": one.wwid,
                "phase": one.phase,
            }
            for key, one in sorted(assignments.items())
        }
        try:
            write_durably(self.file, json.dumps(document, indent=1) + "\n")
        except OSError as error:
            raise BackendError(f"{self.file} cannot be written: {error.strerror}") from error
