"""The branch of the error tree for this machine: its tools, its iSCSI paths, its disks.

Drawn in :mod:`lunport.core.errors`, from where everybody imports.
"""

from __future__ import annotations

from collections.abc import Sequence

from lunport.core.error_root import LunportError, Remedy


class HostError(LunportError):
    """Something on this host failed."""


class CommandError(HostError):
    """A program ended with a status that means failure."""

    def __init__(self, argv: Sequence[object], status: int, stderr: str, elapsed_s: float) -> None:
        super().__init__(tuple(argv), status, stderr, elapsed_s)
        self.argv = tuple(argv)
        self.status = status
        self.stderr = stderr
        self.elapsed_s = elapsed_s

    def __str__(self) -> str:
        words = " ".join(str(word) for word in self.argv)
        detail = self.stderr.strip() or "it said nothing"
        return f"{words} ended with status {self.status} after {self.elapsed_s:.1f} s: {detail}"


class CommandMissing(HostError):
    """A program is not installed."""

    def __init__(self, program: str, package: str) -> None:
        super().__init__(program, package)
        self.program = program
        self.package = package

    def __str__(self) -> str:
        return f"{self.program} is not installed: apt-get install {self.package}"


class HostLacks(HostError):
    """The kernel, or whoever set this host up, does not allow what is needed."""

    def __init__(self, what: str, detail: str, how: str) -> None:
        super().__init__(what, detail, how)
        self.what = what
        self.detail = detail
        self.how = how

    def __str__(self) -> str:
        return f"{self.what} ({self.detail}): {self.how}"


class CommandTimedOut(HostError):
    """A program did not end in time and was killed."""

    def __init__(self, argv: Sequence[object], timeout_s: float) -> None:
        super().__init__(tuple(argv), timeout_s)
        self.argv = tuple(argv)
        self.timeout_s = timeout_s

    def __str__(self) -> str:
        words = " ".join(str(word) for word in self.argv)
        return f"{words} did not end within {self.timeout_s:.1f} s and was killed."


class InitiatorDown(HostError):
    """This host's iSCSI initiator does not run: no daemon, or no kernel module."""

    def __init__(self, detail: str, how: str) -> None:
        super().__init__(detail, how)
        self.detail = detail
        self.how = how

    def __str__(self) -> str:
        return f"The iSCSI initiator of this host is not usable: {self.detail}; {self.how}"


class JournalDamaged(HostError):
    """A file of this host's journal can't be read; what it stood for is not known."""

    def __init__(self, file: str, detail: str) -> None:
        super().__init__(file, detail)
        self.file = file
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.file} is damaged ({self.detail}); it was left as it is."


class IscsiError(HostError):
    """An iSCSI operation on one path failed. ``path`` is its text form (portal, IQN, LUN)."""

    remedy = Remedy.NEXT_PATH

    def __init__(self, path: str, detail: str) -> None:
        super().__init__(path, detail)
        self.path = path
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.path}: {self.detail}"


class PortalUnreachable(IscsiError):
    """Nothing answers there: refused, reset, or no route."""


class LoginTimedOut(IscsiError):
    """The portal did not answer in time."""


class LoginRejected(IscsiError):
    """The target answered and said no, for a reason another path may not share."""


class TargetUnknown(LoginRejected):
    """The portal does not know this target, or hides it from this initiator."""


class AuthenticationFailed(LoginRejected):
    """CHAP failed. Another portal of the same target would refuse as well."""

    remedy = Remedy.NEVER


class SessionMissing(IscsiError):
    """There is no session to that target where one is needed."""


class TransportMissing(IscsiError):
    """The session's transport or interface is not on this host."""


class LunMissing(IscsiError):
    """The target has no such logical unit, or hides it."""


class AllPathsFailed(IscsiError):
    """No path worked; ``attempts`` holds each one's error, in the plan's order.

    ``seconds``: what each took where its error does not say so itself; else None.
    """

    remedy = Remedy.NEVER

    def __init__(
        self, attempts: Sequence[LunportError], seconds: Sequence[float | None] = ()
    ) -> None:
        LunportError.__init__(self, tuple(attempts), tuple(seconds))
        self.attempts = tuple(attempts)
        self.seconds = tuple(seconds) or (None,) * len(self.attempts)

    def __str__(self) -> str:
        if not self.attempts:
            return "There was no path to try."
        told = (
            str(attempt) if took_s is None else f"{attempt} (after {took_s:.2f} s)"
            for attempt, took_s in zip(self.attempts, self.seconds, strict=True)
        )
        return f"All {len(self.attempts)} paths failed: {'; '.join(told)}"


class MultipathDown(HostError):
    """Several paths are demanded, and multipathd does not run here or can't make a map of them.

    ``mend`` is what to do about it.
    """

    def __init__(self, detail: str, mend: str) -> None:
        super().__init__(detail, mend)
        self.detail = detail
        self.mend = mend

    def __str__(self) -> str:
        return f"{self.detail}: {self.mend}."


class DeviceError(HostError):
    """A block device is not as it must be."""


class WrongDevice(DeviceError):
    """The logical unit is not the one that was promised. Never use it."""

    remedy = Remedy.NEXT_PATH

    def __init__(self, where: str, expected: str, found: str) -> None:
        super().__init__(where, expected, found)
        self.where = where
        self.expected = expected
        self.found = found

    def __str__(self) -> str:
        return f"{self.where} is {self.found}, not {self.expected}; it was not used."


class DeviceMissing(DeviceError):
    """The disk of a logical unit did not appear, or is gone."""

    remedy = Remedy.NEXT_PATH

    def __init__(self, where: str, detail: str) -> None:
        super().__init__(where, detail)
        self.where = where
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.where}: {self.detail}"


class MapMissing(DeviceMissing):
    """The map over a volume's paths did not appear, or is gone."""


class DeviceBusy(DeviceError):
    """Somebody has the disk open; nothing was done to it."""

    def __init__(self, device: str, openers: Sequence[str]) -> None:
        super().__init__(device, tuple(openers))
        self.device = device
        self.openers = tuple(openers)

    def __str__(self) -> str:
        return f"{self.device} is in use by {', '.join(self.openers)}; nothing was done to it."


class DeviceStuck(DeviceError):
    """The kernel did not finish an operation on the disk in time."""

    remedy = Remedy.NEXT_PATH

    def __init__(self, device: str, what: str, waited_s: float) -> None:
        super().__init__(device, what, waited_s)
        self.device = device
        self.what = what
        self.waited_s = waited_s

    def __str__(self) -> str:
        return f"{self.device}: {self.what} did not end within {self.waited_s:.1f} s."


class FlushFailed(DeviceError):
    """What was written to the disk may not have reached the storage."""

    def __init__(self, device: str, detail: str) -> None:
        super().__init__(device, detail)
        self.device = device
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.device} could not be flushed: {self.detail}; it was left connected."


class SizeUnchanged(DeviceError):
    """The disk has not grown to the size that is wanted."""

    def __init__(self, device: str, size_bytes: int, wanted_bytes: int) -> None:
        super().__init__(device, size_bytes, wanted_bytes)
        self.device = device
        self.size_bytes = size_bytes
        self.wanted_bytes = wanted_bytes

    def __str__(self) -> str:
        return f"{self.device} has {self.size_bytes} bytes, not the {self.wanted_bytes} wanted."
