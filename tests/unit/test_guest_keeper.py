"""Tests of what guests get back after a reboot or a restart of the hypervisor's daemon."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lunport.agent.attach import AttachWish, attach
from lunport.agent.detach import detach
from lunport.agent.guest_keeper import GuestKeeper
from lunport.agent.recovery_line import RecoveryLine
from lunport.core.errors import HypervisorError, HypervisorUnavailable
from lunport.core.guest_attachment import GuestAttachment, GuestPhase
from lunport.core.guest_disk import InitiatorKind
from lunport.host.clock import Deadline
from tests.fakes.guest_play import ENDPOINT, GUEST, SECRET, URI, VOLUME, GuestPlay

KINDS = list(InitiatorKind)


@pytest.fixture
def play(tmp_path: Path) -> GuestPlay:
    """A host with one running guest that libvirt starts with the host."""
    played = GuestPlay(tmp_path)
    played.hypervisor.define(GUEST, "web").autostart = True
    return played


def attach_it(play: GuestPlay, kind: InitiatorKind) -> None:
    """Attach the volume."""
    attach(play.parts(), "web", VOLUME, ENDPOINT, AttachWish(kind), Deadline.after(10))


def reboot(play: GuestPlay) -> None:
    """Boot the host anew: no guest runs, no secret is known, nothing is connected."""
    play.boot_id = f"{play.boot_id}-again"
    play.hypervisor.stop(GUEST)
    play.hypervisor.restart_daemon()


def come_back(play: GuestPlay) -> None:
    """Connect again what was connected, as the host's recovery does."""
    for key, entry in play.initiator.entries.items():
        play.initiator.entries[key] = replace(entry, boot_id=play.boot_id)


def is_running(play: GuestPlay) -> bool:
    """Tell whether the guest runs."""
    return play.hypervisor.guest("web", Deadline.after(1)).is_active


def outcomes(play: GuestPlay, **more: object) -> list[str]:
    """Make one round."""
    keeper = GuestKeeper(play.parts(), **more)  # type: ignore[arg-type]
    return [line.outcome for line in keeper.round(Deadline.after(5))]


@pytest.mark.parametrize("kind", KINDS)
def test_a_reboot_brings_the_guest_back(play: GuestPlay, kind: InitiatorKind) -> None:
    """The hypervisor's autostart is off; after a reboot the guest starts once its disk is there."""
    attach_it(play, kind)
    assert play.hypervisor.known[GUEST].autostart is False
    assert outcomes(play) == []
    reboot(play)
    assert outcomes(play, is_host_ready=lambda: False) == (
        [] if kind is InitiatorKind.KERNEL else ["done"]
    )
    assert not is_running(play)
    if kind is InitiatorKind.KERNEL:
        assert outcomes(play) == ["failed"]
        assert not is_running(play)
        come_back(play)
    assert outcomes(play) == ["done"]
    assert is_running(play)
    assert outcomes(play) == []


def test_a_guest_is_started_once_in_a_boot(play: GuestPlay) -> None:
    """A guest that somebody shut down after its start stays down until the next reboot."""
    attach_it(play, InitiatorKind.QEMU)
    play.hypervisor.stop(GUEST)
    assert outcomes(play) == []
    reboot(play)
    outcomes(play)
    assert is_running(play)
    play.hypervisor.stop(GUEST)
    assert outcomes(play) == []
    assert not is_running(play)


def test_the_last_detach_gives_the_start_back(play: GuestPlay) -> None:
    """A guest without a volume of ours is started by its hypervisor again."""
    attach_it(play, InitiatorKind.QEMU)
    detach(play.parts(), "web", VOLUME, Deadline.after(5))
    assert play.hypervisor.known[GUEST].autostart is True
    assert play.left() == {}


def test_other_guests_are_left_alone(play: GuestPlay) -> None:
    """A guest that libvirt did not start is not started by us, with or without our volumes."""
    play.hypervisor.known[GUEST].autostart = False
    attach_it(play, InitiatorKind.QEMU)
    reboot(play)
    assert outcomes(play) == ["done"]  # the secret, for whoever starts it
    assert not is_running(play)


def test_a_restarted_daemon_gets_its_secrets_again(play: GuestPlay) -> None:
    """The store forgets its secrets with its daemon; they come back, without the service."""
    attach_it(play, InitiatorKind.QEMU)
    before = dict(play.hypervisor.kept)
    play.hypervisor.restart_daemon()
    calls = len(play.service.calls)
    assert outcomes(play) == ["done"]
    assert play.hypervisor.kept == before
    ((_, value),) = play.hypervisor.kept.values()
    assert value.reveal() == SECRET
    assert len(play.service.calls) == calls


def test_half_a_secret_of_a_killed_attach_is_swept(play: GuestPlay) -> None:
    """What was being written of the credentials goes with the next round."""
    attach_it(play, InitiatorKind.QEMU)
    journal = play.parts().journal
    (whole,) = (journal.folder / "credentials").iterdir()
    half = whole.with_name(f".{whole.name}.0123456789ab.partial")
    half.write_text("half a sec")
    assert outcomes(play) == []
    assert (half.exists(), whole.exists()) == (False, True)


def test_the_secret_of_a_guest_that_leaves_does_not_come_back(play: GuestPlay) -> None:
    """Whoever moves the guest away takes the secret first, and then what the journal says."""
    attach_it(play, InitiatorKind.QEMU)
    seen: list[RecoveryLine] = []

    def look(_step: str) -> None:
        seen.extend(GuestKeeper(play.parts()).keep_secrets(Deadline.after(5)))

    parts = replace(play.parts(), on_step=look)
    (entry,) = parts.journal.all()
    with parts.alone(GUEST, VOLUME, Deadline.after(5)):
        parts.release(entry, Deadline.after(5))
    assert [line.outcome for line in seen] == ["failed", "failed"]
    assert all("busy" in str(line.error) for line in seen)
    assert play.hypervisor.kept == {}


def test_a_start_that_fails_is_tried_again(play: GuestPlay) -> None:
    """A guest that could not be started is started by a later round."""
    attach_it(play, InitiatorKind.QEMU)
    reboot(play)
    play.hypervisor.failures["start"] = HypervisorError("starting the guest", "no memory")
    assert outcomes(play) == ["done", "failed"]
    assert outcomes(play) == ["done"]
    assert is_running(play)


def test_a_hypervisor_that_is_away_is_waited_for(play: GuestPlay) -> None:
    """While libvirt does not answer nothing is given up."""
    attach_it(play, InitiatorKind.QEMU)
    reboot(play)
    for verb in ("secrets", "start"):
        play.hypervisor.failures[verb] = HypervisorUnavailable("libvirt is away")
    assert outcomes(play) == ["failed", "failed"]
    assert outcomes(play) == ["done", "done"]
    assert is_running(play)


def test_a_guest_that_was_undefined_is_forgotten(play: GuestPlay) -> None:
    """A guest that is gone is not waited for in every boot."""
    attach_it(play, InitiatorKind.QEMU)
    reboot(play)
    play.hypervisor.known.clear()
    assert outcomes(play) == ["done"]
    assert play.parts().journal.owned() == ()


def test_work_under_way_is_left_to_who_does_it(play: GuestPlay) -> None:
    """An attach that another process is at is not taken for one that was cut off."""
    parts = play.parts()
    with parts.alone(None, VOLUME, Deadline.after(1)):
        entry = GuestAttachment(
            uri=URI,
            guest_id=GUEST,
            guest_name="web",
            volume_id=VOLUME,
            endpoint=ENDPOINT,
            phase=GuestPhase.ATTACHING,
            initiator=InitiatorKind.KERNEL,
            multipath=None,
            attachment_id="attachment-9",
            target=None,
            since=1.0,
        )
        parts.journal.write(entry)
        (line,) = GuestKeeper(parts).finish(Deadline.after(5))
        assert line.outcome == "failed"
        assert "busy" in str(line.error)
    assert parts.journal.all() == (entry,)


def test_the_thread_ends_when_it_is_told(play: GuestPlay) -> None:
    """Rounds are made until the stop, which is prompt."""
    keeper = GuestKeeper(play.parts())
    keeper.start()
    keeper.stop(5)
    assert not keeper._thread.is_alive()
