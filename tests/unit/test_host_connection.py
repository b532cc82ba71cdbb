"""The values of a host's journal, their codec, and the names of their files."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lunport.core.connection_info import AddressingMode, ConnectionInfo
from lunport.core.errors import InvalidInput
from lunport.core.host_connection import (
    VERSION,
    HostConnection,
    OwnedSession,
    Phase,
    connection_key,
    format_host_connection,
    format_owned_session,
    is_key,
    parse_host_connection,
    parse_owned_session,
    session_key,
)
from lunport.core.iqn import Iqn
from lunport.core.multipath_use import MemberPath, MultipathUse, StallProfile
from lunport.core.portal import Portal
from lunport.core.scsi_address import ScsiAddress
from lunport.core.secret import Secret
from lunport.core.target_path import TargetPath
from lunport.core.wwid import Wwid
from tests.strategies import (
    connection_infos,
    iqns,
    json_values,
    path_lists,
    portals,
    target_paths,
    wwids,
)

_NUMBERS = st.integers(0, 2**64)
_TEXTS = st.text(min_size=1, max_size=20)
_KEYS = st.from_regex(r"[a-z0-9][a-z0-9.:_-]{0,40}", fullmatch=True)
# What a record that is no UTF-8 looks like when it is read is text as well.
_RECORDS = st.binary(max_size=60).map(lambda data: Secret(data.decode(errors="surrogateescape")))

CONNECTION = HostConnection(
    key="naa.60014051234567890123456789012345",
    phase=Phase.CONNECTED,
    paths=(TargetPath(Portal("10.0.1.2"), Iqn("iqn.2026-11.org.example:v"), 1),),
    used=TargetPath(Portal("10.0.1.2"), Iqn("iqn.2026-11.org.example:v"), 1),
    iface="default",
    addressing_mode=AddressingMode.SAM2,
    wwid=Wwid("naa.60014051234567890123456789012345"),
    seen_wwid=None,
    volume_id="5f1f0b0c",
    holders=("a1", "a2"),
    unit=ScsiAddress(3, 0, 0, 1),
    disk_name="sda",
    size_bytes=2**30,
    boot_id="b",
    since=1.5,
)
SESSION = OwnedSession(
    portal=Portal("10.0.1.2"),
    iqn=Iqn("iqn.2026-11.org.example:v"),
    iface="default",
    tpgt=1,
    place="iqn.2026-11.org.example:v/10.0.1.2,3260,1/default",
    sid=7,
    boot_id="b",
    replaced_record=Secret("node.session.auth.password = sesame"),
)


def host_connections() -> st.SearchStrategy[HostConnection]:
    """Everything the journal can say of a connection."""
    return st.builds(
        HostConnection,
        key=_KEYS,
        phase=st.sampled_from(Phase),
        paths=path_lists(),
        used=st.none() | target_paths(),
        iface=_TEXTS,
        addressing_mode=st.none() | st.sampled_from(AddressingMode),
        wwid=st.none() | wwids(),
        seen_wwid=st.none() | wwids(),
        volume_id=st.none() | _TEXTS,
        holders=st.lists(_TEXTS, max_size=3).map(tuple),
        unit=st.none() | st.builds(ScsiAddress, *[st.integers(0, 2**31)] * 4),
        disk_name=st.none() | _TEXTS,
        size_bytes=st.none() | _NUMBERS,
        boot_id=_TEXTS,
        since=st.floats(0, 1e11),
        multipath=st.none() | multipath_uses(),
    )


def multipath_uses() -> st.SearchStrategy[MultipathUse]:
    """Everything the journal can say of a map."""
    member = st.builds(
        MemberPath,
        path=target_paths(),
        iface=_TEXTS,
        unit=st.builds(ScsiAddress, *[st.integers(0, 2**31)] * 4),
        disk_name=_TEXTS,
        since=st.floats(0, 1e11),
    )
    return st.builds(
        MultipathUse,
        members=st.lists(member, max_size=3).map(tuple),
        wanted=st.none() | _NUMBERS,
        queue_s=st.floats(0, 1e6),
        stall=st.sampled_from(StallProfile),
        is_registered=st.booleans(),
    )


def owned_sessions() -> st.SearchStrategy[OwnedSession]:
    """Everything the journal can say of a session of ours."""
    return st.builds(
        OwnedSession,
        portal=portals(),
        iqn=iqns(),
        iface=_TEXTS,
        tpgt=st.none() | st.integers(0, 65535),
        place=st.from_regex(r"[a-z0-9:]{1,9}/[a-z0-9,]{1,9}(/[a-z]{1,9})?", fullmatch=True),
        sid=st.none() | _NUMBERS,
        boot_id=_TEXTS,
        replaced_record=st.none() | _RECORDS,
    )


# -- codec ---------------------------------------------------------------------------------


@given(host_connections())
def test_a_connection_comes_back_as_it_was_written(connection: HostConnection) -> None:
    """Writing and reading an entry of the journal gives the same entry."""
    assert parse_host_connection(format_host_connection(connection)) == connection


@given(owned_sessions())
def test_an_owned_session_comes_back_as_it_was_written(session: OwnedSession) -> None:
    """Writing and reading a session gives the same session, the replaced record byte by byte."""
    text = format_owned_session(session)
    assert text.isascii()
    assert parse_owned_session(text) == session


def test_the_written_form_is_a_versioned_object() -> None:
    """An entry is one JSON object that says its version."""
    assert json.loads(format_host_connection(CONNECTION)) == {
        "version": 2,
        "key": "naa.60014051234567890123456789012345",
        "phase": "connected",
        "paths": [
            {
                "portal": "10.0.1.2:3260",
                "iqn": "iqn.2026-11.org.example:v",
                "lun": 1,
                "transport": "tcp",
            }
        ],
        "used": {
            "portal": "10.0.1.2:3260",
            "iqn": "iqn.2026-11.org.example:v",
            "lun": 1,
            "transport": "tcp",
        },
        "iface": "default",
        "addressing_mode": "SAM2",
        "wwid": "naa.60014051234567890123456789012345",
        "seen_wwid": None,
        "volume_id": "5f1f0b0c",
        "holders": ["a1", "a2"],
        "unit": "3:0:0:1",
        "disk_name": "sda",
        "size_bytes": 2**30,
        "boot_id": "b",
        "since": 1.5,
        "multipath": None,
    }


def test_a_newer_version_is_refused() -> None:
    """What a newer release wrote is not guessed at."""
    text = format_owned_session(SESSION).replace('"version": 2', f'"version": {VERSION + 1}')
    with pytest.raises(InvalidInput, match="newer release"):
        parse_owned_session(text)


def test_what_an_older_release_wrote_is_read() -> None:
    """An entry of the version before maps is one of a single path."""
    wire = json.loads(format_host_connection(CONNECTION)) | {"version": 1}
    del wire["multipath"]
    assert parse_host_connection(json.dumps(wire)) == CONNECTION


def test_a_key_that_means_nothing_is_passed_over() -> None:
    """Within one version a further key does no harm."""
    text = format_host_connection(CONNECTION).replace("{", '{"colour": "red",', 1)
    assert parse_host_connection(text) == CONNECTION


@pytest.mark.parametrize("key", list(json.loads(format_host_connection(CONNECTION))))
def test_every_key_of_a_connection_must_be_there(key: str) -> None:
    """A connection of which anything is missing is damaged, and the error names it."""
    wire = json.loads(format_host_connection(CONNECTION))
    del wire[key]
    with pytest.raises(InvalidInput, match=key):
        parse_host_connection(json.dumps(wire))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("key", "../../etc/passwd"),
        ("key", "Upper"),
        ("phase", "thinking"),
        ("paths", []),
        ("paths", [7]),
        ("used", {}),
        ("iface", ""),
        ("addressing_mode", "SAM7"),
        ("wwid", "nothing"),
        ("holders", None),
        ("holders", [""]),
        ("unit", "3:0:0"),
        ("size_bytes", -1),
        ("size_bytes", True),
        ("boot_id", None),
        ("since", "now"),
        ("multipath", []),
        ("multipath", {"members": [7]}),
        ("multipath", {"members": []}),
        ("since", float("nan")),
        ("version", True),
        ("version", 0),
    ],
)
def test_a_connection_that_says_what_cannot_be_is_refused(key: str, value: object) -> None:
    """A value of the wrong kind is refused, and the error names its key."""
    wire = json.loads(format_host_connection(CONNECTION)) | {key: value}
    with pytest.raises(InvalidInput, match=key):
        parse_host_connection(json.dumps(wire))


@pytest.mark.parametrize("place", ["", "/etc/passwd", "../x", "a/../../b", "a//b", "a/\0", "a/."])
def test_a_record_is_never_out_of_its_folder(place: str) -> None:
    """A place that leads out of the folder of records is refused."""
    wire = json.loads(format_owned_session(SESSION)) | {"place": place}
    with pytest.raises(InvalidInput, match="place"):
        parse_owned_session(json.dumps(wire))


@given(st.text(max_size=40) | json_values().map(json.dumps))
def test_anything_else_is_refused_in_one_way(text: str) -> None:
    """Whatever a file holds, reading it gives an entry or InvalidInput."""
    for parse in (parse_host_connection, parse_owned_session):
        with pytest.raises(InvalidInput):
            parse(text)


def test_a_text_nested_without_end_is_refused() -> None:
    """A file of nothing but brackets is damaged like any other."""
    with pytest.raises(InvalidInput):
        parse_host_connection("[" * 100_000)


def test_the_replaced_record_shows_nowhere_but_in_the_codec() -> None:
    """Neither the value nor an error about its file shows somebody else's record."""
    assert "sesame" not in repr(SESSION)
    wire = json.loads(format_owned_session(SESSION)) | {"replaced_record": ["sesame"]}
    with pytest.raises(InvalidInput) as caught:
        parse_owned_session(json.dumps(wire))
    assert "sesame" not in str(caught.value)


def test_the_identity_to_hold_against_a_disk_is_the_stated_one() -> None:
    """A stated identity goes before one that was seen."""
    seen = Wwid("naa.5000000000000001")
    assert replace(CONNECTION, seen_wwid=seen).expected_wwid == CONNECTION.wwid
    assert replace(CONNECTION, wwid=None, seen_wwid=seen).expected_wwid == seen


# -- names -----------------------------------------------------------------------------------


@given(connection_infos(), st.data())
def test_a_key_does_not_depend_on_order_or_spelling(
    info: ConnectionInfo, data: st.DataObject
) -> None:
    """Paths in another order and names in another case are the same connection."""
    key = connection_key(info)
    assert is_key(key)
    assert len(f".{key}.json.0123456789ab.partial") < 255
    shuffled = [
        replace(path, iqn=Iqn(path.iqn.upper()) if path.iqn.isascii() else path.iqn)
        for path in data.draw(st.permutations(info.paths))
    ]
    assert connection_key(replace(info, paths=tuple(shuffled))) == key


def test_a_key_is_the_stated_identity() -> None:
    """A volume that states its identity is known by it, whatever its paths."""
    info = ConnectionInfo(paths=CONNECTION.paths, wwid=CONNECTION.wwid)
    assert connection_key(info) == CONNECTION.wwid


@pytest.mark.parametrize("wwid", ["t10.A/../B", "iqn.x,t,0x1", "t10." + "x" * 200])
def test_an_identity_that_is_no_file_name_is_digested(wwid: str) -> None:
    """Whatever an identity has in it, its key can be a file's name."""
    key = connection_key(ConnectionInfo(paths=CONNECTION.paths, wwid=Wwid(wwid)))
    assert key.startswith("wwid-")
    assert is_key(key)


@given(path_lists(), path_lists())
def test_other_units_have_other_keys(
    one: tuple[TargetPath, ...], other: tuple[TargetPath, ...]
) -> None:
    """Without an identity, targets and LUNs make the key; portals do not."""
    units = [{(path.iqn.casefold(), path.lun) for path in paths} for paths in (one, other)]
    keys = [connection_key(ConnectionInfo(paths=paths)) for paths in (one, other)]
    assert (keys[0] == keys[1]) == (units[0] == units[1])


def test_a_session_is_named_by_portal_and_target() -> None:
    """Another portal or target is another session; another spelling is not."""
    name = session_key(SESSION.portal, SESSION.iqn)
    assert is_key(name)
    assert session_key(SESSION.portal, SESSION.iqn.upper()) == name
    assert session_key(Portal("10.0.1.2", 3261), SESSION.iqn) != name
    assert session_key(SESSION.portal, SESSION.iqn + "2") != name
