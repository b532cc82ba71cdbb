"""Tests of ``lunport host`` on an initiator and a volume service that are played."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import click
import pytest

from lunport.bootstrap.host_volumes import Locks, VolumeApi
from lunport.cli.exit_codes import exit_code_of
from lunport.cli.host import host
from lunport.cli.host_parts import HostInitiator, HostParts
from lunport.core.connector import Connector
from lunport.core.errors import (
    AllPathsFailed,
    DeviceBusy,
    JournalDamaged,
    LunportError,
    PortalUnreachable,
    UndoFailed,
    VolumeApiUnavailable,
    VolumeNotFound,
)
from lunport.core.guest_attachment import GuestAttachment, GuestPhase
from lunport.core.guest_disk import InitiatorKind
from lunport.core.iqn import Iqn
from lunport.core.multipath_use import StallProfile
from lunport.core.recovery_actions import ForgetConnection, LeftoverRecord
from lunport.core.secret import Secret
from lunport.host.attachment_notes import AttachmentNote, AttachmentNotes
from lunport.host.file_locks import FileLocks
from lunport.host.guest_journal import GuestJournal
from lunport.initiator.multipath_policy import MultipathPolicy
from tests.fakes.played_host import SIZE, WWID, PlayedInitiator, PlayedVolumeApi

SECRET = "Secret4Tests1234"
VOLUME = "volume-1"
INFO: dict[str, object] = {
    "target_portal": "10.0.1.2:3260",
    "target_iqn": "iqn.2026-11.io.lunport.test:v",
    "target_lun": 1,
    "target_alternative_portals": ["10.0.2.2:3260"],
    "auth_method": "CHAP",
    "auth_username": "u",
    "auth_password": SECRET,
    "volume_id": VOLUME,
    "wwid": WWID,
}
FAST = StallProfile.FAST
DOWN = VolumeApiUnavailable("the service is down")


@dataclass(frozen=True, slots=True)
class PlayedParts(HostParts):
    """A host whose parts are played; ``asked`` has the endpoints and tokens that were used."""

    folder: Path
    played: PlayedInitiator = field(default_factory=PlayedInitiator)
    service: PlayedVolumeApi = field(default_factory=lambda: PlayedVolumeApi(INFO))
    asked: list[tuple[str, Secret | None]] = field(default_factory=list)
    damaged: list[JournalDamaged] = field(default_factory=list)
    runs_multipathd: bool = False

    def initiator(self) -> HostInitiator:
        """Return the played one."""
        return self.played

    def damages(self) -> Sequence[JournalDamaged]:
        """Return what a test says is damaged."""
        return self.damaged

    def notes(self) -> AttachmentNotes:
        """Return notes in a folder of the test's own."""
        return AttachmentNotes(self.folder / "attachments")

    def guest_journal(self) -> GuestJournal:
        """Return a journal in a folder of the test's own."""
        return GuestJournal(self.folder / "guests")

    def locks(self) -> Locks:
        """Return locks in a folder of the test's own."""
        return FileLocks(self.folder / "locks")

    def api(self, endpoint: str, token: Secret | None) -> VolumeApi:
        """Return the played one."""
        self.asked.append((endpoint, token))
        self.service.endpoint = endpoint
        return self.service

    def agent(self) -> None:
        """No agent runs."""

    def earlier_boot(self, initiator: HostInitiator) -> None:
        """Nothing is left of an earlier boot."""

    def has_multipath(self) -> bool:
        """Tell what the test says."""
        return self.runs_multipathd

    def connector(
        self, *, multipath: bool | None = None, enforce_multipath: bool = False
    ) -> Connector:
        """Return a fixed one, but for the wish."""
        return Connector(
            Iqn("iqn.2026-11.io.lunport.test:host"),
            ip="192.0.2.7",
            host="kvm-1",
            multipath=enforce_multipath or (multipath is not False and self.runs_multipathd),
            enforce_multipath=enforce_multipath,
        )


Run = Callable[..., tuple[int, str]]


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PlayedParts:
    """A played host."""
    for variable in ("OS_ENDPOINT", "OS_TOKEN"):
        monkeypatch.delenv(variable, raising=False)
    return PlayedParts(tmp_path)


@pytest.fixture
def run(parts: PlayedParts, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command; give its exit status and what it printed on stdout, or its error."""

    def run(*words: str) -> tuple[int, str]:
        status = 0
        try:
            status = host.main(list(words), obj=parts, standalone_mode=False) or 0
        except click.UsageError as error:
            return 2, error.format_message()
        except LunportError as error:
            return exit_code_of(error), str(error)
        finally:
            printed = capsys.readouterr()
            assert SECRET not in printed.out + printed.err
        return status, printed.out + printed.err

    return run


@pytest.fixture
def file(tmp_path: Path) -> str:
    """A connection info as the older API gives it, for its owner's eyes."""
    path = tmp_path / "info.json"
    path.write_text(json.dumps({"connection_info": {"driver_volume_type": "iscsi", "data": INFO}}))
    path.chmod(0o600)
    return str(path)


# -- with a connection info ------------------------------------------------------------------


def test_a_connection_info_becomes_a_disk(run: Run, file: str) -> None:
    """The first line is the disk; what was used, and what was not and why, follow."""
    status, said = run("connect", "--connection-info", file)
    assert status == 0
    assert said.splitlines()[0] == "/dev/sda"
    assert f"identity  {WWID}" in said
    assert "used      10.0.2.2:3260" in said
    assert "not used  10.0.1.2:3260" in said


def test_json_has_all_of_it(run: Run, file: str) -> None:
    """As JSON the result has the disk, its identity, and each path."""
    fields = json.loads(run("connect", "--connection-info", file, "-o", "json")[1])
    assert (fields["path"], fields["wwid"], fields["change"]) == ("/dev/sda", WWID, "changed")
    assert fields["used"]["portal"] == "10.0.2.2:3260"
    assert fields["unused"][0]["reason"] == "refused"
    assert fields["volume_id"] == VOLUME


@pytest.mark.parametrize("key", ["", "connection_info", "attachment"])
def test_each_form_of_a_connection_info(run: Run, tmp_path: Path, key: str) -> None:
    """The forms of both APIs are read, with and without what is around them."""
    flat: dict[str, object] = {**INFO, "driver_volume_type": "iscsi"}
    inner = {"connection_info": flat} if key == "attachment" else flat
    path = tmp_path / "info"
    path.write_text(json.dumps({key: inner} if key else inner))
    path.chmod(0o600)
    assert run("connect", "--connection-info", str(path))[0] == 0


def test_disconnect_is_idempotent(run: Run, file: str) -> None:
    """A disk is taken away once; the second time there is nothing to do."""
    run("connect", "--connection-info", file)
    assert run("disconnect", "--connection-info", file) == (0, "Disconnected.\n")
    assert run("disconnect", "--connection-info", file) == (0, "It was not connected.\n")
    assert json.loads(run("disconnect", "--connection-info", file, "-o", "json")[1]) == {
        "change": "unchanged"
    }


def test_a_file_that_all_may_read_is_warned_of(run: Run, file: str) -> None:
    """A secret that everybody can read is pointed out, and not repeated."""
    Path(file).chmod(0o644)
    status, said = run("connect", "--connection-info", file)
    assert status == 0
    assert f"chmod 600 {file}" in said


@pytest.mark.parametrize("text", [f'{{"auth_password": "{SECRET}"', "[]", "", f'"{SECRET}"'])
def test_a_file_that_is_none(run: Run, tmp_path: Path, text: str) -> None:
    """What is no connection info is refused without being shown."""
    path = tmp_path / "info"
    path.write_text(text)
    status, said = run("connect", "--connection-info", str(path))
    assert status == 2
    assert SECRET not in said


def test_which_volume(run: Run, file: str) -> None:
    """Exactly one of a volume and a connection info is needed."""
    for command in ("connect", "disconnect", "extend"):
        assert run(command)[0] == 2
        assert run(command, VOLUME, "--connection-info", file)[0] == 2


def test_failures_have_their_exit_status(run: Run, parts: PlayedParts, file: str) -> None:
    """What fails is one error and the status of the table."""
    refused = AllPathsFailed([PortalUnreachable("10.0.1.2:3260", "refused")])
    parts.played.failures["connect"] = refused
    assert run("connect", "--connection-info", file) == (5, str(refused))
    parts.played.failures["disconnect"] = DeviceBusy("/dev/sda", ["mounted on /mnt"])
    assert run("disconnect", "--connection-info", file)[0] == 4


def test_force_reaches_the_initiator(run: Run, parts: PlayedParts, file: str) -> None:
    """--force is passed on, and only it."""
    run("connect", "--connection-info", file)
    run("disconnect", "--connection-info", file, "--force")
    assert parts.played.calls == ["connect", "force"]


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ((), (False, MultipathPolicy())),
        (("--multipath",), (True, MultipathPolicy())),
        (("--enforce-multipath",), (True, MultipathPolicy())),
        (("--no-multipath", "--resilient"), (False, MultipathPolicy(resilient=True))),
        (("--ready", "all", "--queue-s", "0"), (False, MultipathPolicy(ready=None, queue_s=0))),
        (("--ready", "2"), (False, MultipathPolicy(ready=2))),
        (("--ready", "first", "--stall", "fast"), (False, MultipathPolicy(stall=FAST))),
    ],
)
def test_how_several_paths_are_wanted(
    run: Run, parts: PlayedParts, file: str, options: tuple[str, ...], wanted: object
) -> None:
    """The options reach the initiator, for a volume and for a connection info."""
    assert run("connect", VOLUME, *options)[0] == 0
    assert run("connect", "--connection-info", file, *options)[0] == 0
    assert parts.played.wishes == [wanted, wanted]
    enforced = "--enforce-multipath" in options
    assert [info.enforce_multipath for info in parts.played.infos] == [enforced, enforced]


def test_all_paths_where_multipathd_runs(run: Run, parts: PlayedParts, file: str) -> None:
    """Then the connector says so; alternatives alone stay one path unless it is asked for."""
    found = replace(parts, runs_multipathd=True)

    def connect(*words: str) -> bool:
        host.main(["connect", *words], obj=found, standalone_mode=False)
        return parts.played.wishes[-1][0]

    assert connect(VOLUME)
    assert not connect(VOLUME, "--no-multipath")
    assert not connect("--connection-info", file)
    assert connect("--connection-info", file, "--multipath")
    assert found.connector().multipath
    assert run("connect", VOLUME, "--multipath", "--plan")[1].endswith("Make a map over them.\n")


@pytest.mark.parametrize(
    "options",
    [
        ("--ready", "0"),
        ("--ready", "most"),
        ("--ready", "257"),
        ("--queue-s", "-1"),
        ("--queue-s", "nan"),
        ("--stall", "slow"),
        ("--no-multipath", "--enforce-multipath"),
        ("--timeout", "nan"),
    ],
)
def test_wishes_that_cannot_be(run: Run, parts: PlayedParts, options: tuple[str, ...]) -> None:
    """They are a matter of usage, and nothing is done."""
    assert run("connect", VOLUME, *options)[0] == 2
    assert (parts.played.calls, parts.service.calls) == ([], [])


def test_a_plan_does_nothing(run: Run, parts: PlayedParts, file: str) -> None:
    """--plan prints the steps, and nothing is done."""
    status, said = run("connect", "--connection-info", file, "--plan")
    assert status == 0
    assert said.startswith(" 1  Probe 10.0.1.2:3260")
    assert json.loads(run("disconnect", "--connection-info", file, "--plan", "-o", "json")[1])[
        "steps"
    ]
    assert "Ask http://127.0.0.1:8776 for an attachment" in run("connect", VOLUME, "--plan")[1]
    assert run("disconnect", VOLUME, "--plan")[1].startswith(" 1  Nothing")
    assert (parts.played.calls, parts.service.calls) == ([], [])


# -- with a volume ---------------------------------------------------------------------------


def test_a_volume_there_and_back(run: Run, parts: PlayedParts) -> None:
    """A volume is attached, connected and completed; and all of it is taken back."""
    status, said = run("connect", VOLUME)
    assert (status, said.splitlines()[0]) == (0, "/dev/sda")
    assert parts.service.calls == ["create", "offer", "complete"]
    assert [note.volume_id for note in parts.notes().all()] == [VOLUME]
    assert run("disconnect", VOLUME) == (0, "Disconnected.\n")
    assert parts.service.calls[3:] == ["delete"]
    assert (parts.played.entries, parts.service.statuses, parts.notes().all()) == ({}, {}, ())
    assert run("disconnect", VOLUME) == (0, "It was not connected.\n")


def test_a_volume_twice(run: Run, parts: PlayedParts) -> None:
    """A second connect uses the attachment that is there, and makes no other."""
    run("connect", VOLUME)
    fields = json.loads(run("connect", VOLUME, "-o", "json")[1])
    assert fields["change"] == "unchanged"
    assert parts.service.calls == ["create", "offer", "complete", "get"]


def test_no_such_volume(run: Run, parts: PlayedParts) -> None:
    """A volume that does not exist leaves nothing, and its own exit status."""
    parts.service.failures["create"] = VolumeNotFound(VOLUME)
    assert run("connect", VOLUME)[0] == 3
    assert parts.notes().all() == ()


@pytest.mark.parametrize("at", ["offer", "connect", "complete"])
def test_a_failed_connect_gives_the_attachment_back(run: Run, parts: PlayedParts, at: str) -> None:
    """Whatever fails on the way, disk, attachment and note are taken back."""
    if at == "connect":
        parts.played.failures[at] = AllPathsFailed([PortalUnreachable("10.0.1.2", "refused")])
    else:
        parts.service.failures[at] = DOWN
    assert run("connect", VOLUME)[0] == 5
    assert parts.service.calls[-1] == "delete"
    assert (parts.played.entries, parts.service.statuses, parts.notes().all()) == ({}, {}, ())
    # What a connect left that failed late goes as well; before the offer there is nothing.
    assert ("disconnect" in parts.played.calls) is (at != "offer")


def test_an_interrupted_connect_gives_the_attachment_back(run: Run, parts: PlayedParts) -> None:
    """Control-C is no reason to leave an attachment."""
    parts.played.failures["connect"] = KeyboardInterrupt()
    with pytest.raises((KeyboardInterrupt, click.Abort)):
        run("connect", VOLUME)
    assert (parts.service.statuses, parts.notes().all()) == ({}, ())


def test_an_undo_that_fails_is_told_and_noted(run: Run, parts: PlayedParts) -> None:
    """If the attachment can't be given back both errors are told, and disconnect does it later."""
    parts.played.failures["connect"] = AllPathsFailed([PortalUnreachable("10.0.1.2", "refused")])
    parts.service.failures["delete"] = DOWN
    status, said = run("connect", VOLUME)
    assert status == 5
    assert "refused" in said
    assert "the undo failed: the service is down" in said
    assert run("disconnect", VOLUME) == (0, "Disconnected.\n")
    assert parts.service.statuses == {}


def test_what_is_left_on_the_host_keeps_its_attachment(run: Run, parts: PlayedParts) -> None:
    """When the host could not undo its part the volume stays offered until it can."""
    cause = PortalUnreachable("10.0.1.2", "refused")
    parts.played.failures["connect"] = UndoFailed(cause, [DOWN])
    assert run("connect", VOLUME)[0] == 5
    assert "delete" not in parts.service.calls
    assert len(parts.notes().all()) == 1


def test_a_connect_that_was_killed_is_finished(run: Run, parts: PlayedParts) -> None:
    """An attachment that a killed connect left is used by the next one."""
    parts.service.statuses["a-1"] = "reserved"
    parts.notes().write(AttachmentNote(VOLUME, "a-1", "http://san:8776"))
    assert run("connect", VOLUME)[0] == 0
    assert parts.service.calls == ["get", "offer", "complete"]
    assert parts.asked == [("http://san:8776", None)]


def test_an_attachment_that_is_gone_is_made_anew(run: Run, parts: PlayedParts) -> None:
    """A note of an attachment that the service forgot is dropped."""
    parts.notes().write(AttachmentNote(VOLUME, "a-0", "http://san:8776"))
    assert run("connect", VOLUME)[0] == 0
    assert [note.attachment_id for note in parts.notes().all()] == list(parts.service.statuses)


def test_a_disk_goes_without_the_service(run: Run, parts: PlayedParts) -> None:
    """While the service is down the disk is taken away, and the attachment at the next try."""
    run("connect", VOLUME)
    parts.service.failures["delete"] = DOWN
    assert run("disconnect", VOLUME)[0] == 5
    assert parts.played.entries == {}
    assert run("disconnect", VOLUME) == (0, "Disconnected.\n")
    assert parts.service.statuses == {}


def test_a_disk_in_use_keeps_its_attachment(run: Run, parts: PlayedParts) -> None:
    """A disk that can't be taken away keeps its attachment."""
    run("connect", VOLUME)
    parts.played.failures["disconnect"] = DeviceBusy("/dev/sda", ["mounted on /mnt"])
    assert run("disconnect", VOLUME)[0] == 4
    assert list(parts.service.statuses.values()) == ["attached"]


def test_anothers_attachment_is_not_taken(run: Run, parts: PlayedParts, tmp_path: Path) -> None:
    """A volume connected for an attachment that was made elsewhere is left, unless forced."""
    path = tmp_path / "theirs"
    path.write_text(json.dumps({**INFO, "attachment_id": "theirs"}))
    path.chmod(0o600)
    run("connect", "--connection-info", str(path))
    status, said = run("disconnect", VOLUME)
    assert status == 4
    assert "theirs" in said
    assert run("disconnect", VOLUME, "--force") == (0, "Disconnected.\n")


def test_endpoint_and_token(
    run: Run, parts: PlayedParts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Endpoint and token come from the options, or else from the environment."""
    run("connect", VOLUME)
    file = tmp_path / "token"
    file.write_text(SECRET + "\n")
    run("connect", "v-2", "--endpoint", "http://a:1/v3/", "--token-file", str(file))
    monkeypatch.setenv("OS_ENDPOINT", "http://b:2/v3")
    monkeypatch.setenv("OS_TOKEN", SECRET)
    run("connect", "v-3")
    assert parts.asked == [
        ("http://127.0.0.1:8776", None),
        ("http://a:1", Secret(SECRET)),
        ("http://b:2", Secret(SECRET)),
    ]


# -- the rest --------------------------------------------------------------------------------


def test_extend(run: Run, parts: PlayedParts, file: str) -> None:
    """The new size is told, for a volume and for a connection info."""
    assert run("extend", VOLUME)[0] == 3
    run("connect", VOLUME)
    assert run("extend", VOLUME) == (0, f"{2 * SIZE} bytes\n")
    assert parts.played.infos[-1].chap is not None, "the storage can be asked for the size"
    fields = json.loads(run("extend", "--connection-info", file, "-o", "json")[1])
    assert fields == {"size_bytes": 2 * SIZE}


def test_the_list(run: Run, parts: PlayedParts) -> None:
    """What is connected is listed, with attachments that have no disk and damaged entries."""
    assert run("list") == (0, "Nothing is connected.\n")
    run("connect", VOLUME)
    parts.notes().write(AttachmentNote("v-2", "a-2", "http://san:8776"))
    parts.damaged.append(JournalDamaged("/var/lib/lunport/host/connections/x", "not JSON"))
    status, said = run("list")
    assert status == 0
    assert said.startswith("/dev/sda  connected\n  volume    volume-1\n")
    assert "since     2027-01-15T08:00:00Z" in said
    assert "attachment a-2 of volume v-2 has no disk here: lunport host disconnect v-2" in said
    assert "damaged   /var/lib/lunport/host/connections/x" in said
    fields = json.loads(run("list", "-o", "json")[1])
    (one,) = fields["connections"]
    assert (one["path"], one["volume_id"], one["attachment_id"]) == (
        "/dev/sda",
        VOLUME,
        "attachment-1",
    )
    assert fields["attachments_without_disk"] == [{"volume_id": "v-2", "attachment_id": "a-2"}]


CUT_OFF = ForgetConnection("naa.6001")
LEFT = LeftoverRecord("iqn.2026-11.org.example:a/10.0.1.2,3260,1/default", None)


def test_a_recovery_that_is_only_looked_at(run: Run, parts: PlayedParts) -> None:
    """--dry-run says what would be done, and what is only shown; leftovers only when asked."""
    assert run("recover", "--dry-run") == (0, "Nothing to do.\n")
    parts.played.actions += [CUT_OFF, LEFT]
    parts.notes().write(AttachmentNote("v-2", "a-2", "http://san:8776"))
    assert run("recover", "--dry-run")[1].splitlines() == [
        f"would   {CUT_OFF}",
        f"seen    {LEFT}",
        "would   Delete attachment a-2 of volume v-2: it has no disk.",
    ]
    assert f"would   {LEFT}" in run("recover", "--dry-run", "--remove-leftovers")[1]
    assert (parts.played.calls, parts.service.calls) == ([], [])
    assert json.loads(run("list", "-o", "json")[1])["leftovers"] == [str(LEFT)]


def test_a_recovery(run: Run, parts: PlayedParts) -> None:
    """What was cut off is ended, on the host and at the service; the rest is told."""
    parts.played.actions += [CUT_OFF, LEFT]
    run("connect", VOLUME)
    parts.service.statuses["a-2"] = "reserved"
    parts.notes().write(AttachmentNote("v-2", "a-2", "http://san:8776"))
    status, said = run("recover")
    assert status == 0
    assert said.splitlines() == [
        f"done    {CUT_OFF}",
        f"seen    {LEFT}",
        "done    Delete attachment a-2 of volume v-2: it has no disk.",
    ]
    assert list(parts.service.statuses.values()) == ["attached"]
    assert run("recover", "--remove-leftovers")[1] == f"done    {CUT_OFF}\ndone    {LEFT}\n"


def test_a_recovery_that_fails(run: Run, parts: PlayedParts) -> None:
    """What can't be ended now is told with its reason, keeps nothing else, and gives status 1."""
    parts.played.actions += [CUT_OFF, LEFT]
    parts.played.stuck[CUT_OFF] = DeviceBusy("/dev/sda", ["mounted on /mnt"])
    parts.notes().write(AttachmentNote("v-2", "a-2", "http://san:8776"))
    parts.service.failures["delete"] = DOWN
    status, said = run("recover", "-o", "json")
    assert status == 1
    actions = json.loads(said)["actions"]
    assert [action["outcome"] for action in actions] == ["failed", "seen", "failed"]
    assert "mounted on /mnt" in actions[0]["error"]
    assert actions[2]["error"] == str(DOWN)
    assert run("recover")[0] == 1, "the disk is still stuck"
    assert parts.notes().all() == ()


def test_the_connector(run: Run) -> None:
    """What the host says of itself is shown, for people and for programs."""
    assert run("connector")[1].splitlines()[0] == (
        "initiator           iqn.2026-11.io.lunport.test:host"
    )
    fields = json.loads(run("connector", "-o", "json")[1])
    assert (fields["host"], fields["ip"], fields["multipath"]) == ("kvm-1", "192.0.2.7", False)


def test_a_guest_s_volume_is_left_to_its_guest(run: Run, parts: PlayedParts) -> None:
    """A volume that a guest has is not disconnected under it: the error names the command."""
    entry = GuestAttachment(
        uri="qemu:///system",
        guest_id="d0000000-0000-4000-8000-000000000001",
        guest_name="web",
        volume_id=VOLUME,
        endpoint="http://san:8776",
        phase=GuestPhase.ATTACHED,
        initiator=InitiatorKind.KERNEL,
        multipath=None,
        attachment_id="attachment-1",
        target="vdb",
        since=1.0,
    )
    parts.guest_journal().write(entry)
    status, said = run("disconnect", VOLUME)
    assert status == 4
    assert f"lunport guest detach web {VOLUME}" in said
    assert parts.played.calls == []
    parts.guest_journal().remove(entry)
    assert run("disconnect", VOLUME)[0] == 0
