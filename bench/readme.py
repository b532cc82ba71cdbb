"""Put the newest results where bench/README.md has the last ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

README_FILE = Path(__file__).with_name("README.md")


def replaced(text: str, name: str, new: str) -> str:
    """Return a text with ``new`` between the marks of that name."""
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
    before, rest = text.split(begin)
    after = rest.split(end)[1]
    return f"{before}{begin}\n{new.strip()}\n\n{end}{after}"


def put_results(name: str, new: str) -> None:
    """Write results into the README."""
    README_FILE.write_text(replaced(README_FILE.read_text(), name, new))


def conditions(machine: Mapping[str, Any]) -> str:
    """Say when, what and on what was measured."""
    versions = ", ".join(sorted(set(machine["versions"].values())))
    multipath = f", {machine['multipath']}" if machine.get("multipath") else ""
    return (
        f"Measured {machine['when'][:10]}: {versions}, kernel {machine['kernel']}, open-iscsi "
        f"{machine['iscsiadm']}{multipath}, {machine['cpus']} CPUs, load average "
        f"{machine['load'][0]:.1f} at the end."
    )
