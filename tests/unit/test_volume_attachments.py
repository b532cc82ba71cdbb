"""Attachments: Block Storage's states, idempotence, undo when the target fails, migration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from lunport.core.attachment import AttachMode
from lunport.core.errors import (
    AttachedElsewhere,
    AttachmentNotFound,
    ExportFailed,
    ImageMissing,
    InvalidConnector,
    InvalidInput,
    InvalidState,
    LunportError,
    TargetDaemonDown,
    UndoFailed,
)
from lunport.core.volume import Volume
from lunport.store import tables
from lunport.targets.naming import target_name
from lunport.volume import actions, attachments, volumes
from lunport.volume.requests import NewAttachment
from lunport.volume.service import ExportPolicy
from tests.fakes.fake_service import FakeBench, make_bench
from tests.fakes.volume_play import (
    COMPUTE,
    HOST_A,
    HOST_B,
    INSTANCE,
    ME,
    OTHER_INSTANCE,
    STRANGER,
    UNKNOWN,
    admitted_to,
    assert_exports_match,
    connect,
    connections_of,
    export_of,
    make_attached,
    make_attachment,
    make_volume,
    rows_of,
    set_volume,
    state_of,
    statuses_of,
    volume_of,
)
from tests.single_exports import chap_of, unit_of

A = str(HOST_A["initiator"])
B = str(HOST_B["initiator"])


@pytest.fixture
def bench(tmp_path: Path) -> FakeBench:
    """A service of the test's own."""
    return make_bench(tmp_path)


@pytest.fixture
def volume(bench: FakeBench) -> Volume:
    """An available volume."""
    return make_volume(bench)


# -- the states ----------------------------------------------------------------------------------


def test_states_of_an_attachment(bench: FakeBench, volume: Volume) -> None:
    """Reserved, attaching, attached, gone: the volume goes with its attachment."""
    service = bench.service
    made = attachments.create_attachment(service, ME, NewAttachment(volume.id, INSTANCE))
    assert (made.attachment.attach_status, made.connection_info) == ("reserved", None)
    assert made.attachment.attached_host is None
    assert statuses_of(bench, volume) == ("reserved", "detached")
    assert bench.helper.exports() == ()

    updated = attachments.update_attachment(service, ME, made.attachment.id, HOST_A)
    assert updated.attachment.attach_status == "attaching"
    assert updated.attachment.attached_host == "a"
    assert updated.attachment.attached_at is not None
    assert statuses_of(bench, volume) == ("attaching", "attaching")
    assert admitted_to(bench, volume) == {A}

    attachments.complete_attachment(service, ME, made.attachment.id)
    found = attachments.get_attachment(service, ME, made.attachment.id)
    assert found.attachment.attach_status == "attached"
    assert found.connection_info == updated.connection_info
    assert statuses_of(bench, volume) == ("in-use", "attached")

    assert attachments.delete_attachment(service, COMPUTE, made.attachment.id) == []
    assert statuses_of(bench, volume) == ("available", "detached")
    assert bench.helper.exports() == ()
    assert rows_of(bench, tables.connections) == []
    with pytest.raises(AttachmentNotFound):
        attachments.get_attachment(service, ME, made.attachment.id)


def test_connector_at_once(bench: FakeBench, volume: Volume) -> None:
    """With a connector the new attachment is connected in the same request."""
    made = attachments.create_attachment(
        bench.service, ME, NewAttachment(volume.id, INSTANCE, HOST_A)
    )
    assert made.attachment.attach_status == "attaching"
    assert statuses_of(bench, volume) == ("attaching", "attaching")
    assert made.connection_info is not None
    assert made == attachments.get_attachment(bench.service, ME, made.attachment.id)


def test_completion_of_a_reserved_one(bench: FakeBench, volume: Volume) -> None:
    """As in Block Storage an attachment without a connector can be completed (shelved servers)."""
    made = make_attachment(bench, volume)
    attachments.complete_attachment(bench.service, ME, made.id)
    assert statuses_of(bench, volume) == ("in-use", "attached")
    assert bench.helper.exports() == ()


def test_connection_info_is_flat(bench: FakeBench, volume: Volume) -> None:
    """The attachments API's connection info is flat, and leads to the export that there is."""
    made = attachments.create_attachment(
        bench.service, ME, NewAttachment(volume.id, INSTANCE, HOST_A)
    )
    info = dict(made.connection_info or {})
    export = export_of(bench, volume)
    assert export is not None
    chap = chap_of(export)
    assert chap is not None
    assert "data" not in info
    assert info["driver_volume_type"] == "iscsi"
    assert info["attachment_id"] == made.attachment.id
    assert info["volume_id"] == volume.id
    assert info["target_iqn"] == target_name(volume.id) == export.iqn
    assert info["target_lun"] == unit_of(export).lun
    assert info["wwid"] == unit_of(export).identity.wwid == volume.wwid
    assert info["auth_username"] == chap.initiator.username
    assert info["auth_password"] == chap.initiator.password.reveal()
    assert info["enforce_multipath"] is False


@pytest.mark.parametrize(
    "asked, connector, mode",
    [
        (None, {}, "rw"),
        ("ro", {}, "ro"),
        ("rw", {"mode": "ro"}, "rw"),
        (None, {"mode": "ro"}, "ro"),
        ("null", {"mode": "ro"}, "ro"),
    ],
)
def test_modes(
    bench: FakeBench,
    volume: Volume,
    asked: str | None,
    connector: Mapping[str, object],
    mode: str,
) -> None:
    """The mode of the request wins over the connector's; without any it is rw."""
    made = attachments.create_attachment(
        bench.service, ME, NewAttachment(volume.id, INSTANCE, {**HOST_A, **connector}, asked)
    )
    assert made.attachment.attach_mode == mode
    assert (made.connection_info or {})["access_mode"] == mode


def test_readonly_volume_is_shown_readonly(bench: FakeBench, volume: Volume) -> None:
    """A read-only volume is only to be read, whatever mode was asked for."""
    volumes.set_readonly(bench.service, ME, volume.id, True)
    made = attachments.create_attachment(
        bench.service, ME, NewAttachment(volume.id, INSTANCE, HOST_A, "rw")
    )
    assert (made.connection_info or {})["access_mode"] == AttachMode.READ_ONLY


@pytest.mark.parametrize(
    "connector, error",
    [
        ({"host": "a"}, InvalidConnector),
        ({"initiator": ""}, InvalidConnector),
        ({"initiator": "not a name"}, InvalidConnector),
        ({"initiator": ["iqn.1993-08.org.debian:01:a"]}, InvalidConnector),
        ({"initiator": "iqn.1993-08.org.debian:01:a\x00"}, InvalidConnector),
        ({"initiator": "iqn.1993-08.org.debian:01:" + "x" * 300}, InvalidConnector),
        ({**HOST_A, "mode": "wx"}, InvalidConnector),
        ({**HOST_A, "multipath": "perhaps"}, InvalidConnector),
    ],
    ids=lambda value: str(value)[:40],
)
def test_bad_connector(
    bench: FakeBench, volume: Volume, connector: Mapping[str, object], error: type[LunportError]
) -> None:
    """A connector that is none is refused everywhere, and changes nothing."""
    reserved = make_attachment(bench, make_volume(bench))
    before = state_of(bench)
    with pytest.raises(error):
        attachments.create_attachment(
            bench.service, ME, NewAttachment(volume.id, INSTANCE, connector)
        )
    with pytest.raises(error):
        attachments.update_attachment(bench.service, ME, reserved.id, connector)
    with pytest.raises(error):
        actions.initialize_connection(bench.service, ME, volume.id, connector)
    with pytest.raises(error):
        actions.terminate_connection(bench.service, ME, volume.id, connector)
    assert state_of(bench) == before


def test_other_refusals(bench: FakeBench, volume: Volume) -> None:
    """A mode that is none, a volume or attachment that is none or a stranger's: refused."""
    made = make_attachment(bench, make_volume(bench))
    service = bench.service
    before = state_of(bench)
    with pytest.raises(InvalidInput):
        attachments.create_attachment(service, ME, NewAttachment(volume.id, mode="wx"))
    refused: list[Callable[[], object]] = [
        lambda: attachments.get_attachment(service, STRANGER, made.id),
        lambda: attachments.update_attachment(service, STRANGER, made.id, HOST_A),
        lambda: attachments.complete_attachment(service, STRANGER, made.id),
        lambda: attachments.delete_attachment(service, STRANGER, made.id),
        lambda: attachments.get_attachment(service, ME, UNKNOWN),
        lambda: attachments.update_attachment(service, ME, "\x00", HOST_A),
        lambda: attachments.complete_attachment(service, ME, UNKNOWN),
        lambda: attachments.delete_attachment(service, ME, UNKNOWN),
    ]
    for refuse in refused:
        with pytest.raises(AttachmentNotFound):
            refuse()
    assert state_of(bench) == before


# -- idempotence ---------------------------------------------------------------------------------


def test_update_twice(bench: FakeBench, volume: Volume) -> None:
    """Connecting twice gives the same answer, one connection, and no second export."""
    made = make_attachment(bench, volume)
    first = attachments.update_attachment(bench.service, ME, made.id, HOST_A)
    before = state_of(bench)
    second = attachments.update_attachment(bench.service, ME, made.id, HOST_A)
    assert second.connection_info == first.connection_info
    assert state_of(bench) == before


def test_update_of_an_attached_one(bench: FakeBench, volume: Volume) -> None:
    """Connecting an attached one again leaves it attached, and its volume in use."""
    made = make_attached(bench, volume)
    attachments.update_attachment(bench.service, ME, made.id, {**HOST_A, "multipath": True})
    assert statuses_of(bench, volume) == ("in-use", "attached")
    found = attachments.get_attachment(bench.service, ME, made.id)
    assert found.attachment.attach_status == "attached"
    assert "target_portals" in (found.connection_info or {})


def test_completion_twice(bench: FakeBench, volume: Volume) -> None:
    """Completing twice is completing once; the time of the attachment stays."""
    made = make_attached(bench, volume)
    attachments.complete_attachment(bench.service, ME, made.id)
    again = attachments.get_attachment(bench.service, ME, made.id).attachment
    assert again._replace(updated_at=None) == made._replace(updated_at=None)


def test_update_from_another_host(bench: FakeBench, volume: Volume) -> None:
    """An attachment that one host has is not moved to another."""
    made = make_attached(bench, volume)
    before = state_of(bench)
    with pytest.raises(AttachedElsewhere):
        attachments.update_attachment(bench.service, ME, made.id, HOST_B)
    assert state_of(bench) == before


def test_export_is_kept(bench: FakeBench, volume: Volume) -> None:
    """Name, LUN, identity and credentials are the same with every export of a volume."""
    seen = []
    for _ in range(2):
        made = make_attachment(bench, volume, HOST_A)
        seen.append((export_of(bench, volume), volume_of(bench, volume.id).provider_location))
        attachments.delete_attachment(bench.service, COMPUTE, made.id)
    assert seen[0] == seen[1]
    assert seen[0][1] == f"127.0.0.1:3260;127.0.0.2:3260,1 {target_name(volume.id)} 1"


# -- several attachments -------------------------------------------------------------------------


@pytest.mark.parametrize("instance", [None, INSTANCE, OTHER_INSTANCE])
def test_second_attachment_is_refused(
    bench: FakeBench, volume: Volume, instance: str | None
) -> None:
    """A volume that one instance has is not given to a second one, nor to none."""
    make_attached(bench, volume, instance=INSTANCE if instance != INSTANCE else OTHER_INSTANCE)
    before = state_of(bench)
    for connector in (None, HOST_B):
        with pytest.raises(InvalidState, match="in-use"):
            make_attachment(bench, volume, connector, instance)
    assert state_of(bench) == before


def test_live_migration(bench: FakeBench, volume: Volume) -> None:
    """The same instance may have a second attachment: both hosts are let in, then one."""
    source = make_attached(bench, volume, HOST_A)
    destination = make_attachment(bench, volume, HOST_B)
    assert statuses_of(bench, volume) == ("in-use", "attached")
    assert admitted_to(bench, volume) == {A, B}
    attachments.complete_attachment(bench.service, ME, destination.id)
    left = attachments.delete_attachment(bench.service, COMPUTE, source.id)
    assert [one.id for one in left] == [destination.id]
    assert statuses_of(bench, volume) == ("in-use", "attached")
    assert admitted_to(bench, volume) == {B}
    assert_exports_match(bench)


def test_migration_taken_back(bench: FakeBench, volume: Volume) -> None:
    """A migration that fails gives the volume back to its source, untouched."""
    make_attached(bench, volume, HOST_A)
    before = state_of(bench)
    destination = make_attachment(bench, volume)
    attachments.update_attachment(bench.service, ME, destination.id, HOST_B)
    attachments.delete_attachment(bench.service, COMPUTE, destination.id)
    assert state_of(bench) == before


def test_reserved_for_the_same_instance(bench: FakeBench, volume: Volume) -> None:
    """A reserved volume may be reserved again for the same instance, and connected once."""
    first = make_attachment(bench, volume)
    second = make_attachment(bench, volume)
    assert statuses_of(bench, volume) == ("reserved", "detached")
    attachments.update_attachment(bench.service, ME, first.id, HOST_A)
    attachments.update_attachment(bench.service, ME, second.id, HOST_B)
    assert admitted_to(bench, volume) == {A, B}


@pytest.mark.parametrize("status", ["attaching", "detaching", "maintenance", "extending"])
def test_same_instance_in_other_statuses(bench: FakeBench, volume: Volume, status: str) -> None:
    """Only a reserved volume, or one in use, gets a second attachment for its instance."""
    make_attached(bench, volume)
    set_volume(bench, volume, status=status)
    before = state_of(bench)
    with pytest.raises(InvalidState, match=status):
        make_attachment(bench, volume, HOST_B)
    assert state_of(bench) == before


def test_without_an_instance_there_is_no_migration(bench: FakeBench, volume: Volume) -> None:
    """Two attachments without an instance are two owners, not a migration."""
    make_attached(bench, volume, instance=None)
    with pytest.raises(InvalidState):
        make_attachment(bench, volume, HOST_B, None)


def test_multiattach(bench: FakeBench) -> None:
    """A multiattach volume is shared; its export goes with the last attachment."""
    volume = make_volume(bench, multiattach=True)
    first = make_attached(bench, volume, HOST_A, INSTANCE)
    second = make_attached(bench, volume, HOST_B, OTHER_INSTANCE)
    assert statuses_of(bench, volume) == ("in-use", "attached")
    assert admitted_to(bench, volume) == {A, B}
    third = make_attachment(bench, volume, None, None)
    attachments.delete_attachment(bench.service, COMPUTE, first.id)
    assert statuses_of(bench, volume) == ("in-use", "attached")
    assert admitted_to(bench, volume) == {B}
    attachments.delete_attachment(bench.service, COMPUTE, second.id)
    assert statuses_of(bench, volume) == ("reserved", "detached")
    assert bench.helper.exports() == ()
    attachments.delete_attachment(bench.service, ME, third.id)
    assert statuses_of(bench, volume) == ("available", "detached")


def test_two_attachments_of_one_host(bench: FakeBench) -> None:
    """Two instances on one host share its admission; it ends with the second."""
    volume = make_volume(bench, multiattach=True)
    first = make_attached(bench, volume, HOST_A, INSTANCE)
    second = make_attached(bench, volume, HOST_A, OTHER_INSTANCE)
    calls = len(bench.helper.calls)
    attachments.delete_attachment(bench.service, COMPUTE, first.id)
    assert bench.helper.calls[calls:] == []
    assert admitted_to(bench, volume) == {A}
    attachments.delete_attachment(bench.service, COMPUTE, second.id)
    assert bench.helper.exports() == ()


def test_attachment_beside_a_bare_connection(bench: FakeBench, volume: Volume) -> None:
    """The end of an attachment leaves the same host's bare connection open."""
    actions.initialize_connection(bench.service, ME, volume.id, HOST_A)
    made = make_attached(bench, volume, HOST_A)
    attachments.delete_attachment(bench.service, COMPUTE, made.id)
    assert admitted_to(bench, volume) == {A}
    assert connections_of(bench, volume) == [(A, False, False)]
    actions.terminate_connection(bench.service, ME, volume.id, HOST_A)
    assert bench.helper.exports() == ()


# -- undo ----------------------------------------------------------------------------------------

FAILURES: list[Exception] = [
    ExportFailed("target", "logical unit", "tgtd cannot open it"),
    TargetDaemonDown("tgtd", "nobody listens"),
    RuntimeError("a helper from elsewhere with a mistake in it"),
]
Step = tuple[str, str]
STEPS: list[Step] = [("helper", "export"), ("driver", "locate")]


def _fail(bench: FakeBench, step: Step, error: Exception) -> None:
    part: Any = getattr(bench, step[0])
    part.fail_next[step[1]] = error


@pytest.mark.parametrize("step", STEPS, ids=".".join)
@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
def test_creation_undone(bench: FakeBench, volume: Volume, step: Step, error: Exception) -> None:
    """When the export fails there is no attachment, no connection, and the volume is as before."""
    before = state_of(bench)
    _fail(bench, step, error)
    with pytest.raises(type(error)):
        make_attachment(bench, volume, HOST_A)
    assert state_of(bench) == before
    make_attachment(bench, volume, HOST_A)
    assert_exports_match(bench)


@pytest.mark.parametrize("step", STEPS, ids=".".join)
@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
def test_update_undone(bench: FakeBench, volume: Volume, step: Step, error: Exception) -> None:
    """When the export fails the attachment is reserved as before."""
    made = make_attachment(bench, volume)
    before = state_of(bench)
    _fail(bench, step, error)
    with pytest.raises(type(error)):
        attachments.update_attachment(bench.service, ME, made.id, HOST_A)
    assert state_of(bench) == before


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
def test_initialisation_undone(bench: FakeBench, volume: Volume, error: Exception) -> None:
    """When the export fails there is no connection."""
    actions.reserve(bench.service, ME, volume.id)
    before = state_of(bench)
    bench.helper.fail_next["export"] = error
    with pytest.raises(type(error)):
        actions.initialize_connection(bench.service, ME, volume.id, HOST_A)
    assert state_of(bench) == before


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
def test_second_host_undone(bench: FakeBench, volume: Volume, error: Exception) -> None:
    """When a second host cannot be let in, the first one's attachment is untouched."""
    make_attached(bench, volume, HOST_A)
    export_of(bench, volume)
    bench.helper.log_in(*_login(bench, volume, HOST_A))
    before = state_of(bench)
    bench.helper.fail_next["export"] = error
    with pytest.raises(type(error)):
        make_attachment(bench, volume, HOST_B)
    assert state_of(bench) == before
    assert [one.sessions for one in bench.helper.exports()] == [1]


def _login(bench: FakeBench, volume: Volume, host: Mapping[str, object]) -> tuple[Any, ...]:
    export = export_of(bench, volume)
    assert export is not None
    chap = chap_of(export)
    assert chap is not None
    return export.iqn, host["initiator"], chap.initiator


def test_failure_of_a_settled_connection(bench: FakeBench, volume: Volume) -> None:
    """A repeated connect that fails takes nothing away that was there before."""
    made = make_attached(bench, volume)
    before = state_of(bench)
    bench.helper.fail_next["export"] = FAILURES[0]
    with pytest.raises(ExportFailed):
        attachments.update_attachment(bench.service, ME, made.id, HOST_A)
    assert state_of(bench) == before


def test_undo_that_fails(bench: FakeBench, volume: Volume) -> None:
    """When the undo fails too both errors are told, and the rows are undone all the same."""
    before = state_of(bench)
    bench.helper.fail_next["export"] = FAILURES[0]
    bench.helper.fail_next["unexport"] = ExportFailed("target", "target", "it does not go")
    with pytest.raises(UndoFailed, match=r"cannot open it.*does not go"):
        make_attachment(bench, volume, HOST_A)
    assert state_of(bench) == before


def test_daemon_that_stays_down(bench: FakeBench, volume: Volume) -> None:
    """While the daemon is down connecting fails with that error alone, and leaves nothing."""
    bench.helper.crash()
    before = state_of(bench)
    with pytest.raises(TargetDaemonDown):
        make_attachment(bench, volume, HOST_A)
    with pytest.raises(TargetDaemonDown):
        actions.initialize_connection(bench.service, ME, volume.id, HOST_A)
    assert state_of(bench) == before


@pytest.mark.parametrize("verb", ["disallow", "unexport"])
def test_deletion_that_fails(bench: FakeBench, verb: str) -> None:
    """When the target does not let go, attachment, connection and export are all still there."""
    volume = make_volume(bench, multiattach=True)
    made = make_attached(bench, volume, HOST_A)
    if verb == "disallow":
        make_attached(bench, volume, HOST_B, OTHER_INSTANCE)
    before = state_of(bench)
    bench.helper.fail_next[verb] = ExportFailed("target", "sessions", "1 did not end in time")
    with pytest.raises(ExportFailed):
        attachments.delete_attachment(bench.service, COMPUTE, made.id)
    assert state_of(bench) == before
    attachments.delete_attachment(bench.service, COMPUTE, made.id)
    assert_exports_match(bench)


def test_image_that_is_gone(bench: FakeBench, volume: Volume) -> None:
    """A volume whose bytes are gone is not exported; the error names them."""
    bench.driver.delete(f"volume-{volume.id}")
    before = state_of(bench)
    with pytest.raises(ImageMissing, match=volume.id):
        make_attachment(bench, volume, HOST_A)
    assert state_of(bench) == before


# -- the policy ----------------------------------------------------------------------------------


def test_portal_order_rotates(tmp_path: Path) -> None:
    """With ``rotate`` the volumes of a backend have their main portals in turn."""
    bench = make_bench(tmp_path, policy=ExportPolicy(portal_order="rotate"))
    mains = []
    for _ in range(4):
        made = attachments.create_attachment(
            bench.service, ME, NewAttachment(make_volume(bench).id, connector=HOST_A)
        )
        info: dict[str, Any] = dict(made.connection_info or {})
        mains.append(info["target_portal"])
        assert {info["target_portal"], *info["target_alternative_portals"]} == {
            "127.0.0.1:3260",
            "127.0.0.2:3260",
        }
    assert mains == ["127.0.0.2:3260", "127.0.0.1:3260"] * 2


def test_backend_without_chap(tmp_path: Path) -> None:
    """A backend without CHAP asks for no secret and tells none."""
    bench = make_bench(tmp_path, policy=ExportPolicy(chap=False))
    volume = make_volume(bench)
    info = connect(bench, volume)
    export = export_of(bench, volume)
    assert export is not None
    assert chap_of(export) is None
    assert not {"auth_method", "auth_username", "auth_password"} & set(info)


def test_backend_that_knows_one_path(tmp_path: Path) -> None:
    """With multipath and alternatives off a host is told one path, whatever it asked for."""
    bench = make_bench(tmp_path, policy=ExportPolicy(multipath=False, alternatives=False))
    volume = make_volume(bench)
    info = connect(bench, volume, HOST_B)
    assert info["target_portal"] == "127.0.0.1:3260"
    assert not [key for key in info if key.endswith(("portals", "iqns", "luns"))]
