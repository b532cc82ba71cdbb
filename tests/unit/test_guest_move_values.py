"""Notes of moves, the progress of a call, and a preflight's verdicts: values in, values out."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lunport.cli.guest_migrate import progress_line
from lunport.core.domain_xml import parse_domain
from lunport.core.errors import InvalidInput
from lunport.core.guest import Guest, GuestState
from lunport.core.guest_attachment import GuestAttachment, GuestPhase
from lunport.core.guest_disk import InitiatorKind
from lunport.core.guest_move import GuestMove, format_guest_move, parse_guest_move
from lunport.core.migration_plan import Side
from lunport.core.migration_preflight import (
    DestinationFacts,
    Finding,
    Outcome,
    PreflightFacts,
    VolumeFacts,
    judge,
)
from lunport.core.move_call import MoveProgress

GUEST = "d0000000-0000-4000-8000-000000000001"
VOLUME = "58a84f6d-3f0c-4e19-a0af-eb657b790657"
WWID = "naa.60014050000000000000000000000001"
PORTAL = "10.0.1.2:3260"
DISK = f"<disk><source dev='/dev/x'/><target dev='vdb'/><serial>{VOLUME}</serial></disk>"
EMPTY = "<disk device='cdrom'><target dev='sda'/></disk>"
MOVE = GuestMove(
    side=Side.SOURCE,
    migration_id=None,
    uri="qemu:///system",
    guest_id=GUEST,
    guest_name="web",
    endpoint="https://san:8777",
    source="a",
    destination="b",
    volume_ids=(VOLUME,),
    autostart=True,
    since=1_800_000_000.0,
)
ENTRY = GuestAttachment(
    uri="qemu:///system",
    guest_id=GUEST,
    guest_name="web",
    volume_id=VOLUME,
    endpoint="https://san:8777",
    phase=GuestPhase.ATTACHED,
    initiator=InitiatorKind.KERNEL,
    multipath=None,
    attachment_id="attachment",
    target="vdb",
    since=0.0,
)
THERE = DestinationFacts("b", "qemu+tls://b/system", "qemu:///system", reachable={PORTAL: True})

texts = st.text(min_size=1, max_size=20)
ids = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,20}", fullmatch=True)


@given(
    st.builds(
        GuestMove,
        side=st.sampled_from(Side),
        migration_id=st.none() | texts,
        uri=texts,
        guest_id=ids,
        guest_name=texts,
        endpoint=texts,
        source=texts,
        destination=texts,
        volume_ids=st.lists(ids, max_size=3).map(tuple),
        autostart=st.booleans(),
        since=st.floats(0, 1e11),
        peer=st.none() | texts,
    )
)
def test_a_note_reads_back(move: GuestMove) -> None:
    """What is written parses to the same note."""
    assert parse_guest_move(format_guest_move(move)) == move


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"version": True},
        {"side": "middle"},
        {"guest_id": "../x"},
        {"guest_name": ""},
        {"volume_ids": "x"},
        {"volume_ids": [1]},
        {"autostart": 1},
        {"since": -1},
        {"since": True},
        {"peer": 3},
        {"endpoint": None},
    ],
)
def test_junk_is_refused(change: dict[str, object]) -> None:
    """A note that is damaged, or newer, is told as such."""
    wire = {**json.loads(format_guest_move(MOVE)), **change}
    with pytest.raises(InvalidInput):
        parse_guest_move(json.dumps(wire))
    for text in ("", "[]", "{", "null"):
        with pytest.raises(InvalidInput):
            parse_guest_move(text)


def test_progress() -> None:
    """An estimate is made of the rate less the guest's own; a faster guest has none."""
    one = MoveProgress(3.0, 400 << 20, 100 << 20, 100 << 20, 60 << 20, 2560, 2)
    assert one.fraction == 0.5
    assert one.estimate_s == pytest.approx(2.0)
    assert "about 2 s" in progress_line(one, one.fraction)
    faster = replace(one, dirty_pages_s=40_000)
    assert faster.estimate_s is None
    assert "does not converge" in progress_line(faster, 0.5)
    assert replace(one, processed_bytes=0, remaining_bytes=0).fraction == 0.0


def facts(*disks: str, volumes: tuple[VolumeFacts, ...] | None = None) -> PreflightFacts:
    """Make facts that let a guest with these disks go."""
    listed = "".join(disks or (DISK,))
    live = parse_domain(
        f"<domain><name>web</name><os><type machine='pc'>hvm</type></os>"
        f"<devices>{listed}</devices></domain>"
    )
    one = VolumeFacts(ENTRY, WWID, (PORTAL,))
    return PreflightFacts(
        guest=Guest(GUEST, "web", GuestState.RUNNING, "booted", False, live, live),
        source_host="a",
        destination_host="b",
        volumes=(one,) if volumes is None else volumes,
        destination=THERE,
        destination_error=None,
    )


def failed(given_facts: PreflightFacts) -> list[str]:
    """Return the subjects that fail."""
    return [one.subject for one in judge(given_facts) if one.outcome is Outcome.FAILED]


def test_nothing_in_the_way() -> None:
    """A guest with volumes of ours, and drives without a medium, may go."""
    found = judge(facts(DISK, EMPTY))
    assert {one.outcome for one in found} == {Outcome.OK}
    assert Finding("disk sda", Outcome.OK, "a drive without a medium") in found


def test_what_is_in_the_way() -> None:
    """Each thing that forbids it is named by its subject."""
    good = facts()
    (volume,) = good.volumes
    off = replace(good.guest, live=None, state=GuestState.SHUT_OFF)
    assert "guest" in failed(replace(good, guest=off))
    assert "guest" in failed(facts(DISK, volumes=()))
    assert failed(replace(good, destination_host="A")) == ["hosts", "destination"]
    assert failed(replace(good, open_elsewhere="migration 1")) == ["migration"]
    assert failed(replace(good, destination=None, destination_error="no")) == ["destination"]
    for there, subject in (
        (replace(THERE, host="c"), "destination"),
        (replace(THERE, knows_guest=True), "destination"),
        (replace(THERE, obstacles={"libvirt": "down"}), "destination"),
        (replace(THERE, obstacles={"machine": "unknown"}), "machine"),
        (replace(THERE, obstacles={"cpu": "older"}), "cpu"),
        (replace(THERE, free_bytes=10), "journal"),
        (replace(THERE, reachable={PORTAL: False}), "disk vdb"),
    ):
        assert failed(replace(good, destination=there)) == [subject]
    for changed in (
        replace(volume, entry=replace(ENTRY, phase=GuestPhase.ATTACHING)),
        replace(volume, error="the service is down"),
        replace(volume, wwid=None),
        replace(volume, entry=replace(ENTRY, multipath=True)),
    ):
        assert failed(replace(good, volumes=(changed,))) == ["disk vdb"]


def test_disks_that_are_not_ours() -> None:
    """A disk of others must be said to be shared; one of ours must be there, and once."""
    other = "<disk><source file='/x'/><target dev='vdc'/></disk>"
    assert failed(facts(DISK, other)) == ["disk vdc"]
    shared = replace(facts(DISK, other), shared=frozenset({"vdc"}))
    assert failed(shared) == []
    assert Outcome.WARNING in {one.outcome for one in judge(shared)}
    assert failed(facts(EMPTY)) == ["disk vdb"]
    twice = DISK.replace("vdb", "vdd")
    assert failed(facts(DISK, twice)) == ["disk vdb", "disk vdd"]


def test_what_is_only_worth_a_word() -> None:
    """One portal of two, none asked, a guest without a definition: it may go all the same."""
    good = facts()
    two = (replace(good.volumes[0], portals=(PORTAL, "10.0.2.2:3260")),)
    half = replace(THERE, reachable={PORTAL: True, "10.0.2.2:3260": False})
    transient = replace(good.guest, persistent=None)
    for changed in (
        replace(good, volumes=two, destination=half),
        replace(good, destination=replace(THERE, reachable={})),
        replace(good, guest=transient),
    ):
        outcomes = {one.outcome for one in judge(changed)}
        assert outcomes == {Outcome.OK, Outcome.WARNING}
