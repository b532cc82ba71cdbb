"""Hand a secret to QEMU without showing it in any argv.

QEMU reads a ``secret`` object from a file. The file lives in a private folder (0700, 0600)
below ``/run/lunport``, that is in memory, or below the temporary folder where that cannot be
written, and is gone when the ``with`` block is left. QEMU reads it while it starts.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from lunport.core.secret import Secret
from lunport.host.host_root import run_directory


@contextlib.contextmanager
def secret_file(secret: Secret) -> Iterator[Path]:
    """Put the secret into a file that only this user can read, for as long as the block runs."""
    with tempfile.TemporaryDirectory(prefix="secret-", dir=_parent()) as folder:
        file = Path(folder) / "chap"
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(secret.reveal())
        yield file


def _parent() -> Path | None:
    folder = run_directory() / "secrets"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK | os.X_OK) else None
