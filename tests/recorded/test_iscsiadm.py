"""What iscsiadm 2.1.8 answered in each situation, and what is made of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lunport.core.errors import (
    HostLacks,
    InitiatorDown,
    LoginRejected,
    LoginTimedOut,
    LunportError,
)
from lunport.core.iqn import Iqn
from lunport.core.node_record import (
    RecordSettings,
    format_node_record,
    parse_record_place,
    parse_settings,
    record_place,
)
from lunport.core.portal import Portal
from lunport.core.target_path import TargetPath
from lunport.host.iscsiadm import EXIT_CODES, Actor, error_of
from lunport.host.runner import Completed

FOLDER = Path(__file__).parent / "open-iscsi" / "2.1.8"
PATH = TargetPath(Portal("10.0.1.2"), Iqn("iqn.2026-11.lab:t1"), 1)


def recorded(name: str) -> tuple[str, int]:
    """Read one recorded answer: what was said, and the status."""
    text = (FOLDER / f"{name}.out").read_text()
    match = re.fullmatch(r"\$ .*\n((?s:.*))exit (\d+)\n", text)
    assert match is not None
    return match[1], int(match[2])


@pytest.mark.parametrize(
    "name, status",
    [
        ("login", 0),
        ("login-again", 15),
        ("login-ipv6", 0),
        ("chap-t2", 0),
        ("chap-t3", 0),
        ("logout", 0),
        ("logout-ipv6", 0),
        ("logout-again", 21),
        ("logout-sid-no-record", 0),
        ("logout-sid-missing", 22),
    ],
)
def test_what_is_no_failure(name: str, status: int) -> None:
    """Sessions that are there already, or gone already, have statuses of their own."""
    assert recorded(name)[1] == status


@pytest.mark.parametrize(
    "name, error, actor",
    [
        ("no-iscsid", InitiatorDown, Actor.HOST),
        ("no-module", InitiatorDown, Actor.HOST),
        ("not-root", HostLacks, Actor.PROGRAM),
        ("refused", LoginTimedOut, Actor.PLANNER),
        ("target-unknown", LoginTimedOut, Actor.PLANNER),
        ("chap-wrong", LoginRejected, Actor.STORAGE),
        ("chap-none", LoginRejected, Actor.STORAGE),
        ("chap-target-wrong", LoginRejected, Actor.STORAGE),
    ],
)
def test_each_situation_has_its_error(name: str, error: type[LunportError], actor: Actor) -> None:
    """What iscsiadm answers to it becomes the error that the right one acts on.

    A refused connection is a timeout to iscsiadm, and so is a target that LIO does not know:
    only the probe tells them apart.
    """
    said, status = recorded(name)
    found = error_of(
        Completed(status, "", said, 1.0),
        ["iscsiadm"],
        where=str(PATH),
        iface="default",
        is_root=name != "not-root",
    )
    assert type(found) is error
    assert EXIT_CODES[status].actor is actor


def test_iscsiadm_shows_the_record_as_we_meant_it() -> None:
    """Every setting of ours is what ``-o show`` says, and it warns of none."""
    said, status = recorded("show")
    shown = parse_settings(said)
    text = format_node_record(
        PATH, tpgt=1, iface="default", chap=None, settings=RecordSettings(), configured={}
    )
    ours = parse_settings(text.reveal())
    assert status == 0
    assert {name: shown[name] for name in ours} == ours
    assert not re.search("warning|unknown|line [0-9]", said)


def test_iscsiadm_writes_ipv6_as_we_do() -> None:
    """Its own record for an IPv6 portal has our place, our address and no setting we misname."""
    theirs = parse_settings((FOLDER / "record-ipv6.txt").read_text())
    path = TargetPath(Portal("fd00:0:1::2"), PATH.iqn, 1)
    text = format_node_record(
        path, tpgt=1, iface="default", chap=None, settings=RecordSettings(), configured={}
    )
    ours = parse_settings(text.reveal())
    assert ours.keys() <= theirs.keys()
    where = ("node.name", "node.tpgt", "node.conn[0].address", "node.conn[0].port")
    assert [ours[name] for name in where] == [theirs[name] for name in where]
    place = "iqn.2026-11.lab:t1/fd00:0:1::2,3260,1/default"
    assert record_place(path.portal, path.iqn, 1, "default") == place
    assert parse_record_place(place) is not None
