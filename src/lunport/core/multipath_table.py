"""What the kernel says of a multipath map: its paths, and what happens when all are gone.

Two texts of one target, as DM_TABLE_STATUS gives them (drivers/md/dm-mpath.c,
``multipath_status``; Documentation/admin-guide/device-mapper/dm-queue-length.rst):

    status   2 0 0 0 1 1 A 0 2 2 8:0 A 0 0 1 8:16 F 3 0 1
    table    1 queue_if_no_path 1 alua 1 1 service-time 0 2 2 8:0 1 1 8:16 1 1

A status is: counted features, counted arguments of the hardware handler, the number of groups,
the next group; for each group its state, counted arguments of the selector, the number of
paths, and how many words of the selector follow each path; for each path its device number,
``A`` or ``F``, and how often it failed.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from lunport.core.errors import InvalidInput

_NUMBER = re.compile(r"[0-9]{1,9}", re.ASCII)
_DEVICE = re.compile(r"[0-9]{1,9}:[0-9]{1,9}", re.ASCII)
_QUEUES = "queue_if_no_path"
_USABLE = {"A": True, "F": False}


class GroupState(enum.StrEnum):
    """What a priority group is used for."""

    ACTIVE = "A"  # I/O goes over its paths
    ENABLED = "E"  # it may be used next
    DISABLED = "D"  # it is used only when no other is left


@dataclass(frozen=True, slots=True)
class MapPath:
    """One path. ``number``: "8:0". ``failures``: how often it was found failed."""

    number: str
    is_usable: bool
    failures: int = 0


@dataclass(frozen=True, slots=True)
class PathGroup:
    """Paths of one priority."""

    state: GroupState
    paths: tuple[MapPath, ...]


@dataclass(frozen=True, slots=True)
class MapStatus:
    """A map as it is now. ``queues``: I/O waits, rather than fails, when no path is usable."""

    queues: bool
    groups: tuple[PathGroup, ...]

    @property
    def paths(self) -> Mapping[str, bool]:
        """Whether each path is usable, by its device number."""
        return MappingProxyType(
            {path.number: path.is_usable for group in self.groups for path in group.paths}
        )

    @property
    def usable(self) -> tuple[str, ...]:
        """The device numbers of the usable paths."""
        return tuple(number for number, is_usable in self.paths.items() if is_usable)


def parse_map_status(status: str, table: str) -> MapStatus:
    """Read both texts of a map. Raises: InvalidInput."""
    # Quirk(kernel): the status of a multipath map does not say whether I/O is queued when no
    # path is left; its first number after the features is about something else (queue_io, while
    # a group is being initialised). The features of the table say it, as they are now.
    words = _Words("status of a multipath map", status)
    words.skip_counted()
    words.skip_counted()
    count = words.count()
    words.count()
    groups = tuple(_group(words) for _ in range(count))
    words.end()
    return MapStatus(_queues(table), groups)


def _group(words: _Words) -> PathGroup:
    try:
        state = GroupState(words.word())
    except ValueError:
        raise words.refuse("expected A, E or D as the state of a group") from None
    words.skip_counted()
    count, more = words.count(), words.count()
    return PathGroup(state, tuple(_path(words, more) for _ in range(count)))


def _path(words: _Words, more: int) -> MapPath:
    number, usable = words.word(), _USABLE.get(words.word())
    if usable is None or not _DEVICE.fullmatch(number):
        raise words.refuse("expected a path as MAJOR:MINOR and A or F")
    failures = words.count()
    words.skip(more)
    return MapPath(number, usable, failures)


def _queues(table: str) -> bool:
    words = _Words("table of a multipath map", table)
    return _QUEUES in [words.word() for _ in range(words.count())]


class _Words:
    """The words of a text, from left to right."""

    def __init__(self, what: str, text: str) -> None:
        self._what = what
        self._text = text
        self._words = text.split()
        self._at = 0

    def word(self) -> str:
        if self._at >= len(self._words):
            raise self.refuse("it ends too early")
        self._at += 1
        return self._words[self._at - 1]

    def count(self) -> int:
        word = self.word()
        if not _NUMBER.fullmatch(word):
            raise self.refuse(f"expected a number, not {word!r}")
        return int(word)

    def skip(self, count: int) -> None:
        if count > len(self._words) - self._at:
            raise self.refuse("it ends too early")
        self._at += count

    def skip_counted(self) -> None:
        self.skip(self.count())

    def end(self) -> None:
        if self._at != len(self._words):
            raise self.refuse("it goes on after its end")

    def refuse(self, reason: str) -> InvalidInput:
        return InvalidInput(self._what, self._text, reason)
