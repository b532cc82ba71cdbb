"""os-brick's exceptions: the same names, the same ancestry, the same way to build them.

Every name that os-brick 7 has is here, so that any ``except`` clause can be read; which of them
this package raises is in :mod:`lunport.compat.os_brick.error_mapping`. The error of Lunport that
was the reason is always the ``__cause__``.
"""

from __future__ import annotations

import logging
import traceback
from types import TracebackType
from typing import ClassVar, Self

_LOG = logging.getLogger(__name__)


class BrickException(Exception):
    """The root. ``message`` of a class is filled with the keyword arguments given."""

    message: ClassVar[str] = "An unknown exception occurred."
    code: ClassVar[int] = 500
    headers: ClassVar[dict[str, str]] = {}
    safe: ClassVar[bool] = False

    def __init__(self, message: str | None = None, **kwargs: object) -> None:
        self.kwargs = {"code": self.code} | kwargs
        self.msg = message or self._fill(kwargs)
        super().__init__(self.msg)

    @classmethod
    def _fill(cls, kwargs: dict[str, object]) -> str:
        try:
            return cls.message % kwargs
        except (KeyError, TypeError, ValueError):
            # What is known is better than an error about an error.
            return cls.message


class NotFound(BrickException):
    """Something named is not there."""

    message = "Resource could not be found."
    code = 404
    safe = True


class Invalid(BrickException):
    """The caller gave something that cannot be used."""

    message = "Unacceptable parameters."
    code = 400


class InvalidParameterValue(Invalid):
    """A value that cannot be used."""

    message = "%(err)s"


class NoFibreChannelHostsFound(BrickException):
    """Never raised here."""

    message = "There is no Fibre Channel here."


class NoFibreChannelVolumeDeviceFound(BrickException):
    """Never raised here."""

    message = "There is no Fibre Channel volume device."


class VolumeNotDeactivated(BrickException):
    """Never raised here."""

    message = "Volume %(name)s was not deactivated in time."


class VolumeDeviceNotFound(BrickException):
    """The volume could not be connected: no path gave its device."""

    message = "Volume device not found at %(device)s."


class VolumePathsNotFound(BrickException):
    """The volume is not connected on this host."""

    message = "Could not find any paths for the volume."


class VolumePathNotRemoved(BrickException):
    """The volume's device is still there."""

    message = "Volume path %(volume_path)s was not removed in time."


class ProtocolNotSupported(BrickException):
    """Never raised here."""

    message = "Connecting a volume by protocol %(protocol)s is not supported."


class TargetPortalNotFound(BrickException):
    """Never raised here: a portal that does not answer is one reason in another error."""

    message = "Unable to find target portal %(target_portal)s."


class TargetPortalsNotFound(TargetPortalNotFound):
    """Never raised here, as its parent."""

    message = "Unable to find target portal in %(target_portals)s."


class FailedISCSITargetPortalLogin(BrickException):
    """Never raised here, nor by os-brick 7."""

    message = "Unable to log in to the iSCSI target portal."


class BlockDeviceReadOnly(BrickException):
    """Never raised here."""

    message = "Block device %(device)s is read-only."


class VolumeGroupNotFound(BrickException):
    """Never raised here."""

    message = "Unable to find volume group: %(vg_name)s"


class VolumeGroupCreationFailed(BrickException):
    """Never raised here."""

    message = "Failed to create volume group: %(vg_name)s"


class CommandExecutionFailed(BrickException):
    """A program of this host failed, or a device could not be flushed."""

    message = "Failed to execute command %(cmd)s"


class VolumeDriverException(BrickException):
    """Never raised here."""

    message = "An error occurred while doing I/O to volume %(name)s."


class InvalidIOHandleObject(BrickException):
    """An object that is not the kind of handle that was expected."""

    message = "The handle of %(protocol)s has the wrong type %(actual_type)s."


class VolumeEncryptionNotSupported(Invalid):
    """Never raised here."""

    message = "Encryption is not supported for %(volume_type)s volume %(volume_id)s."


class VolumeLocalCacheNotSupported(Invalid):
    """Never raised here."""

    message = "A local cache is not supported for %(volume_type)s volume %(volume_id)s."


class InvalidConnectorProtocol(ValueError):
    """There is no connector of that protocol."""


class MultipathdPathsNotRemoved(BrickException):
    """Never raised here."""

    message = "multipathd still watches %(devices)s."


class ExecutionTimeout(BrickException):
    """A program of this host did not end in time; os-brick's own has oslo's error as parent."""

    message = "A command did not end in time."


_Failure = tuple[type[BaseException], BaseException, TracebackType | None]


class ExceptionChainer(BrickException):
    """Several exceptions as one: what went wrong while a forced operation went on.

    True once it holds any. ``with chain.context(True, "Flushing %s failed", device):`` keeps
    what is raised inside, and lets it out where the first argument is false.
    """

    def __init__(self, message: str | None = None, **kwargs: object) -> None:
        self._exceptions: list[_Failure] = []
        self._is_caught = False
        self._text = ""
        self._words: tuple[object, ...] = ()
        super().__init__(message, **kwargs)

    def __repr__(self) -> str:
        parts = []
        for number, failure in enumerate(self._exceptions, 1):
            story = "".join(traceback.format_exception(*failure)).replace("\n", "\n\t")
            parts.append(f"\nChained Exception #{number}\n\t{story}")
        return "\n".join(parts)

    __str__ = __repr__

    def __bool__(self) -> bool:
        return bool(self._exceptions)

    @property
    def first(self) -> BaseException | None:
        """The first exception that was kept."""
        return self._exceptions[0][1] if self._exceptions else None

    def add_exception(
        self,
        exc_type: type[BaseException],
        exc_val: BaseException,
        exc_tb: TracebackType | None,
    ) -> None:
        """Keep one more."""
        self._exceptions.append((exc_type, exc_val, exc_tb))

    def context(self, catch_exception: bool, msg: str = "", *msg_args: object) -> Self:
        """Say, for the ``with`` that follows, whether to catch, and what to log then."""
        self._is_caught = catch_exception
        self._text = msg
        self._words = msg_args
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> bool:
        if exc_type is None or exc_val is None:
            return False
        self.add_exception(exc_type, exc_val, exc_tb)
        if self._text:
            _LOG.warning(self._text, *self._words)
        return self._is_caught
