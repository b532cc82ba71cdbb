"""The exit codes of all commands, and which error gives which: the one table.

    0 ok    1 failed       2 usage    3 not found    4 conflict or busy
    5 unreachable    6 not allowed or not authenticated    7 timeout
    8 degraded (it worked, with fewer paths than wanted)    9 wrong device

The nearest class in an error's ancestry decides. Several attempts that failed alike give
their common code; otherwise the storage is unreachable.
"""

from __future__ import annotations

import enum

from lunport.core import errors
from lunport.core.errors import AllPathsFailed, LunportError, UndoFailed, VolumeApiRefused

_NOT_IN_THIS_STATE = 400  # as Block Storage says it: InvalidVolume


class ExitCode(enum.IntEnum):
    """What a command's exit status means."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    CONFLICT = 4
    UNREACHABLE = 5
    AUTH = 6
    TIMEOUT = 7
    DEGRADED = 8
    WRONG_DEVICE = 9


CODES: dict[type[BaseException], ExitCode] = {
    LunportError: ExitCode.FAILED,
    errors.InvalidInput: ExitCode.USAGE,
    errors.NotFound: ExitCode.NOT_FOUND,
    errors.Conflict: ExitCode.CONFLICT,
    errors.Refused: ExitCode.AUTH,
    errors.OverQuota: ExitCode.CONFLICT,
    errors.GuardedAttachment: ExitCode.CONFLICT,
    errors.CommandTimedOut: ExitCode.TIMEOUT,
    errors.PortalUnreachable: ExitCode.UNREACHABLE,
    errors.LoginTimedOut: ExitCode.TIMEOUT,
    errors.LoginRejected: ExitCode.AUTH,
    errors.TargetUnknown: ExitCode.NOT_FOUND,
    errors.LunMissing: ExitCode.NOT_FOUND,
    errors.WrongDevice: ExitCode.WRONG_DEVICE,
    errors.DeviceMissing: ExitCode.NOT_FOUND,
    errors.DeviceBusy: ExitCode.CONFLICT,
    errors.DeviceStuck: ExitCode.TIMEOUT,
    errors.UnplugRefused: ExitCode.CONFLICT,
    errors.UnplugTimedOut: ExitCode.TIMEOUT,
    errors.XmlMismatch: ExitCode.CONFLICT,
    errors.ImageMissing: ExitCode.NOT_FOUND,
    errors.ImageBusy: ExitCode.CONFLICT,
    errors.PortalUnavailable: ExitCode.CONFLICT,
    errors.TargetDaemonDown: ExitCode.UNREACHABLE,
    errors.Unavailable: ExitCode.UNREACHABLE,
}


def exit_code_of(error: BaseException) -> int:
    """Return the exit code that an error gives."""
    if isinstance(error, AllPathsFailed):
        found = {exit_code_of(attempt) for attempt in error.attempts}
        return found.pop() if len(found) == 1 else ExitCode.UNREACHABLE
    if isinstance(error, UndoFailed):
        return exit_code_of(error.cause)
    if isinstance(error, VolumeApiRefused) and error.code == _NOT_IN_THIS_STATE:
        return ExitCode.CONFLICT
    for ancestor in type(error).__mro__:
        if ancestor in CODES:
            return CODES[ancestor]
    return ExitCode.FAILED
