"""The readers of what tgtd shows, against what a real one showed, and against damage."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lunport.core.identity import derive_identity
from lunport.core.portal import Portal
from lunport.host.tgt_show import (
    ShownConnection,
    ShownLun,
    ShownTarget,
    find_targets,
    parse_accounts,
    parse_connections,
    parse_portals,
    parse_settings,
    parse_targets,
    shown_mb,
)

FOLDER = Path(__file__).parent / "tgt" / "1.0.85"
FIRST = "0f0e0d0c-0b0a-4908-8706-050403020100"
SECOND = "0f0e0d0c-0b0a-4908-8706-050403020111"
HOST_A = "iqn.2026-11.io.lunport.test:host-a"
HOST_B = "iqn.2026-11.io.lunport.test:host-b"


def recorded(name: str) -> str:
    """Read one recorded answer."""
    return (FOLDER / name).read_text()


def lun(volume_id: str) -> ShownLun:
    """Say what a volume's unit shows."""
    identity = derive_identity(volume_id)
    return ShownLun(
        lun=1,
        scsi_id=identity.wwid.removeprefix("naa."),
        serial=volume_id,
        path=Path(f"/srv/lunport/volume-{volume_id}"),
        is_thin=True,
        size_mb=17,
    )


TARGETS = (
    ShownTarget(
        tid=1,
        name=f"iqn.2026-11.io.lunport:volume-{FIRST}",
        sessions=2,
        luns=(lun(FIRST),),
        accounts=("userfortests",),
        outgoing="targetuser",
        initiators=(HOST_A, HOST_B),
    ),
    ShownTarget(
        tid=12,
        name=f"iqn.2026-11.io.lunport:volume-{SECOND}",
        sessions=0,
        luns=(lun(SECOND),),
        accounts=(),
        outgoing=None,
        initiators=(),
    ),
    ShownTarget(20, "iqn.2026-11.io.lunport:bare", 0, (), (), None, ()),
)


def test_targets_are_read_with_everything() -> None:
    """Names, ids, units, sessions, accounts of both directions and initiators are found."""
    assert parse_targets(recorded("target_show.out")) == TARGETS


def test_no_targets_are_none() -> None:
    """A daemon without targets shows nothing."""
    assert parse_targets("") == ()


@pytest.mark.parametrize(
    "tid, name, expected",
    [
        (1, TARGETS[0].name, TARGETS[:1]),
        (20, "iqn.2026-11.io.lunport:none", TARGETS[2:]),
        (99, TARGETS[1].name, TARGETS[1:2]),
        (1, TARGETS[1].name, TARGETS[:2]),
        (2, "iqn.2026-11.io.lunport:volume-", ()),
    ],
)
def test_single_targets_are_found_by_id_or_name(
    tid: int, name: str, expected: tuple[ShownTarget, ...]
) -> None:
    """Only whole ids and whole names match; both may be of different targets."""
    assert find_targets(recorded("target_show.out"), tid, name) == expected


def test_connections_are_read_with_their_numbers() -> None:
    """Each connection has its session, its own number and its initiator."""
    assert sorted(parse_connections(recorded("connection_show.out")), key=str) == [
        ShownConnection(1, 0, HOST_A),
        ShownConnection(2, 0, HOST_B),
    ]


def test_portals_are_read_with_both_families() -> None:
    """IPv4 and IPv6 portals are read, their tag is left out."""
    assert set(parse_portals(recorded("portal_show.out"))) == {
        Portal("127.0.0.1", 23261),
        Portal("::1", 23261),
    }


def test_accounts_are_read() -> None:
    """The names of all accounts are found, the heading is none."""
    assert set(parse_accounts(recorded("account_show.out"))) == {"userfortests", "targetuser"}


def test_settings_are_read() -> None:
    """A target's settings are found by name."""
    settings = parse_settings(recorded("target_show_tid.out"))
    assert settings["nop_interval"] == "0"
    assert int(settings["nop_count"]) > 0
    assert settings["MaxRecvDataSegmentLength"] == "8192"


@given(st.data())
def test_a_target_that_is_cut_off_is_read_as_far_as_it_goes(data: st.DataObject) -> None:
    """An answer that ends early, between lines, gives a prefix and never an exception."""
    lines = recorded("target_show.out").splitlines(keepends=True)
    cut = "".join(lines[: data.draw(st.integers(0, len(lines)))])
    found = parse_targets(cut)
    assert [one.name for one in found] == [one.name for one in TARGETS[: len(found)]]


def test_sizes_are_rounded_as_tgtd_rounds() -> None:
    """The 16 MiB of the recording are 17 MB, and no whole number of GiB looks like the next."""
    assert shown_mb(16 << 20) == 17
    shown = [shown_mb(gib << 30) for gib in range(1, 20_000)]
    assert len(set(shown)) == len(shown)


@given(st.text(alphabet=st.characters(exclude_characters="\n"), max_size=60))
def test_what_an_initiator_calls_itself_changes_nothing(alias: str) -> None:
    """An alias, which any initiator may choose, is not taken for a field of the target."""
    text = recorded("target_show.out").replace("alias: none", f"alias: {alias}")
    assert parse_targets(text) == TARGETS
