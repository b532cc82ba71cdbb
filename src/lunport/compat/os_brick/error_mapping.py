"""Which exception of os-brick's a caller gets for which error of ours: one table for each verb.

The nearest class in an error's ancestry decides. An exception's text is os-brick's short phrase
and our sentence, which names every path and its reason; our error is the cause. os-brick raises
``VolumeDeviceNotFound`` for whatever kept a single path from giving a device, and callers wait
for that one, so it is what every such error becomes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from lunport.compat.os_brick import exception
from lunport.core import errors
from lunport.core.errors import LunportError, UndoFailed

Table = Mapping[type[LunportError], tuple[type[exception.BrickException], str]]

_ANY: Table = {
    LunportError: (exception.BrickException, ""),
    errors.InvalidInput: (exception.InvalidParameterValue, ""),
    errors.CommandTimedOut: (exception.ExecutionTimeout, ""),
    errors.CommandError: (exception.CommandExecutionFailed, "Failed to execute a command: "),
    errors.CommandMissing: (exception.CommandExecutionFailed, "Failed to execute a command: "),
}
CONNECT: Table = {
    **_ANY,
    errors.IscsiError: (exception.VolumeDeviceNotFound, "Volume device not found: "),
    errors.DeviceError: (exception.VolumeDeviceNotFound, "Volume device not found: "),
}
DISCONNECT: Table = {
    **_ANY,
    errors.DeviceBusy: (exception.VolumePathNotRemoved, "Volume path was not removed: "),
    errors.DeviceStuck: (exception.VolumePathNotRemoved, "Volume path was not removed in time: "),
    errors.FlushFailed: (exception.CommandExecutionFailed, "Failed to flush: "),
}
EXTEND: Table = {
    **_ANY,
    errors.DeviceMissing: (
        exception.VolumePathsNotFound,
        "Could not find any paths for the volume: ",
    ),
    errors.IscsiError: (exception.BrickException, "The path must be up to extend the device: "),
}


@contextmanager
def raised_as(table: Table) -> Iterator[None]:
    """Raise what the table says for any error of ours that is raised inside."""
    try:
        yield
    except LunportError as error:
        raise translate(error, table) from error


def translate(error: LunportError, table: Table) -> exception.BrickException:
    """Make the exception for an error; an undo that failed is told by what made it necessary."""
    told: BaseException = error
    while isinstance(told, UndoFailed):
        told = told.cause
    for ancestor in type(told).__mro__:
        if ancestor in table:
            kind, phrase = table[ancestor]
            return kind(f"{phrase}{error}")
    return exception.BrickException(str(error))
