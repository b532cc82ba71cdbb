"""os-brick's own virtual environment, made from ``requirements/bench-attach.lock``.

    python -m lab.os_brick_environment        make it unless it is there as the lock has it

The peer that is measured (``make bench-attach``) and the oracle of the differential tests. Its
dozens of packages stay out of ``.venv``. The lab has no network, so it is made outside.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import venv
from pathlib import Path

from lab.errors import LabCannot

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements" / "bench-attach.lock"
FOLDER = ROOT / ".cache" / "bench-attach"
PYTHON = FOLDER / "bin" / "python"

_STAMP = FOLDER / "stamp"


def is_there() -> bool:
    """Tell whether the environment is there as the lock has it."""
    return PYTHON.exists() and _STAMP.exists() and _STAMP.read_text() == _wanted()


def ensure_os_brick() -> Path:
    """Make the environment unless it is there; return its Python. Raises: LabCannot."""
    if is_there():
        return PYTHON
    print("lab: making os-brick's environment", file=sys.stderr)
    venv.create(FOLDER, clear=True, with_pip=True)
    pip = [str(PYTHON), "-m", "pip", "--disable-pip-version-check", "--no-input", "install"]
    exactly = ["--quiet", "--no-deps", "--only-binary", ":all:", "--require-hashes"]
    log = FOLDER / "pip.log"
    with log.open("wb") as output:
        ended = subprocess.run(
            [*pip, *exactly, "--requirement", str(LOCK)], stdout=output, stderr=output, check=False
        )
    if ended.returncode:
        raise LabCannot(f"pip could not install {LOCK} (all it said: {log})")
    _STAMP.write_text(_wanted())
    return PYTHON


def _wanted() -> str:
    return hashlib.sha256(LOCK.read_bytes()).hexdigest()


if __name__ == "__main__":
    try:
        ensure_os_brick()
    except LabCannot as error:
        sys.exit(f"lab: {error}")
