"""Hosts that connect and disconnect at once, on targets that several volumes share.

Whatever the order, rows and targets agree in the end, no LUN is given twice, and nobody waits
for ever.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from lunport.core.volume import Volume
from lunport.store import tables
from lunport.volume import actions, attachments
from lunport.volume.reconcile import restore_exports
from lunport.volume.requests import NewAttachment
from tests.fakes.fake_service import FakeBench
from tests.fakes.policy_play import A, B, backend_of, bench_of, seen_by
from tests.fakes.volume_play import (
    COMPUTE,
    HOST_A,
    HOST_B,
    ME,
    assert_exports_match,
    connect,
    make_volume,
    rows_of,
)
from tests.unit.test_volume_races import race, winners

HOSTS = (HOST_A, HOST_B)
VOLUMES = 8
every_kind = pytest.mark.parametrize("kind", ["host", "host_lio", "shared"])


def luns_are_held_once(bench: FakeBench) -> None:
    """Assert that each LUN in use has one volume, and each volume one on each of its targets."""
    held = [row for row in rows_of(bench, tables.target_units) if row["volume_id"]]
    numbers = Counter((row["target_id"], row["lun"]) for row in held)
    volumes = Counter((row["target_id"], row["volume_id"]) for row in held)
    assert set(numbers.values()) | set(volumes.values()) <= {1}
    wanted = {(row["target_id"], row["volume_id"]) for row in rows_of(bench, tables.connections)}
    assert set(volumes) == wanted


@every_kind
def test_hosts_connect_at_once(tmp_path: Path, kind: str) -> None:
    """Volumes connected at once by one host, or by two, have LUNs of their own."""
    bench = bench_of(tmp_path, kind)
    made = [make_volume(bench) for _ in range(VOLUMES)]
    outcomes = race(lambda number: connect(bench, made[number], HOSTS[number % 2]))
    assert winners(outcomes) == VOLUMES
    assert len(seen_by(bench, A)) == len(seen_by(bench, B)) == VOLUMES // 2
    luns_are_held_once(bench)
    assert_exports_match(bench)


@every_kind
def test_coming_and_going_with_restorations_between(tmp_path: Path, kind: str) -> None:
    """Connects, disconnects and restorations of the same targets never leave half of one."""
    bench = bench_of(tmp_path, kind)
    made = [make_volume(bench) for _ in range(VOLUMES)]

    def come_and_go(number: int) -> None:
        for turn in range(4):
            connector = HOSTS[(number + turn) % 2]
            connect(bench, made[number], connector)
            if turn % 3 != number % 3:
                actions.terminate_connection(bench.service, COMPUTE, made[number].id, connector)

    def restore(_: int) -> None:
        for _turn in range(6):
            assert not restore_exports(bench.service, backend_of(bench))

    outcomes = race(come_and_go, come_and_go, restore)
    assert winners(outcomes) == VOLUMES
    luns_are_held_once(bench)
    assert_exports_match(bench)


@every_kind
def test_both_ends_of_many_migrations(tmp_path: Path, kind: str) -> None:
    """Volumes that move between two hosts in both directions keep no lock from one another."""
    bench = bench_of(tmp_path, kind)
    made = [make_volume(bench, multiattach=True) for _ in range(VOLUMES)]
    ids: dict[str, list[str]] = {volume.id: [] for volume in made}

    def attach(volume: Volume, number: int, turn: int) -> None:
        new = NewAttachment(volume.id, None, HOSTS[(number + turn) % 2])
        view = attachments.create_attachment(bench.service, ME, new)
        attachments.complete_attachment(bench.service, ME, view.attachment.id)
        ids[volume.id].append(view.attachment.id)

    def migrate(number: int) -> None:
        attach(made[number], number, 0)
        for turn in (1, 2, 3):
            attach(made[number], number, turn)
            gone = ids[made[number].id].pop(0)
            attachments.delete_attachment(bench.service, COMPUTE, gone)

    assert winners(race(migrate)) == VOLUMES
    luns_are_held_once(bench)
    assert_exports_match(bench)
