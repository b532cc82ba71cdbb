"""What tests of the volume service's use cases have in common: callers, volumes, the state.

``state_of`` shows everything there is (rows, exports, images), without the times, so that a
test can say "nothing has changed".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from lunport.core.attachment import Attachment
from lunport.core.iqn import Iqn
from lunport.core.volume import Volume
from lunport.store import connections as connection_rows
from lunport.store import tables
from lunport.store import volumes as volume_rows
from lunport.targets.helper import Export
from lunport.targets.naming import target_name
from lunport.volume import actions, attachments, volumes
from lunport.volume.requests import Caller, NewAttachment, NewVolume, Query
from tests.fakes.fake_service import FakeBench

ME = Caller("me", "project", is_admin=False)
ADMIN = Caller("admin", "other", is_admin=True)
STRANGER = Caller("stranger", "elsewhere", is_admin=False)
COMPUTE = Caller("nova", "project", is_admin=False, is_service=True)
INSTANCE = "5f0e3e2a-0d8e-4b7b-9c53-000000000001"
OTHER_INSTANCE = "5f0e3e2a-0d8e-4b7b-9c53-000000000002"
UNKNOWN = "00000000-0000-4000-8000-000000000000"
HOST_A: Mapping[str, object] = {
    "initiator": "iqn.1993-08.org.debian:01:a",
    "host": "a",
    "ip": "192.0.2.1",
    "multipath": False,
}
HOST_B: Mapping[str, object] = {
    "initiator": "iqn.1993-08.org.debian:01:b",
    "host": "b",
    "ip": "192.0.2.2",
    "multipath": True,
}
# Times; and what a volume gets with its first export and keeps.
_UNIMPORTANT = frozenset(
    ("updated_at", "provider_location", "chap_username", "chap_password", "created_at")
)

State = Mapping[str, object]


def make_volume(bench: FakeBench, **fields: object) -> Volume:
    """Make an available volume of 1 GiB."""
    new: dict[str, Any] = {"size_gib": 1, **fields}
    made = volumes.create_volume(bench.service, ME, NewVolume(**new))
    return volume_of(bench, made.volume.id)


def make_attachment(
    bench: FakeBench,
    volume: Volume,
    connector: Mapping[str, object] | None = None,
    instance: str | None = INSTANCE,
) -> Attachment:
    """Make an attachment, connected if there is a connector."""
    new = NewAttachment(volume.id, instance, connector)
    return attachments.create_attachment(bench.service, ME, new).attachment


def make_attached(
    bench: FakeBench,
    volume: Volume,
    connector: Mapping[str, object] = HOST_A,
    instance: str | None = INSTANCE,
) -> Attachment:
    """Make an attachment that is in use."""
    made = make_attachment(bench, volume, connector, instance)
    attachments.complete_attachment(bench.service, ME, made.id)
    return attachments.get_attachment(bench.service, ME, made.id).attachment


def set_volume(bench: FakeBench, volume: Volume, **values: object) -> None:
    """Change a volume's record behind the use cases' back."""
    with bench.service.store.write() as connection:
        assert volume_rows.change(connection, volume.id, values)


def volume_of(bench: FakeBench, volume_id: str) -> Volume:
    """Return a volume's record."""
    return volumes.get_volume(bench.service, ADMIN, volume_id).volume


def statuses_of(bench: FakeBench, volume: Volume) -> tuple[str, str]:
    """Return a volume's two statuses."""
    found = volume_of(bench, volume.id)
    return found.status, found.attach_status


def exists(bench: FakeBench, volume: Volume) -> bool:
    """Tell whether the volume still has a record."""
    found = volumes.list_volumes(bench.service, ADMIN, Query(None)).rows
    return volume.id in {view.volume.id for view in found}


def export_of(bench: FakeBench, volume: Volume) -> Export | None:
    """Return a volume's export as the helper has it."""
    return bench.helper.described(target_name(volume.id))


def admitted_to(bench: FakeBench, volume: Volume) -> frozenset[Iqn]:
    """Return who may log in to a volume's target; empty when there is none."""
    export = export_of(bench, volume)
    return frozenset() if export is None else export.initiators


def connections_of(bench: FakeBench, volume: Volume) -> list[tuple[str, bool, bool]]:
    """Return (initiator, belongs to an attachment, pending) of a volume's connections."""
    with bench.service.store.read() as connection:
        found = connection_rows.of_volume(connection, volume.id)
    return [(row.initiator, row.attachment_id is not None, row.pending) for row in found]


def connect(
    bench: FakeBench, volume: Volume, connector: Mapping[str, object] = HOST_A
) -> dict[str, Any]:
    """Connect a host as the older API does; return the connection info's data."""
    info: dict[str, Any] = actions.initialize_connection(bench.service, ME, volume.id, connector)
    assert info["driver_volume_type"] == "iscsi"
    data: dict[str, Any] = info["data"]
    return data


def rows_of(bench: FakeBench, table: sa.Table) -> list[dict[str, Any]]:
    """Return a table's rows."""
    with bench.service.store.read() as connection:
        return [dict(row._mapping) for row in connection.execute(sa.select(table))]


def operations_of(bench: FakeBench) -> list[dict[str, Any]]:
    """Return the work that is not finished."""
    return rows_of(bench, tables.operations)


def messages_of(bench: FakeBench) -> list[str]:
    """Return what the users were told."""
    return [row["user_message"] for row in rows_of(bench, tables.messages)]


def state_of(bench: FakeBench) -> State:
    """Show everything: the rows but for their times, the exports, the images."""
    shown: dict[str, object] = {
        table.name: sorted(
            repr({key: value for key, value in row.items() if key not in _UNIMPORTANT})
            for row in rows_of(bench, table)
        )
        for table in tables.metadata.sorted_tables
        if table is not tables.messages
    }
    exports = bench.helper.exports() if bench.helper.is_alive() else ()
    shown["exports"] = {(one.iqn, one.tid, one.initiators) for one in exports}
    shown["images"] = bench.driver.images()
    return shown


def assert_exports_match(bench: FakeBench) -> None:
    """Assert that each target with a connection shows exactly what it shall, and to whom."""
    rows = rows_of(bench, tables.connections)
    iqns = {row["id"]: row["iqn"] for row in rows_of(bench, tables.targets)}
    wanted: dict[str, dict[str, set[str]]] = {}
    for row in rows:
        assert not row["pending"], row
        iqn = iqns.get(row["target_id"], target_name(row["volume_id"]))
        views = wanted.setdefault(iqn, {})
        views.setdefault(row["initiator"], set()).add(row["volume_id"])
    shown: dict[str, dict[str, set[str]]] = {}
    for one in bench.helper.exports():
        export = bench.helper.described(one.iqn)
        assert export is not None
        volumes = {unit.lun: unit.identity.serial for unit in export.units}
        shown[one.iqn] = {
            admission.initiator: {
                volume
                for lun, volume in volumes.items()
                if admission.luns is None or lun in admission.luns
            }
            for admission in export.admissions
        }
    assert shown == wanted
