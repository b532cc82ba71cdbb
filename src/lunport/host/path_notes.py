"""What was last noted of each path of a connection: its state, since when, and why.

One file for each connection in ``/run/lunport/paths``, its name the connection's key:

    {"version": 1, "paths": {"10.0.2.2:3260 iqn.2026-11.example:a lun 1":
        {"state": "missing", "since": 1790000000.0, "why": "no answer within 5 s"}}}

Written by whoever saw a path change, read by whoever shows paths; gone after a reboot, as the
sessions are. A memory, not the truth: that is in the kernel. What goes wrong with a file is as
if nothing had been noted, and nobody fails for it.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from lunport.core.host_connection import is_key
from lunport.core.path_status import PathState
from lunport.host.durable_file import list_files, remove_durably, write_durably
from lunport.host.host_root import run_directory

_VERSION = 1
_SUFFIX = ".json"
_MAX_BYTES = 1 << 20
_STATES = {state.value: state for state in PathState}


@dataclass(frozen=True, slots=True)
class PathNote:
    """A path's last change. ``since``: seconds since the epoch; ``why``: None while live."""

    state: PathState
    since: float
    why: str | None = None


def _default_folder() -> Path:
    return run_directory() / "paths"


@dataclass(frozen=True, slots=True)
class PathNotes:
    """The notes in one folder, shared by all processes of the host."""

    folder: Path = field(default_factory=_default_folder)

    def connections(self) -> tuple[str, ...]:
        """Return the connections that something is noted of, in order."""
        with contextlib.suppress(OSError):
            files = list_files(self.folder, _SUFFIX)
            return tuple(file.name.removesuffix(_SUFFIX) for file in files)
        return ()

    def read(self, key: str) -> Mapping[str, PathNote]:
        """Return what is noted of a connection, by the path as text."""
        if not is_key(key):
            return {}
        try:
            with self._file(key).open("rb") as file:
                return parse_path_notes(file.read(_MAX_BYTES).decode(errors="replace"))
        except OSError:
            return {}

    def write(self, key: str, notes: Mapping[str, PathNote]) -> bool:
        """Note all paths of a connection in place of what was noted; tell whether it was kept."""
        if not is_key(key):
            return False
        try:
            write_durably(self._file(key), format_path_notes(notes))
        except OSError:
            return False
        return True

    def remove(self, key: str) -> None:
        """Forget a connection. Idempotent."""
        if is_key(key):
            with contextlib.suppress(OSError):
                remove_durably(self._file(key))

    def _file(self, key: str) -> Path:
        return self.folder / (key + _SUFFIX)


def format_path_notes(notes: Mapping[str, PathNote]) -> str:
    """Write notes; the inverse of :func:`parse_path_notes`."""
    paths = {
        text: {"state": note.state.value, "since": note.since, "why": note.why}
        for text, note in notes.items()
    }
    return json.dumps({"version": _VERSION, "paths": paths}, indent=1) + "\n"


def parse_path_notes(text: str) -> Mapping[str, PathNote]:
    """Read notes, passing over whatever is none."""
    try:
        wire = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    paths = wire.get("paths") if isinstance(wire, dict) else None
    if not isinstance(paths, dict) or wire.get("version") != _VERSION:
        return {}
    read = ((name, _parse_note(fields)) for name, fields in paths.items())
    return MappingProxyType({name: note for name, note in read if note is not None})


def _parse_note(fields: object) -> PathNote | None:
    if not isinstance(fields, dict):
        return None
    state, since, why = (fields.get(name) for name in ("state", "since", "why"))
    if not isinstance(state, str) or state not in _STATES:
        return None
    if isinstance(since, bool) or not isinstance(since, int | float):
        return None
    if why is not None and not isinstance(why, str):
        return None
    try:
        return PathNote(_STATES[state], float(since), why)
    except OverflowError:  # a whole number without bounds, as JSON allows
        return None
