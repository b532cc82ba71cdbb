"""Keep what guests with our volumes need: unfinished work, secrets, their start with the host.

    finish    what a killed attach or detach left is taken away
    secrets   the hypervisor forgets ours when it is restarted, and gets them again
    start     after a reboot: once all volumes of a guest are back, the guest

The hypervisor itself would start a guest before its disks are there; so its own autostart is
off for those guests, and done here, once in each boot of the host. Works without the service,
but for attachments that have to be deleted. Touches no guest that has no volume of ours.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import replace

from lunport.agent.guest_parts import GuestParts
from lunport.agent.recovery_line import RecoveryLine
from lunport.core.errors import GuestNotFound, LunportError, Unavailable
from lunport.core.guest_attachment import GuestAttachment, GuestPhase, OwnedGuest
from lunport.core.guest_disk import InitiatorKind
from lunport.core.host_connection import Phase
from lunport.host.clock import Deadline

_LOG = logging.getLogger(__name__)

_CUT_OFF = (GuestPhase.ATTACHING, GuestPhase.DETACHING)
_LOCK_S = 0.2
_ROUND_S = 60.0
_PAUSE_S = 5.0


class GuestKeeper:
    """The guests of one host. A round may be asked for from any thread.

    ``is_host_ready``: the host's own recovery has had its first turn, so that what is connected
    is known. ``moves``: finishes moves of guests that were cut off.
    """

    def __init__(
        self,
        parts: GuestParts,
        *,
        is_host_ready: Callable[[], bool] = lambda: True,
        moves: Callable[[Deadline], tuple[RecoveryLine, ...]] = lambda _deadline: (),
    ) -> None:
        self._parts = parts
        self._is_host_ready = is_host_ready
        self._moves = moves
        self._stop = threading.Event()
        self._told: dict[str, str] = {}
        self._thread = threading.Thread(target=self._run, name="guest-keeper", daemon=True)

    def start(self) -> None:
        """Begin with rounds, in a thread of its own."""
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """End the rounds."""
        self._stop.set()
        self._thread.join(timeout_s)

    def round(self, deadline: Deadline) -> tuple[RecoveryLine, ...]:
        """Do all that is due now; tell what was done, and what could not be. Idempotent."""
        return (
            *self._moves(deadline),
            *self.finish(deadline),
            *self.keep_secrets(deadline),
            *self.start_guests(deadline),
        )

    def finish(self, deadline: Deadline) -> tuple[RecoveryLine, ...]:
        """Take away what attaches and detaches that were cut off have left."""
        self._parts.journal.sweep()
        lines = []
        for entry in self._parts.entries():
            if entry.phase in _CUT_OFF:
                line = self._finish(entry, deadline)
                if line is not None:
                    lines.append(line)
        return tuple(lines)

    def _finish(self, entry: GuestAttachment, deadline: Deadline) -> RecoveryLine | None:
        parts = self._parts
        sentence = (
            f"Take volume {entry.volume_id} from guest {entry.guest_name}: its "
            f"{'attach' if entry.phase is GuestPhase.ATTACHING else 'detach'} was cut off."
        )
        try:
            with parts.alone(entry.guest_id, entry.volume_id, deadline.at_most(_LOCK_S)):
                now = parts.journal.get(entry.guest_id, entry.volume_id)
                if now is None or now.phase not in _CUT_OFF:
                    return None
                parts.take_away(now, deadline)
        except Unavailable as error:
            # Whoever is at work on it has the lock; a daemon that is away comes back.
            return RecoveryLine("failed", sentence, str(error))
        except LunportError as error:
            return RecoveryLine("failed", sentence, str(error))
        return RecoveryLine("done", sentence)

    def keep_secrets(self, deadline: Deadline) -> tuple[RecoveryLine, ...]:
        """Give the hypervisor the secrets again that it has lost."""
        due = {
            entry.secret_id: entry
            for entry in self._parts.entries()
            if entry.phase is GuestPhase.ATTACHED and entry.secret_id is not None
        }
        if not due:
            return ()
        lines = []
        try:
            there = set(self._parts.hypervisor.secrets(deadline))
        except LunportError as error:
            return (RecoveryLine("failed", "Look which secrets the hypervisor has.", str(error)),)
        for secret_id, entry in due.items():
            if secret_id is not None and secret_id not in there:
                line = self._keep_secret(secret_id, entry, deadline)
                if line is not None:
                    lines.append(line)
        return tuple(lines)

    def _keep_secret(
        self, secret_id: str, entry: GuestAttachment, deadline: Deadline
    ) -> RecoveryLine | None:
        parts = self._parts
        volume = f"volume {entry.volume_id} of guest {entry.guest_name}"
        sentence = f"Give the hypervisor the secret of {volume} again."
        try:
            with parts.alone(entry.guest_id, entry.volume_id, deadline.at_most(_LOCK_S)):
                # Whoever took it from the guest meanwhile took the secret before the entry.
                now = parts.journal.get(entry.guest_id, entry.volume_id)
                if now is None or (now.phase, now.secret_id) != (GuestPhase.ATTACHED, secret_id):
                    return None
                chap = parts.journal.chap(now)
                if chap is None:
                    return None
                parts.keep_secret(now, secret_id, chap, deadline)
        except LunportError as error:
            return RecoveryLine("failed", sentence, str(error))
        return RecoveryLine("done", sentence)

    def start_guests(self, deadline: Deadline) -> tuple[RecoveryLine, ...]:
        """Start the guests that are due in this boot and whose volumes are all there."""
        boot_id = self._parts.boot_id()
        due = [
            owned
            for owned in self._parts.journal.owned()
            if owned.uri == self._parts.uri and owned.autostart and owned.boot_id != boot_id
        ]
        if not due or not self._is_host_ready():
            return ()
        lines = []
        for owned in due:
            line = self._start(owned, boot_id, deadline)
            if line is not None:
                lines.append(line)
        return tuple(lines)

    def _start(self, owned: OwnedGuest, boot_id: str, deadline: Deadline) -> RecoveryLine | None:
        parts = self._parts
        sentence = f"Start guest {owned.guest_name}, as before this host was started anew."
        try:
            missing = self._missing(owned, boot_id)
            if missing is not None:
                return RecoveryLine("failed", sentence, missing)
            parts.hypervisor.start(owned.guest_id, deadline)
        except GuestNotFound:
            parts.journal.disown(owned.guest_id)
            return None
        except LunportError as error:
            return RecoveryLine("failed", sentence, str(error))
        parts.journal.own(replace(owned, boot_id=boot_id))
        return RecoveryLine("done", sentence)

    def _missing(self, owned: OwnedGuest, boot_id: str) -> str | None:
        """Say which volume of a guest is not there yet."""
        here = {
            one.volume_id
            for one in self._parts.host.connections()
            if one.phase is Phase.CONNECTED and one.boot_id == boot_id
        }
        for entry in self._parts.journal.of_guest(owned.guest_id):
            if entry.phase is not GuestPhase.ATTACHED:
                return f"volume {entry.volume_id} is being {entry.phase.value}"
            if entry.initiator is InitiatorKind.KERNEL and entry.volume_id not in here:
                return f"volume {entry.volume_id} is not connected yet"
        return None

    # -- the thread --------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._tell(self.round(Deadline.after(_ROUND_S)))
            except LunportError as error:
                _LOG.warning("guests_not_kept error=%s", error)
            self._stop.wait(_PAUSE_S)

    def _tell(self, lines: tuple[RecoveryLine, ...]) -> None:
        """Log what was done, and what fails when it begins to."""
        failing = {line.sentence: line.error or "" for line in lines if line.outcome == "failed"}
        for line in lines:
            if line.outcome != "failed":
                _LOG.info("guest_kept outcome=%s %s", line.outcome, line.sentence)
            elif self._told.get(line.sentence) != line.error:
                _LOG.warning("guest_not_kept %s %s", line.sentence, line.error)
        self._told = failing
