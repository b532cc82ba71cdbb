"""Every error Lunport raises, in one tree.

Follows the rule that a class exists only where somebody acts differently on it.
Fields go in at construction, the sentence comes out of ``__str__``; HTTP numbers and
exit codes are decided at the edges (``api/faults.py``, ``cli/exit_codes.py``), never here.

    LunportError
      InvalidInput                      the caller must change the request
        InvalidPortal InvalidIqn InvalidLun InvalidProviderLocation
        InvalidConnectionInfo InvalidConnector InvalidConfig
      NotFound                          VolumeNotFound SnapshotNotFound
                                        AttachmentNotFound BackendNotFound
                                        VolumeTypeNotFound MetadataKeyNotFound
                                        MessageNotFound EnrolmentNotFound MigrationNotFound
                                        GuestNotFound
      Conflict                          InvalidState AlreadyExists StaleWrite AttachedElsewhere
                                        ExportLimit MigrationUndecided MigrationRefused
      Refused                           NotAuthenticated NotAllowed OverQuota GuardedAttachment
                                        VolumeApiRefused HostRevoked
                                        NotTrusted NotEnrolled NotItsHost
      HostError                         this machine or its tools failed
        CommandError CommandMissing CommandTimedOut HostLacks InitiatorDown JournalDamaged
        MultipathDown
        IscsiError                      one path: PortalUnreachable LoginTimedOut
                                        LoginRejected AuthenticationFailed TargetUnknown
                                        SessionMissing TransportMissing LunMissing,
                                        AllPathsFailed
        DeviceError                     WrongDevice DeviceMissing MapMissing DeviceBusy
                                        DeviceStuck FlushFailed SizeUnchanged
      BackendError                      OutOfSpace ExportFailed TargetDaemonDown
                                        PortalUnavailable ImageMissing ImageBusy
      HypervisorError                   PlugRejected UnplugRefused UnplugTimedOut XmlMismatch
                                        MigrationFailed
      Unavailable                       StoreUnavailable VolumeApiUnavailable AgentUnavailable
                                        HypervisorUnavailable
      UndoFailed                        the cause first, the undo's failures beside it
      PromiseBroken                     a demo or check found that it does not hold

``remedy`` says what a *planner* may do about an error; the failover fold reads nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence

from lunport.core.error_root import LunportError as LunportError
from lunport.core.error_root import Remedy as Remedy
from lunport.core.error_root import shorten as shorten
from lunport.core.host_errors import AllPathsFailed as AllPathsFailed
from lunport.core.host_errors import AuthenticationFailed as AuthenticationFailed
from lunport.core.host_errors import CommandError as CommandError
from lunport.core.host_errors import CommandMissing as CommandMissing
from lunport.core.host_errors import CommandTimedOut as CommandTimedOut
from lunport.core.host_errors import DeviceBusy as DeviceBusy
from lunport.core.host_errors import DeviceError as DeviceError
from lunport.core.host_errors import DeviceMissing as DeviceMissing
from lunport.core.host_errors import DeviceStuck as DeviceStuck
from lunport.core.host_errors import FlushFailed as FlushFailed
from lunport.core.host_errors import HostError as HostError
from lunport.core.host_errors import HostLacks as HostLacks
from lunport.core.host_errors import InitiatorDown as InitiatorDown
from lunport.core.host_errors import IscsiError as IscsiError
from lunport.core.host_errors import JournalDamaged as JournalDamaged
from lunport.core.host_errors import LoginRejected as LoginRejected
from lunport.core.host_errors import LoginTimedOut as LoginTimedOut
from lunport.core.host_errors import LunMissing as LunMissing
from lunport.core.host_errors import MapMissing as MapMissing
from lunport.core.host_errors import MultipathDown as MultipathDown
from lunport.core.host_errors import PortalUnreachable as PortalUnreachable
from lunport.core.host_errors import SessionMissing as SessionMissing
from lunport.core.host_errors import SizeUnchanged as SizeUnchanged
from lunport.core.host_errors import TargetUnknown as TargetUnknown
from lunport.core.host_errors import TransportMissing as TransportMissing
from lunport.core.host_errors import WrongDevice as WrongDevice
from lunport.core.hypervisor_errors import HypervisorError as HypervisorError
from lunport.core.hypervisor_errors import MigrationFailed as MigrationFailed
from lunport.core.hypervisor_errors import PlugRejected as PlugRejected
from lunport.core.hypervisor_errors import UnplugRefused as UnplugRefused
from lunport.core.hypervisor_errors import UnplugTimedOut as UnplugTimedOut
from lunport.core.hypervisor_errors import XmlMismatch as XmlMismatch

# -- the caller must change the request ------------------------------------------------


class InvalidInput(LunportError):
    """A value the caller gave cannot be used.

    ``what`` names the value (a key, an option), ``value`` shows it, ``reason`` says what
    would be accepted.
    """

    def __init__(self, what: str, value: object, reason: str) -> None:
        super().__init__(what, value, reason)
        self.what = what
        self.value = value
        self.reason = reason

    def __str__(self) -> str:
        return f"Invalid {self.what} {shorten(self.value)}: {self.reason}."


class InvalidPortal(InvalidInput):
    """Not an ``address[:port]``."""


class InvalidIqn(InvalidInput):
    """Not an iSCSI name (RFC 3720 section 3.2.6)."""


class InvalidLun(InvalidInput):
    """Not a logical unit number from 0 to 16383."""


class InvalidProviderLocation(InvalidInput):
    """Not a stored export location."""


class InvalidConnectionInfo(InvalidInput):
    """A connection info that cannot be acted on; names the key and the index."""


class InvalidConnector(InvalidInput):
    """What a compute host declared of itself lacks something or contradicts itself."""


class InvalidConfig(InvalidInput):
    """A setting in a configuration file."""


# -- something named does not exist ----------------------------------------------------


class NotFound(LunportError):
    """The named thing does not exist, or not for this caller."""

    kind = "Resource"

    def __init__(self, identifier: str) -> None:
        super().__init__(identifier)
        self.identifier = identifier

    def __str__(self) -> str:
        return f"{self.kind} {self.identifier} could not be found."


class VolumeNotFound(NotFound):
    """No such volume."""

    kind = "Volume"


class SnapshotNotFound(NotFound):
    """No such snapshot."""

    kind = "Snapshot"


class AttachmentNotFound(NotFound):
    """No such attachment."""

    kind = "Volume attachment"


class VolumeTypeNotFound(NotFound):
    """No such volume type."""

    kind = "Volume type"


class MessageNotFound(NotFound):
    """No such user message."""

    kind = "Message"


class GuestNotFound(NotFound):
    """No such guest on this host."""

    kind = "Guest"


class EnrolmentNotFound(NotFound):
    """No host of that name is enrolled."""

    kind = "Enrolment of host"


class MigrationNotFound(NotFound):
    """No such migration of a guest."""

    kind = "Migration"


class BackendNotFound(NotFound):
    """No such backend in the configuration."""

    kind = "Backend"


class MetadataKeyNotFound(NotFound):
    """The volume or snapshot has no metadata of that key."""

    kind = "Metadata key"


# -- the state of things forbids it ----------------------------------------------------


class Conflict(LunportError):
    """The request is well formed, but not now."""


class InvalidState(Conflict):
    """A resource is not in a state in which this can be done."""

    def __init__(self, resource: str, identifier: str, state: str, needs: str) -> None:
        super().__init__(resource, identifier, state, needs)
        self.resource = resource
        self.identifier = identifier
        self.state = state
        self.needs = needs

    def __str__(self) -> str:
        return (
            f"Invalid {self.resource}: {self.resource} {self.identifier} "
            f"status must be {self.needs}, but current status is: {self.state}."
        )


class AlreadyExists(Conflict):
    """The thing to make is already there."""

    def __init__(self, kind: str, identifier: str) -> None:
        super().__init__(kind, identifier)
        self.kind = kind
        self.identifier = identifier

    def __str__(self) -> str:
        return f"{self.kind} {self.identifier} already exists."


class StaleWrite(Conflict):
    """Somebody else changed the record first."""

    def __init__(self, resource: str, identifier: str) -> None:
        super().__init__(resource, identifier)
        self.resource = resource
        self.identifier = identifier

    def __str__(self) -> str:
        return f"{self.resource} {self.identifier} was changed by another request; try again."


class AttachedElsewhere(Conflict):
    """The volume may have one connection, and another holds it."""

    def __init__(self, volume_id: str, attachment_id: str) -> None:
        super().__init__(volume_id, attachment_id)
        self.volume_id = volume_id
        self.attachment_id = attachment_id

    def __str__(self) -> str:
        return (
            f"Volume {self.volume_id} is already connected by attachment "
            f"{self.attachment_id} and does not allow more than one."
        )


class ExportLimit(Conflict):
    """A target, or its daemon, can offer no more; ``where`` names which, ``what`` of what."""

    def __init__(self, where: str, what: str, limit: int, used: int) -> None:
        super().__init__(where, what, limit, used)
        self.where = where
        self.what = what
        self.limit = limit
        self.used = used

    def __str__(self) -> str:
        return (
            f"{self.where} has {self.used} {self.what} in use and may have {self.limit}: "
            "disconnect one that is not needed, or raise the limit."
        )


class MigrationUndecided(Conflict):
    """Where a guest lives cannot be told yet; ``reason`` says what is missing."""

    def __init__(self, migration_id: str, reason: str) -> None:
        super().__init__(migration_id, reason)
        self.migration_id = migration_id
        self.reason = reason

    def __str__(self) -> str:
        return f"Migration {self.migration_id} is not settled: {self.reason}."


class MigrationRefused(Conflict):
    """A guest may not be moved as it is; nothing was changed. ``reasons``: all of them."""

    def __init__(self, guest: str, destination: str, reasons: Sequence[str]) -> None:
        super().__init__(guest, destination, tuple(reasons))
        self.guest = guest
        self.destination = destination
        self.reasons = tuple(reasons)

    def __str__(self) -> str:
        reasons = "; ".join(self.reasons)
        return f"Guest {self.guest} cannot be moved to {self.destination}: {reasons}."


# -- the caller may not ------------------------------------------------------------------


class Refused(LunportError):
    """The caller is not allowed to do this."""


class NotAuthenticated(Refused):
    """No identity, or one that is not known."""

    def __str__(self) -> str:
        return "The request you have made requires authentication."


class NotAllowed(Refused):
    """The identity is known, and this is not for it."""

    def __init__(self, action: str) -> None:
        super().__init__(action)
        self.action = action

    def __str__(self) -> str:
        return f"Policy doesn't allow {self.action} to be performed."


class OverQuota(Refused):
    """A limit would be exceeded."""

    def __init__(self, resource: str, limit: int, used: int, requested: int) -> None:
        super().__init__(resource, limit, used, requested)
        self.resource = resource
        self.limit = limit
        self.used = used
        self.requested = requested

    def __str__(self) -> str:
        return (
            f"Quota exceeded for {self.resource}: requested {self.requested}, "
            f"used {self.used}, limit {self.limit}."
        )


class GuardedAttachment(Refused):
    """Only the service that owns the instance may take this attachment away (OSSA-2023-003)."""

    def __init__(self, volume_id: str, instance_id: str) -> None:
        super().__init__(volume_id, instance_id)
        self.volume_id = volume_id
        self.instance_id = instance_id

    def __str__(self) -> str:
        return (
            f"Volume {self.volume_id} is connected to instance {self.instance_id}: detach it "
            "on its compute host; only a request with a service token may do it here."
        )


class HostRevoked(Refused):
    """The host was cut off on purpose, and stays so until that is lifted."""

    def __init__(self, host: str, volume_id: str | None, since: str, reason: str) -> None:
        super().__init__(host, volume_id, since, reason)
        self.host = host
        self.volume_id = volume_id
        self.since = since
        self.reason = reason

    def __str__(self) -> str:
        what = "all volumes" if self.volume_id is None else f"volume {self.volume_id}"
        return (
            f"Host {self.host} is cut off from {what} since {self.since} UTC"
            f"{f' ({self.reason})' if self.reason else ''}: an administrator has to restore it."
        )


class NotTrusted(Refused):
    """The two ends of a TLS connection do not trust each other; "it" is who is at ``where``."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(where, reason)
        self.where = where
        self.reason = reason

    def __str__(self) -> str:
        return f"No trust between us and {self.where}: {self.reason}."


class NotEnrolled(Refused):
    """A certificate is good, and nobody said that its host may ask for volumes."""

    def __init__(self, hosts: Sequence[str]) -> None:
        super().__init__(tuple(hosts))
        self.hosts = tuple(hosts)

    def __str__(self) -> str:
        if not self.hosts:
            return "The certificate is trusted, and names no host."
        names = " or ".join(self.hosts)
        return (
            f"The certificate is trusted, and not exactly one host of its names is enrolled: an "
            f"administrator enrols {names} (lunport enrol add HOST --initiator IQN)."
        )


class NotItsHost(Refused):
    """The agent of a host asked for what belongs to another one, or to none."""

    def __init__(self, host: str, asked_for: str) -> None:
        super().__init__(host, asked_for)
        self.host = host
        self.asked_for = asked_for

    def __str__(self) -> str:
        return (
            f"The agent of host {self.host} may ask only for its own host's exports, "
            f"not for {self.asked_for}."
        )


class VolumeApiRefused(Refused):
    """The volume service answered a request of ours with a refusal; ``code`` is HTTP's."""

    def __init__(self, request: str, code: int, message: str) -> None:
        super().__init__(request, code, message)
        self.request = request
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return f"The volume service refuses {self.request} ({self.code}): {self.message}"


# -- the storage side failed -------------------------------------------------------------


class BackendError(LunportError):
    """Where the bytes live, or how they are offered, failed."""


class OutOfSpace(BackendError):
    """The backend cannot hold it."""

    def __init__(self, where: str, needed_bytes: int, free_bytes: int) -> None:
        super().__init__(where, needed_bytes, free_bytes)
        self.where = where
        self.needed_bytes = needed_bytes
        self.free_bytes = free_bytes

    def __str__(self) -> str:
        return f"{self.where}: {self.told}"

    @property
    def told(self) -> str:
        """What users are told: the numbers, not the operator's paths."""
        return (
            f"Out of space: {self.needed_bytes / 2**20:.0f} MiB needed, "
            f"{self.free_bytes / 2**20:.0f} MiB free; free some or add storage."
        )


class ImageMissing(BackendError):
    """The bytes of a volume or snapshot are not where they must be."""

    def __init__(self, where: str) -> None:
        super().__init__(where)
        self.where = where

    def __str__(self) -> str:
        return f"{self.where} is gone."


class ImageBusy(BackendError):
    """A volume cannot be copied now, because a host may be writing to it."""

    def __init__(self, volume_id: str) -> None:
        super().__init__(volume_id)
        self.volume_id = volume_id

    def __str__(self) -> str:
        return (
            f"Volume {self.volume_id} was connected to a host before it could be copied; "
            "disconnect it and try again."
        )


class ExportFailed(BackendError):
    """The target could not be set up or taken down as asked."""

    def __init__(self, target: str, step: str, detail: str) -> None:
        super().__init__(target, step, detail)
        self.target = target
        self.step = step
        self.detail = detail

    def __str__(self) -> str:
        return f"Export of {self.target} failed at {self.step}: {self.detail}"


class TargetDaemonDown(BackendError):
    """The iSCSI target daemon does not run, or does not answer."""

    def __init__(self, daemon: str, detail: str) -> None:
        super().__init__(daemon, detail)
        self.daemon = daemon
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.daemon} is not usable: {self.detail}"


class PortalUnavailable(BackendError):
    """A configured portal cannot be bound."""

    def __init__(self, portal: str, detail: str) -> None:
        super().__init__(portal, detail)
        self.portal = portal
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.portal} cannot be bound: {self.detail}"


# -- a part is not there now -------------------------------------------------------------


class Unavailable(LunportError):
    """A part that is needed does not answer now; the same request may work later."""

    remedy = Remedy.SAME_PATH_LATER

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail

    def __str__(self) -> str:
        return self.detail


class StoreUnavailable(Unavailable):
    """The database cannot be used."""


class VolumeApiUnavailable(Unavailable):
    """The volume service does not answer."""


class AgentUnavailable(Unavailable):
    """This host's agent does not answer; what it was asked for may be done or half done."""


class HypervisorUnavailable(Unavailable):
    """The hypervisor's daemon does not answer; what it was asked for may be done."""


class UndoFailed(LunportError):
    """A step failed, and undoing the earlier ones failed as well."""

    def __init__(self, cause: Exception, failures: Sequence[Exception]) -> None:
        super().__init__(cause, tuple(failures))
        self.cause = cause
        self.failures = tuple(failures)

    def __str__(self) -> str:
        return f"{self.cause} (and the undo failed: {'; '.join(map(str, self.failures))})"


class PromiseBroken(LunportError):
    """What is promised to hold was looked at, and does not."""

    def __init__(self, promise: str, found: str) -> None:
        super().__init__(promise, found)
        self.promise = promise
        self.found = found

    def __str__(self) -> str:
        return f"{self.promise} does not hold: {self.found}"
