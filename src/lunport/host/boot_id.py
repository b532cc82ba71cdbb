"""Which boot of the kernel this is (``/proc/sys/kernel/random/boot_id``, random(4))."""

from __future__ import annotations

from pathlib import Path

from lunport.core.errors import HostLacks

FILE = Path("/proc/sys/kernel/random/boot_id")


def read_boot_id(file: Path = FILE) -> str:
    """Return the id that the kernel made when it booted; containers share it. Raises: HostLacks."""
    try:
        boot_id = file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise HostLacks("This boot has no id", f"{file}: {error}", "mount /proc") from error
    if not boot_id:
        raise HostLacks("This boot has no id", f"{file} is empty", "mount /proc")
    return boot_id
