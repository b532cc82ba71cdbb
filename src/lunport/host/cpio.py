"""Write the archive from which a kernel makes its first files (cpio "newc").

Format: ``Documentation/driver-api/early-userspace/buffer-format.rst`` of the kernel.
"""

from __future__ import annotations

from collections.abc import Iterable

Entry = tuple[str, int, bytes]
"""Name, mode with its kind, and content of a file."""


def cpio_archive(entries: Iterable[Entry]) -> bytes:
    """Write files, by name, mode and content, as the kernel unpacks them."""
    archive = bytearray()
    for number, (name, mode, content) in enumerate((*entries, ("TRAILER!!!", 0, b"")), 1):
        fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
        archive += b"070701" + b"".join(b"%08X" % field for field in fields)
        archive += name.encode() + b"\0"
        archive += bytes(-len(archive) % 4)
        archive += content
        archive += bytes(-len(archive) % 4)
    return bytes(archive)
