"""Tests of giving guests volumes and taking them away, on a host and a service that are played."""

from __future__ import annotations

from pathlib import Path

import pytest

from lunport.agent.attach import Attached, AttachWish, attach
from lunport.agent.detach import detach, extend
from lunport.agent.guest_keeper import GuestKeeper
from lunport.client.block_storage import Volume
from lunport.core.attachment import AttachMode
from lunport.core.change import Change
from lunport.core.errors import (
    AllPathsFailed,
    Conflict,
    DeviceBusy,
    DeviceMissing,
    GuestNotFound,
    HypervisorUnavailable,
    InvalidConnectionInfo,
    InvalidInput,
    LunportError,
    PlugRejected,
    PortalUnreachable,
    UndoFailed,
    UnplugRefused,
    UnplugTimedOut,
    VolumeApiUnavailable,
    VolumeNotFound,
)
from lunport.core.guest_attachment import GuestPhase
from lunport.core.guest_disk import DiskBus, InitiatorKind
from lunport.host.clock import Deadline
from tests.fakes.fake_hypervisor import Manner
from tests.fakes.guest_play import ENDPOINT, GUEST, SECRET, VOLUME, GuestPlay, Killed

KINDS = list(InitiatorKind)
DOWN = VolumeApiUnavailable("the service is down")
SILENT = HypervisorUnavailable("libvirt did not answer")
SECOND = "d0000000-0000-4000-8000-000000000002"


@pytest.fixture
def play(tmp_path: Path) -> GuestPlay:
    """A host with one running guest, ``web``."""
    played = GuestPlay(tmp_path)
    played.hypervisor.define(GUEST, "web")
    return played


def attached(
    play: GuestPlay, kind: InitiatorKind = InitiatorKind.KERNEL, guest: str = "web", **more: object
) -> Attached:
    """Attach the volume."""
    wish = AttachWish(initiator=kind, **more)  # type: ignore[arg-type]
    return attach(play.parts(), guest, VOLUME, ENDPOINT, wish, Deadline.after(10))


def detached(play: GuestPlay, guest: str = "web") -> Change:
    """Detach the volume."""
    return detach(play.parts(), guest, VOLUME, Deadline.after(10))


@pytest.mark.parametrize("kind", KINDS)
def test_a_volume_comes_and_goes(play: GuestPlay, kind: InitiatorKind) -> None:
    """A guest has the volume now and at its next start, the service knows it; then all is gone."""
    done = attached(play, kind)
    assert done.change is Change.CHANGED
    guest = play.hypervisor.guest("web", Deadline.after(1))
    for disk in (guest.live_disk(VOLUME), guest.persistent_disk(VOLUME)):
        assert disk is not None
        assert (disk.target, disk.alias, disk.initiator) == ("vdb", f"ua-{VOLUME}", kind)
    (attachment,) = play.service.attachments.values()
    assert (attachment.status, attachment.instance) == ("attached", GUEST)
    (entry,) = play.parts().journal.all()
    assert (entry.phase, entry.target, entry.attachment_id) == (
        GuestPhase.ATTACHED,
        "vdb",
        attachment.id,
    )
    assert detached(play) is Change.CHANGED
    assert play.left() == {}


@pytest.mark.parametrize("kind", KINDS)
def test_both_verbs_can_be_repeated(play: GuestPlay, kind: InitiatorKind) -> None:
    """A second attach shows what there is, a second detach finds nothing."""
    first = attached(play, kind)
    calls = len(play.service.calls)
    second = attached(play, kind)
    assert (second.change, second.disk) == (Change.UNCHANGED, first.disk)
    assert len(play.service.calls) == calls
    assert detached(play) is Change.CHANGED
    assert detached(play) is Change.UNCHANGED


def test_the_kernel_s_disk_has_a_lasting_name(play: GuestPlay) -> None:
    """A block disk names its device by a link that outlives a restart; the host keeps a note."""
    done = attached(play)
    assert done.disk.source == "/dev/disk/by-id/of-dev-sda"
    (note,) = play.parts().notes.all()
    assert note.attachment_id == done.entry.attachment_id
    assert play.hypervisor.kept == {}


def test_the_secret_is_in_the_store_alone(play: GuestPlay) -> None:
    """A network disk names a secret of libvirt's store; the XML and the journal entry hold none."""
    done = attached(play, InitiatorKind.QEMU)
    secret_id = done.entry.secret_id
    assert secret_id is not None
    assert done.disk.secret_id == secret_id
    usage, value = play.hypervisor.kept[secret_id]
    assert (usage, value.reveal()) == (f"lunport/{done.entry.attachment_id}", SECRET)
    assert SECRET not in done.disk.xml
    entries = list(play.folder.glob("guests/attachments/*"))
    assert all(SECRET not in file.read_text() for file in entries)
    (credentials,) = play.folder.glob("guests/credentials/*")
    assert credentials.stat().st_mode & 0o077 == 0


def test_qemu_gets_the_portal_that_works(play: GuestPlay) -> None:
    """Of several portals the one that answers is written into the disk, and nothing connected."""
    play.dead.add("10.0.1.2")
    done = attached(play, InitiatorKind.QEMU)
    assert done.disk.portal == "10.0.2.2:3260"
    assert play.initiator.calls == []
    assert play.service.connectors[0].multipath is False


def test_what_the_storage_side_says_is_in_the_disk(play: GuestPlay) -> None:
    """Read-only, shared, block sizes, limits and no discard reach the guest's disk."""
    play.service.volumes[VOLUME] = Volume(VOLUME, "available", 1, multiattach=True)
    play.service.info |= {
        "discard": False,
        "physical_block_size": 4096,
        "qos_specs": {"total_iops_sec": "100"},
    }
    done = attached(play, mode=AttachMode.READ_ONLY, bus=DiskBus.SCSI, target="sdc")
    assert (done.disk.target, done.disk.bus) == ("sdc", "scsi")
    assert done.disk.is_readonly
    assert done.disk.is_shareable
    assert "discard=" not in done.disk.xml
    assert "<blockio physical_block_size='4096'/>" in done.disk.xml
    assert "<total_iops_sec>100</total_iops_sec>" in done.disk.xml


def test_a_guest_that_is_off_has_it_at_its_next_start(play: GuestPlay) -> None:
    """A guest that does not run gets the disk in its definition alone."""
    play.hypervisor.stop(GUEST)
    attached(play)
    guest = play.hypervisor.guest("web", Deadline.after(1))
    assert guest.live_disk(VOLUME) is None
    assert guest.persistent_disk(VOLUME) is not None
    assert detached(play) is Change.CHANGED
    assert play.left() == {}


# -- failures ------------------------------------------------------------------------------

FAILURES: list[tuple[str, str, LunportError]] = [
    ("service", "volume", VolumeNotFound(VOLUME)),
    ("service", "create", Conflict("it is in use")),
    ("service", "offer", DOWN),
    ("host", "connect", AllPathsFailed([PortalUnreachable("10.0.1.2:3260", "refused")])),
    ("hypervisor", "plug", PlugRejected("web", "vdb", "no more PCI slots")),
    ("service", "complete", DOWN),
]


@pytest.mark.parametrize("where, step, error", FAILURES, ids=lambda one: str(one)[:20])
@pytest.mark.parametrize("kind", KINDS)
def test_a_failed_step_leaves_nothing(
    play: GuestPlay, kind: InitiatorKind, where: str, step: str, error: LunportError
) -> None:
    """Whichever step fails, its error is told, and nothing is left anywhere."""
    if where == "service":
        play.service.failures[step] = error
    elif where == "hypervisor":
        play.hypervisor.failures[step] = error
    elif kind is InitiatorKind.KERNEL:
        play.initiator.failures[step] = error
    else:
        play.choice_failure = error
    with pytest.raises(type(error)):
        attached(play, kind)
    assert play.left() == {}
    play.choice_failure = None
    assert attached(play, kind).change is Change.CHANGED


@pytest.mark.parametrize("request_name", ["create", "offer", "complete"])
def test_a_lost_answer_leaves_nothing(play: GuestPlay, request_name: str) -> None:
    """A request that was carried out and never answered is undone as well."""
    play.service.late_failures[request_name] = DOWN
    with pytest.raises(VolumeApiUnavailable):
        attached(play)
    assert play.left() == {}


@pytest.mark.parametrize("verb", ["plug", "keep_secret"])
def test_a_hypervisor_that_did_it_and_was_silent(play: GuestPlay, verb: str) -> None:
    """A disk or secret that came although libvirt never said so is taken away again."""
    play.hypervisor.late_failures[verb] = SILENT
    with pytest.raises(HypervisorUnavailable):
        attached(play, InitiatorKind.QEMU)
    assert play.left() == {}


@pytest.mark.parametrize("kind", KINDS)
def test_an_undo_that_fails_is_finished_later(play: GuestPlay, kind: InitiatorKind) -> None:
    """When the undo fails too, both errors are told, and a recovery or another attach goes on."""
    play.service.failures["complete"] = DOWN
    play.hypervisor.failures["unplug"] = SILENT
    with pytest.raises(UndoFailed) as failed:
        attached(play, kind)
    assert failed.value.cause is DOWN
    assert [one.outcome for one in GuestKeeper(play.parts()).finish(Deadline.after(5))] == ["done"]
    assert play.left() == {}


def test_mutual_chap_is_refused_for_qemu(play: GuestPlay) -> None:
    """What QEMU's initiator can't do is said before a disk is made, and nothing is left."""
    play.service.info |= {"mutual_auth_username": "t", "mutual_auth_password": "Secret4Target12"}
    with pytest.raises(InvalidConnectionInfo, match="cannot make the target prove itself"):
        attached(play, InitiatorKind.QEMU)
    assert play.left() == {}
    assert attached(play, InitiatorKind.KERNEL).change is Change.CHANGED


def test_odd_wishes_are_refused_before_anything(play: GuestPlay) -> None:
    """A guest that is not there, or a name that the bus does not have, begins nothing."""
    with pytest.raises(GuestNotFound):
        attached(play, guest="nobody")
    with pytest.raises(InvalidInput, match="expected vd and letters"):
        attached(play, target="sdb")
    assert play.service.calls == []
    assert play.left() == {}


def test_a_disk_that_somebody_else_attached_is_left(play: GuestPlay) -> None:
    """A volume that the guest has without us is neither attached again nor taken away."""
    attached(play)
    play.parts().journal.remove(play.parts().journal.all()[0])
    with pytest.raises(Conflict, match="not attached here"):
        attached(play)
    with pytest.raises(Conflict, match="not attached here"):
        detached(play)
    assert play.hypervisor.guest("web", Deadline.after(1)).live_disk(VOLUME) is not None


def test_another_hypervisor_s_guest_is_not_taken_for_gone(play: GuestPlay) -> None:
    """What was attached at one hypervisor is not taken away at another, where no guest is."""
    attached(play, InitiatorKind.QEMU)
    known = dict(play.hypervisor.known)
    play.uri = "qemu:///session"
    play.hypervisor.known.clear()
    with pytest.raises(Conflict, match="at qemu:///system, not at qemu:///session"):
        detached(play)
    assert GuestKeeper(play.parts()).round(Deadline.after(5)) == ()
    play.uri = "qemu:///system"
    play.hypervisor.known |= known
    assert detached(play) is Change.CHANGED
    assert play.left() == {}


def test_another_initiator_is_a_conflict(play: GuestPlay) -> None:
    """A volume that the guest has by one initiator is not given to it by the other as well."""
    attached(play, InitiatorKind.KERNEL)
    with pytest.raises(Conflict, match="by the initiator of kernel"):
        attached(play, InitiatorKind.QEMU)


# -- kills ---------------------------------------------------------------------------------

ATTACH_STEPS = ("noted", "reserved", "offered", "connected", "plugged", "completed")
DETACH_STEPS = ("noted", "unplugged", "disconnected", "deleted")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("step", ATTACH_STEPS)
@pytest.mark.parametrize("then", ["attach", "detach", "recover"])
def test_a_killed_attach_is_finished_or_undone(
    play: GuestPlay, kind: InitiatorKind, step: str, then: str
) -> None:
    """After a kill behind any step another attach finishes it, a detach or a recovery undoes it."""
    play.kill_at = step
    with pytest.raises(Killed):
        attached(play, kind)
    if then == "attach":
        assert attached(play, kind).entry.phase is GuestPhase.ATTACHED
        assert len(play.service.attachments) == 1
        detached(play)
    elif then == "detach":
        detached(play)
    else:
        lines = GuestKeeper(play.parts()).round(Deadline.after(5))
        assert [line.outcome for line in lines] == ["done"]
    assert play.left() == {}


def test_a_kill_before_the_answer_was_noted(play: GuestPlay) -> None:
    """An attachment that was reserved and never noted is found again by guest and volume."""
    play.service.late_failures["create"] = Killed()
    with pytest.raises(Killed):
        attached(play)
    assert len(play.service.attachments) == 1
    done = attached(play)
    assert list(play.service.attachments) == [done.entry.attachment_id]
    detached(play)
    assert play.left() == {}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("step", DETACH_STEPS)
@pytest.mark.parametrize("then", ["attach", "detach", "recover"])
def test_a_killed_detach_is_finished(
    play: GuestPlay, kind: InitiatorKind, step: str, then: str
) -> None:
    """After a kill behind any step a detach or a recovery goes on, an attach begins anew."""
    attached(play, kind)
    play.kill_at = step
    with pytest.raises(Killed):
        detached(play)
    if then == "attach":
        assert attached(play, kind).change is Change.CHANGED
        detached(play)
    elif then == "detach":
        assert detached(play) is Change.CHANGED
    else:
        lines = GuestKeeper(play.parts()).round(Deadline.after(5))
        assert [line.outcome for line in lines] == ["done"]
    assert play.left() == {}


# -- detaching -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "manner, error", [(Manner.SLOW, UnplugTimedOut), (Manner.REFUSING, UnplugRefused)]
)
def test_a_guest_that_keeps_its_disk(
    play: GuestPlay, manner: Manner, error: type[LunportError]
) -> None:
    """A guest that refuses is told from one that is slow; in both cases all stays as it was."""
    attached(play)
    play.hypervisor.known[GUEST].manner = manner
    with pytest.raises(error):
        detached(play)
    (entry,) = play.parts().journal.all()
    assert entry.phase is GuestPhase.ATTACHED
    assert len(play.service.attachments) == len(play.initiator.entries) == 1
    assert GuestKeeper(play.parts()).round(Deadline.after(5)) == ()
    play.hypervisor.known[GUEST].manner = Manner.WILLING
    assert detached(play) is Change.CHANGED
    assert play.left() == {}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", ["guest", "disk"])
def test_what_is_gone_already_is_a_clean_detach(
    play: GuestPlay, kind: InitiatorKind, what: str
) -> None:
    """A guest that was undefined, or lost the disk, is no obstacle."""
    attached(play, kind)
    if what == "guest":
        del play.hypervisor.known[GUEST]
    else:
        play.hypervisor.unplug(GUEST, VOLUME, Deadline.after(1))
    assert detached(play) is Change.CHANGED
    assert play.left() == {}


def test_a_detach_without_the_service_waits_for_it(play: GuestPlay) -> None:
    """With the service away the guest loses the disk; the attachment goes once it is back."""
    attached(play)
    play.service.failures["delete"] = DOWN
    with pytest.raises(VolumeApiUnavailable):
        detached(play)
    assert play.initiator.entries == {}
    (line,) = GuestKeeper(play.parts()).round(Deadline.after(5))
    assert line.outcome == "done"
    assert play.left() == {}


def test_a_disk_that_is_busy_stays_connected(play: GuestPlay) -> None:
    """When the host's disk can't go, the attachment stays, and the next detach goes on."""
    attached(play)
    play.initiator.failures["disconnect"] = DeviceBusy("/dev/sda", ["mounted on /mnt"])
    with pytest.raises(DeviceBusy):
        detached(play)
    assert len(play.service.attachments) == 1
    assert detached(play) is Change.CHANGED
    assert play.left() == {}


@pytest.mark.parametrize("kind", KINDS)
def test_a_forgotten_attachment_s_disk_is_made_anew(play: GuestPlay, kind: InitiatorKind) -> None:
    """When the service has forgotten the attachment of a cut off attach, its disk is replaced."""
    play.kill_at = "plugged"
    with pytest.raises(Killed):
        attached(play, kind)
    play.service.attachments.clear()
    done = attached(play, kind)
    assert done.entry.attachment_id in play.service.attachments
    assert done.disk.secret_id == done.entry.secret_id
    assert play.hypervisor.calls.count("unplug") == 1
    detached(play)
    assert play.left() == {}


def test_an_attachment_that_was_never_noted_is_deleted(play: GuestPlay) -> None:
    """A recovery finds it as well, and gives the volume back."""
    play.service.late_failures["create"] = Killed()
    with pytest.raises(Killed):
        attached(play)
    assert [one.outcome for one in GuestKeeper(play.parts()).finish(Deadline.after(5))] == ["done"]
    assert play.left() == {}


def test_two_guests_share_a_volume(play: GuestPlay) -> None:
    """Each guest has an attachment of its own; the second one's detach leaves the first's disk."""
    play.hypervisor.define(SECOND, "db")
    play.service.volumes[VOLUME] = Volume(VOLUME, "in-use", 1, multiattach=True)
    attached(play, InitiatorKind.QEMU)
    attached(play, InitiatorKind.QEMU, guest="db")
    assert len(play.service.attachments) == len(play.hypervisor.kept) == 2
    detached(play, "db")
    assert len(play.service.attachments) == len(play.hypervisor.kept) == 1
    assert play.hypervisor.guest("web", Deadline.after(1)).live_disk(VOLUME) is not None
    detached(play)
    assert play.left() == {}


# -- extending -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_larger_volume_reaches_the_guest(play: GuestPlay, kind: InitiatorKind) -> None:
    """The guest is told the size that the host sees, or, for QEMU's initiator, the service's."""
    attached(play, kind)
    play.service.volumes[VOLUME] = Volume(VOLUME, "in-use", 2)
    assert extend(play.parts(), "web", VOLUME, Deadline.after(5)) == 2 << 30
    assert play.hypervisor.known[GUEST].sizes == {VOLUME: 2 << 30}


def test_a_guest_without_the_volume_is_not_extended(play: GuestPlay) -> None:
    """A volume that the guest does not have is said to be missing."""
    with pytest.raises(DeviceMissing, match="guest web does not have it"):
        extend(play.parts(), "web", VOLUME, Deadline.after(5))
