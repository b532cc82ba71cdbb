"""Copy between files and logical units by QEMU's own initiator: qemu-img(1) with libiscsi.

The CHAP secret goes through a file that is there while qemu-img starts
(:mod:`lunport.host.qemu_secret`); no argv holds it. Which path to take is decided elsewhere.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from lunport.core.disk_source import DiskSource, format_options, qemu_blockdev, qemu_secret_options
from lunport.core.errors import CommandError
from lunport.core.secret import Secret
from lunport.host.clock import Deadline
from lunport.host.qemu_secret import secret_file
from lunport.host.runner import run

PROGRAM = "qemu-img"
PACKAGE = "qemu-utils"
ISCSI_PACKAGE = "qemu-block-extra"
_SECRET_ID = "lunport-chap"  # noqa: S105 - a name
_UNKNOWN_DRIVER = "nknown driver"


def write_unit(file: Path, disk: DiskSource, secret: Secret | None, deadline: Deadline) -> None:
    """Write a file to the start of a unit, and have the target make it durable.

    Raises: CommandMissing, CommandError, CommandTimedOut.
    """
    with _secret_object(secret) as (words, secret_id):
        # -t none rather than the default, unsafe, which would not flush at the end.
        target = [str(file), format_options(_raw(disk, secret_id))]
        options = ["-n", "-f", "raw", "-t", "none", *words, "--target-image-opts"]
        _run(["convert", *options, *target], deadline)


def read_unit(
    disk: DiskSource, size_bytes: int, file: Path, secret: Secret | None, deadline: Deadline
) -> None:
    """Read that many bytes from the start of a unit into a new file.

    Raises: CommandMissing, CommandError, CommandTimedOut.
    """
    with _secret_object(secret) as (words, secret_id):
        source = format_options(_raw(disk, secret_id) | {"size": str(size_bytes)})
        _run(["convert", "-O", "raw", *words, "--image-opts", source, str(file)], deadline)


def has_iscsi(deadline: Deadline) -> bool:
    """Tell whether this QEMU knows iSCSI, a module of its own in Debian.

    Raises: CommandMissing, CommandTimedOut.
    """
    options = "driver=iscsi,transport=tcp,portal=127.0.0.1:1,target=iqn.none,lun=0"
    try:
        _run(["info", "--image-opts", options], deadline)
    except CommandError as error:
        return _UNKNOWN_DRIVER not in error.stderr
    return True


def _raw(disk: DiskSource, secret_id: str | None) -> dict[str, str]:
    options = qemu_blockdev(disk, secret_id=secret_id)
    return {"driver": "raw"} | {f"file.{key}": value for key, value in options.items()}


@contextlib.contextmanager
def _secret_object(secret: Secret | None) -> Iterator[tuple[list[str], str | None]]:
    if secret is None:
        yield [], None
        return
    with secret_file(secret) as path:
        yield ["--object", qemu_secret_options(_SECRET_ID, str(path))], _SECRET_ID


def _run(words: list[str], deadline: Deadline) -> None:
    run([PROGRAM, *words], deadline, package=PACKAGE)
