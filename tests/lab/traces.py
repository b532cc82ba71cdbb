"""What connects leave on this host, looked at from outside: to compare before with after."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lunport.host.host_root import run_directory, state_directory
from lunport.host.node_records import find_records_folder
from lunport.host.runner import find_program
from tests.lab.connecting import disks, sessions

_OPEN_ISCSI = Path("/etc/iscsi")


@dataclass(frozen=True, slots=True)
class Traces:
    """Sessions and disks by name; every file of node records, journal and locks by content."""

    sessions: tuple[str, ...]
    disks: tuple[str, ...]
    records: dict[str, str]
    journal: dict[str, str]
    locks: tuple[str, ...]

    @property
    def are_none(self) -> bool:
        """Tell whether there is nothing at all."""
        return self == NOTHING


NOTHING = Traces((), (), {}, {}, ())


def take_traces() -> Traces:
    """Look at everything; what is being written is seen as well."""
    return Traces(
        sessions=tuple(sessions()),
        disks=tuple(disks()),
        records=_files(find_records_folder()) | _files(_OPEN_ISCSI, ".lunport-*"),
        journal=_files(state_directory()),
        locks=tuple(sorted(_files(run_directory() / "locks"))),
    )


def files_with(text: str) -> list[str]:
    """List the files of open-iscsi and of ours in which a text stands."""
    assert find_program("iscsiadm"), "without open-iscsi there is nothing to look at"
    folders = (_OPEN_ISCSI, find_records_folder(), state_directory(), run_directory())
    found = {
        str(path)
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file() and text in path.read_text(errors="replace")
    }
    return sorted(found)


def _files(folder: Path, pattern: str = "**/*") -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text(errors="replace")
        for path in sorted(folder.glob(pattern))
        if path.is_file()
    }
