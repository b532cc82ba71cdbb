"""How the paths of volumes look on a terminal: a table of volumes, below each a tree of paths.

    VOLUME       HOST  WWID              MAP   PATHS  STATE     SINCE
    web-01-data  kvm3  naa.600140…00a1f  dm-7  1/2    DEGRADED  00:03:12
    ├─ ● 10.0.1.2:3260  tcp  sid 12  sdc  live     02:14:00
    └─ ○ 10.0.2.2:3260  tcp  -       -    missing  00:03:12  no answer within 5 s

Lines are made from values, a moment and a width, and printed elsewhere. Where the width is
short, identities are shortened in their middle, then columns are left out; a reason that does
not fit goes on lines of its own. What was told by others never controls the terminal.
"""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich.text import Text

from lunport.core.path_status import PathState, PathStatus, VolumePaths, VolumeState

_GAP = "  "
_NONE = "-"
_DEFAULT_IFACE = "default"
_LEAST_REASON = 24
_DAY_S = 86400

_PATH_STYLES = {
    PathState.LIVE: "green",
    PathState.JOINING: "cyan",
    PathState.FAILED: "red",
    PathState.MISSING: "yellow",
    PathState.SPARE: "dim",
}
_VOLUME_STYLES = {
    VolumeState.OK: "green",
    VolumeState.DEGRADED: "yellow",
    VolumeState.DOWN: "bold red",
}


@dataclass(frozen=True, slots=True)
class Marks:
    """The signs that are drawn, beside letters and digits."""

    states: Mapping[PathState, str]
    branch: str
    last: str
    trunk: str
    ellipsis: str

    @property
    def all(self) -> str:
        """Every sign."""
        return "".join((*self.states.values(), self.branch, self.last, self.trunk, self.ellipsis))


UNICODE = Marks(
    {
        PathState.LIVE: "●",
        PathState.MISSING: "○",
        PathState.JOINING: "◐",
        PathState.FAILED: "✗",
        PathState.SPARE: "·",
    },
    branch="├─ ",
    last="└─ ",
    trunk="│  ",
    ellipsis="…",
)
ASCII = Marks(
    {
        PathState.LIVE: "*",
        PathState.MISSING: "o",
        PathState.JOINING: "~",
        PathState.FAILED: "x",
        PathState.SPARE: ".",
    },
    branch="|- ",
    last="`- ",
    trunk="|  ",
    ellipsis="...",
)


@dataclass(frozen=True, slots=True)
class _Column:
    """A column: ``least`` is how narrow it may become, ``leaves`` the turn in which it goes.

    Columns that may become narrower do so from the right to the left.
    """

    title: str
    least: int | None = None
    leaves: int | None = None


_VOLUME_COLUMNS = (
    _Column("VOLUME", least=13),
    _Column("HOST", least=8, leaves=2),
    _Column("WWID", least=13, leaves=1),
    _Column("MAP", leaves=4),
    _Column("PATHS"),
    _Column("STATE"),
    _Column("SINCE", leaves=3),
)
_STATE_AT = 5
_PATH_COLUMNS = (
    _Column("portal"),
    _Column("iface", leaves=2),
    _Column("transport", leaves=1),
    _Column("session", leaves=4),
    _Column("disk"),
    _Column("state"),
    _Column("since", leaves=3),
)


@dataclass(frozen=True, slots=True)
class PathView:
    """What the lines depend on beside the volumes.

    ``now``: seconds since the epoch. ``width``: None for as wide as it gets (no terminal).
    ``encoding``: of the output; what it can't carry is written otherwise.
    """

    host: str
    now: float
    width: int | None = None
    encoding: str = "utf-8"

    @property
    def marks(self) -> Marks:
        """The signs that the output can carry."""
        return UNICODE if _can_carry(UNICODE.all, self.encoding) else ASCII

    def lines(self, volumes: Sequence[VolumePaths]) -> list[Text]:
        """Draw the volumes, in their order."""
        rows = [self._volume_cells(volume) for volume in volumes]
        trees = [[self._path_cells(path) for path in volume.paths] for volume in volumes]
        widths = _fit(_VOLUME_COLUMNS, [[one.title for one in _VOLUME_COLUMNS], *rows], self.width)
        room = None if self.width is None else self.width - len(self.marks.branch) - 2
        inner = _fit(_PATH_COLUMNS, list(itertools.chain(*trees)), room)
        drawn = [Text(_GAP.join(self._cells([one.title for one in _VOLUME_COLUMNS], widths)))]
        drawn[0].stylize("bold")
        for volume, row, tree in zip(volumes, rows, trees, strict=True):
            drawn.append(self._volume_line(volume, row, widths))
            drawn.extend(self._tree(volume, tree, inner))
        return [self._cropped(line) for line in drawn]

    # -- one volume ----------------------------------------------------------------------

    def _volume_cells(self, volume: VolumePaths) -> list[str]:
        return [
            self.clean(volume_name(volume)),
            self.clean(self.host),
            self.clean(volume.wwid or _NONE),
            _NONE if volume.map_name is None else self.clean(volume.device or volume.map_name),
            f"{volume.live}/{volume.wanted}",
            volume.state.value.upper(),
            self.age(volume.since),
        ]

    def _volume_line(self, volume: VolumePaths, row: list[str], widths: list[int]) -> Text:
        line = Text()
        for at, cell in self._placed(row, widths):
            line.append(_GAP if len(line) else "")
            line.append(cell, style=_VOLUME_STYLES[volume.state] if at == _STATE_AT else "")
        line.rstrip()
        return line

    def _tree(
        self, volume: VolumePaths, tree: list[list[str]], widths: list[int]
    ) -> Iterator[Text]:
        for at, (path, row) in enumerate(zip(volume.paths, tree, strict=True)):
            is_last = at == len(tree) - 1
            style = _PATH_STYLES[path.state]
            line = Text(self.marks.last if is_last else self.marks.branch)
            line.append(f"{self.marks.states[path.state]} ", style=style)
            line.append(_GAP.join(self._cells(row, widths)))
            line.rstrip()
            first, *others = self._reason_lines(path, len(line)) or [""]
            if first:
                line.append(_GAP)
                line.append(first, style=style)
            yield line
            for other in others:
                below = Text("   " if is_last else self.marks.trunk)
                below.append("    ")
                below.append(other, style=style)
                yield below

    def _path_cells(self, status: PathStatus) -> list[str]:
        iface = "" if status.iface == _DEFAULT_IFACE else self.clean(status.iface)
        return [
            str(status.path.portal),
            iface,
            status.path.transport.value,
            _NONE if status.sid is None else f"sid {status.sid}",
            self.clean(status.device or _NONE),
            status.state.value,
            self.age(status.since),
        ]

    def _reason_lines(self, status: PathStatus, used: int) -> list[str]:
        """Split a reason into what follows the path on its line, and what comes below it."""
        reason = self.clean(" ".join((status.why or "").split()))
        if not reason or self.width is None:
            return [reason]
        beside = self.width - used - len(_GAP)
        if len(reason) <= beside:
            return [reason]
        below = max(self.width - len(self.marks.branch) - 4, 8)
        if beside < _LEAST_REASON:
            return ["", *_wrapped(reason, below)]
        first, *rest = _wrapped(reason, beside)
        return [first, *_wrapped(" ".join(rest), below)]

    # -- cells ---------------------------------------------------------------------------

    def age(self, since: float | None) -> str:
        """Say how long ago a moment was."""
        if since is None:
            return _NONE
        seconds = max(0, int(self.now - since))
        if seconds >= _DAY_S:
            return f"{seconds // _DAY_S}d {seconds % _DAY_S // 3600:02}h"
        return f"{seconds // 3600:02}:{seconds % 3600 // 60:02}:{seconds % 60:02}"

    def clean(self, text: str) -> str:
        """Replace what is not printable, and what the output can't carry."""
        printable = "".join(sign if sign.isprintable() else "?" for sign in text)
        return printable.encode(self.encoding, "replace").decode(self.encoding)

    def _placed(self, row: list[str], widths: list[int]) -> Iterator[tuple[int, str]]:
        for at, (cell, width) in enumerate(zip(row, widths, strict=True)):
            if width:
                yield at, f"{_shortened(cell, width, self.marks.ellipsis):<{width}}"

    def _cells(self, row: list[str], widths: list[int]) -> Iterator[str]:
        return (cell for _, cell in self._placed(row, widths))

    def _cropped(self, line: Text) -> Text:
        line.rstrip()
        if self.width is not None and line.cell_len > self.width:
            line.truncate(max(self.width, 1))
        return line


def volume_name(volume: VolumePaths) -> str:
    """Name a volume to people: by the service's id, or else by the journal's key."""
    return volume.volume_id or volume.key


def _can_carry(text: str, encoding: str) -> bool:
    try:
        text.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_on_hyphens=False)


def _shortened(cell: str, width: int, ellipsis: str) -> str:
    if len(cell) <= width:
        return cell
    kept = max(width - len(ellipsis), 0)
    tail = kept // 3
    return cell[: kept - tail] + ellipsis[:width] + (cell[-tail:] if tail else "")


def _fit(columns: Sequence[_Column], rows: list[list[str]], room: int | None) -> list[int]:
    """Give each column its width, 0 for one that is left out (or is empty)."""
    widths = [max((len(row[at]) for row in rows), default=0) for at in range(len(columns))]
    if room is None:
        return widths
    leaving = sorted(
        (at for at, one in enumerate(columns) if one.leaves is not None),
        key=lambda at: columns[at].leaves or 0,
    )
    narrowed = _narrowed(columns, widths, room)
    for at in leaving:
        if _total(narrowed) <= room:
            break
        widths[at] = 0
        narrowed = _narrowed(columns, widths, room)
    return narrowed


def _narrowed(columns: Sequence[_Column], widths: Sequence[int], room: int) -> list[int]:
    narrowed = list(widths)
    for at in reversed(range(len(columns))):
        least = columns[at].least
        excess = _total(narrowed) - room
        if least is not None and excess > 0 and narrowed[at] > least:
            narrowed[at] = max(least, narrowed[at] - excess)
    return narrowed


def _total(widths: Sequence[int]) -> int:
    shown = [width for width in widths if width]
    return sum(shown) + len(_GAP) * max(len(shown) - 1, 0)
