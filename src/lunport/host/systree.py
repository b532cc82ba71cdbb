"""Read and write the kernel's /sys, and count how often.

Paths are relative to the root: ``class/iscsi_session/session1/targetname``. Whatever vanishes
between two steps is simply not there: a read gives None, a list is empty. Interprets nothing.
Another root than /sys is for tests.
"""

from __future__ import annotations

import errno
import os
import posixpath
from pathlib import Path

from lunport.host.process import EXHAUSTED

_ATTRIBUTE_BYTES = 65_536  # sysfs gives a page at most
_REFUSED = frozenset({errno.EACCES, errno.EPERM, *EXHAUSTED})


class SysTree:
    """One sysfs. Safe to share between threads; the counters are then approximate."""

    def __init__(self, root: Path = Path("/sys")) -> None:
        self.root = root
        self._prefix = f"{root}/"  # plain strings: a connect reads dozens of attributes
        self.reads = 0
        self.writes = 0
        self.lists = 0

    def read(self, path: str) -> str | None:
        """Read an attribute, blanks around it removed; None when there is none to read.

        Raises: OSError (not allowed, or this process has no descriptor left).
        """
        self.reads += 1
        try:
            descriptor = os.open(self._prefix + path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                return os.read(descriptor, _ATTRIBUTE_BYTES).decode(errors="replace").strip()
            finally:
                os.close(descriptor)
        except OSError as error:
            # An object that is going away answers ENODEV, ENXIO, ENOTCONN, EINVAL, EIO ...
            if error.errno in _REFUSED:
                raise
            return None

    def list(self, path: str) -> tuple[str, ...]:
        """List a folder, in order; nothing when it is not there. Raises: OSError as ``read``."""
        self.lists += 1
        try:
            return tuple(sorted(os.listdir(self._prefix + path)))  # noqa: PTH208  # names alone
        except OSError as error:
            if error.errno in _REFUSED:
                raise
            return ()

    def exists(self, path: str) -> bool:
        """Tell whether something is there now."""
        self.reads += 1
        return os.path.exists(self._prefix + path)  # noqa: PTH110

    def resolve(self, path: str) -> str | None:
        """Follow the one link that ``path`` is; None when it is no link or not there."""
        self.reads += 1
        try:
            link = os.readlink(self._prefix + path)  # noqa: PTH115
        except OSError as error:
            if error.errno in _REFUSED:
                raise
            return None
        return posixpath.normpath(posixpath.join(posixpath.dirname(path), link))

    def write(self, path: str, text: str) -> None:
        """Write an attribute in one piece. Blocks as long as the kernel acts on it.

        Raises: OSError.
        """
        self.writes += 1
        descriptor = os.open(self._prefix + path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)
