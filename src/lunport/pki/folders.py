"""Folders of keys and certificates: whole or not there, and never written over.

.tls.3f9c21d07be4.partial/        while it is made
tls/{ca,certificate,key}.pem      once it is renamed: rename(2) takes an empty folder only
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path

from lunport.core.errors import AlreadyExists, InvalidConfig

_IN_USE = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)
_MAX_BYTES = 1 << 20


def write_new_folder(folder: Path, files: Mapping[str, tuple[bytes, int]]) -> None:
    """Make a folder of files, each with its mode, in one step.

    The folder may be there if it is empty; on failure nothing is left. Raises: AlreadyExists,
    InvalidConfig.
    """
    partial = folder.with_name(f".{folder.name}.{secrets.token_hex(6)}.partial")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial.mkdir(mode=0o700)
        try:
            for name, (content, mode) in files.items():
                _write(partial / name, content, mode)
            _sync_folder(partial)
            partial.rename(folder)
        except BaseException:
            _remove(partial)
            raise
        _sync_folder(folder.parent)
    except OSError as error:
        if error.errno in _IN_USE:
            raise AlreadyExists("A folder with something in it at", str(folder)) from error
        reason = error.strerror or str(error)
        raise InvalidConfig("folder of certificates", str(folder), reason) from error


def read_key_file(file: Path) -> bytes:
    """Read a private key that nobody else may read. Raises: InvalidConfig."""
    try:
        mode = file.stat().st_mode
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            reason = f"others may read it (mode {stat.S_IMODE(mode):04o}): chmod 600 {file}"
            raise InvalidConfig("key", str(file), reason)
        return _read(file)
    except OSError as error:
        raise InvalidConfig("key", str(file), error.strerror or str(error)) from error


def read_public_file(file: Path) -> bytes:
    """Read a certificate. Raises: InvalidConfig."""
    try:
        return _read(file)
    except OSError as error:
        raise InvalidConfig("certificate", str(file), error.strerror or str(error)) from error


def _read(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.read(_MAX_BYTES)


def _write(file: Path, content: bytes, mode: int) -> None:
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "wb") as opened:
        opened.write(content)
        opened.flush()
        os.fchmod(opened.fileno(), mode)
        os.fsync(opened.fileno())


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(folder: Path) -> None:
    with contextlib.suppress(OSError):
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
