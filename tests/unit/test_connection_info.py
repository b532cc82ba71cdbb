"""Tests of the connection info's wire codec."""

from __future__ import annotations

import copy
import dataclasses
import json
import traceback
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lunport.core.attachment import AttachMode
from lunport.core.chap import Chap, ChapCredentials
from lunport.core.connection_info import (
    AddressingMode,
    ConnectionInfo,
    format_connection_info,
    format_flat_connection_info,
    parse_connection_info,
)
from lunport.core.errors import InvalidConnectionInfo
from lunport.core.iqn import Iqn
from lunport.core.portal import Portal
from lunport.core.secret import Secret
from lunport.core.target_path import TargetPath
from lunport.core.transport import Transport
from lunport.core.wwid import Wwid
from tests import strategies

IQN = Iqn("iqn.2014-2.org.example:vol1")
MAIN = TargetPath(Portal("10.0.1.2"), IQN, 1)
SECOND = TargetPath(Portal("10.0.2.2"), IQN, 1)
THIRD = TargetPath(Portal("fd00::3"), IQN, 1)
SINGULAR = {"target_portal": "10.0.1.2:3260", "target_iqn": IQN, "target_lun": 1}
LISTS = (
    *("target_portals", "target_iqns", "target_luns", "target_transports"),
    *("target_alternative_portals", "target_alternative_iqns", "target_alternative_luns"),
)


def _data(wire: dict[str, Any]) -> dict[str, Any]:
    data: dict[str, Any] = wire["data"]
    return data


def _over_the_wire(wire: object) -> object:
    return json.loads(json.dumps(wire))


# -- writing -------------------------------------------------------------------------------


def test_without_multipath() -> None:
    """Without multipath the answer has the main path, the alternatives, and all for os-brick."""
    info = ConnectionInfo((MAIN, SECOND, THIRD), volume_id="v-1")
    assert format_connection_info(info, multipath=False) == {
        "driver_volume_type": "iscsi",
        "enforce_multipath": False,
        "data": {
            "target_discovered": False,
            "target_portal": "10.0.1.2:3260",
            "target_iqn": IQN,
            "target_lun": 1,
            "target_alternative_portals": ["10.0.2.2:3260", "[fd00::3]:3260"],
            "target_alternative_iqns": [IQN, IQN],
            "target_alternative_luns": [1, 1],
            "target_portals": ["10.0.1.2:3260", "10.0.2.2:3260", "[fd00::3]:3260"],
            "target_iqns": [IQN, IQN, IQN],
            "target_luns": [1, 1, 1],
            "volume_id": "v-1",
            "encrypted": False,
            "qos_specs": None,
            "access_mode": "rw",
            "cacheable": False,
            "enforce_multipath": False,
        },
    }


@pytest.mark.parametrize("paths", [(MAIN,), (MAIN, SECOND)])
def test_with_multipath(paths: tuple[TargetPath, ...]) -> None:
    """With multipath the answer lists all paths, even a single one, beside the singular keys."""
    data = _data(format_connection_info(ConnectionInfo(paths), multipath=True))
    assert data["target_portals"] == [str(path.portal) for path in paths]
    assert data["target_iqns"] == [path.iqn for path in paths]
    assert data["target_luns"] == [path.lun for path in paths]
    assert data.items() >= SINGULAR.items()
    assert not [key for key in data if key.startswith("target_alternative")]


@pytest.mark.parametrize("alternatives", [True, False])
def test_one_path(alternatives: bool) -> None:
    """A volume with one path is answered with the singular keys alone."""
    info = ConnectionInfo((MAIN,))
    data = _data(format_connection_info(info, multipath=False, alternatives=alternatives))
    assert data.items() >= SINGULAR.items()
    assert not [key for key in data if key in LISTS]


def test_backend_with_alternatives_off() -> None:
    """A backend that offers neither multipath nor alternatives names the main path only."""
    info = ConnectionInfo((MAIN, SECOND))
    data = _data(format_connection_info(info, multipath=False, alternatives=False))
    assert data.items() >= SINGULAR.items()
    assert not [key for key in data if key in LISTS]


def test_a_portal_that_is_named_is_read_and_never_written() -> None:
    """A person may name a portal; what goes over the wire has addresses only."""
    info = parse_connection_info({**SINGULAR, "target_portal": "San-A.example"})
    assert info.main_path.portal == Portal("san-a.example", 3260)
    with pytest.raises(InvalidConnectionInfo, match="must be resolved"):
        format_connection_info(info, multipath=False)


@pytest.mark.parametrize("multipath", [True, False])
def test_a_list_of_all_paths_is_told_apart_from_alternatives(multipath: bool) -> None:
    """A reader sees whether the backend listed every path, or left some to be found."""
    assert not parse_connection_info(SINGULAR).is_complete
    others = {"target_alternative_portals": ["10.0.2.2:3260"]}
    assert not parse_connection_info({**SINGULAR, **others}).is_complete
    whole = format_connection_info(ConnectionInfo((MAIN, SECOND)), multipath=multipath)
    assert parse_connection_info(whole).is_complete


def test_transports_are_named_when_one_is_not_tcp() -> None:
    """Transports stand parallel to the portals, and only when one of them is not TCP."""
    iser = dataclasses.replace(SECOND, transport=Transport.ISER)
    wire = format_connection_info(ConnectionInfo((MAIN, iser)), multipath=False)
    assert wire["driver_volume_type"] == "iscsi"
    assert _data(wire)["target_transports"] == ["tcp", "iser"]
    plain = format_connection_info(ConnectionInfo((MAIN, SECOND)), multipath=False)
    assert "target_transports" not in _data(plain)


def test_optional_keys() -> None:
    """Credentials, identity, block sizes and the rest have the keys that readers know."""
    info = ConnectionInfo(
        (MAIN,),
        attachment_id="a-1",
        chap=Chap(ChapCredentials("u", Secret("p")), ChapCredentials("mu", Secret("mp"))),
        discovery_chap=ChapCredentials("du", Secret("dp")),
        access_mode=AttachMode.READ_ONLY,
        discard=True,
        enforce_multipath=True,
        qos_specs={"total_iops_sec": 100},
        wwid=Wwid("naa.60014058971605dd3db814e7d074f1fb"),
        addressing_mode=AddressingMode.SAM2,
        physical_block_size=4096,
        logical_block_size=512,
    )
    wire = format_connection_info(info, multipath=False)
    assert wire["attachment_id"] == "a-1"
    assert wire["enforce_multipath"] is True
    expected = {
        "auth_method": "CHAP",
        "auth_username": "u",
        "auth_password": "p",
        "mutual_auth_username": "mu",
        "mutual_auth_password": "mp",
        "discovery_auth_method": "CHAP",
        "discovery_auth_username": "du",
        "discovery_auth_password": "dp",
        "access_mode": "ro",
        "discard": True,
        "enforce_multipath": True,
        "qos_specs": {"total_iops_sec": 100},
        "wwid": "naa.60014058971605dd3db814e7d074f1fb",
        "addressing_mode": "SAM2",
        "physical_block_size": "4096",
        "logical_block_size": "512",
    }
    assert {key: _data(wire)[key] for key in expected} == expected


def test_flat_form() -> None:
    """The attachments API has the same keys in one object, with the attachment's id."""
    info = ConnectionInfo((MAIN, SECOND), attachment_id="a-1")
    flat = format_flat_connection_info(info, multipath=False)
    nested = format_connection_info(info, multipath=False)
    assert "data" not in flat
    assert flat == _data(nested) | {"driver_volume_type": "iscsi", "attachment_id": "a-1"}


# -- round trips ---------------------------------------------------------------------------


@given(strategies.connection_infos(), st.booleans())
def test_round_trip(info: ConnectionInfo, multipath: bool) -> None:
    """What was written is read as the same value, unknown keys included, in each form."""
    wire = _over_the_wire(format_connection_info(info, multipath=multipath))
    assert parse_connection_info(wire) == info


@given(strategies.connection_infos(), st.booleans())
def test_flat_round_trip(info: ConnectionInfo, multipath: bool) -> None:
    """The attachments API's form is read as the same value; all unknown keys are in one place."""
    wire = _over_the_wire(format_flat_connection_info(info, multipath=multipath))
    extra = {**info.envelope, **info.extra}
    assert parse_connection_info(wire) == dataclasses.replace(info, extra=extra, envelope={})


@given(strategies.connection_infos())
def test_main_path_round_trip(info: ConnectionInfo) -> None:
    """With everything switched off the main path alone survives, and all else does."""
    wire = format_connection_info(info, multipath=False, alternatives=False)
    found = parse_connection_info(_over_the_wire(wire))
    assert found == dataclasses.replace(info, paths=info.paths[:1])
    assert found.main_path == info.main_path


@given(strategies.connection_infos(), st.sets(st.sampled_from(["target_", "target_alternative_"])))
def test_forms_alone_and_together(info: ConnectionInfo, dropped: set[str]) -> None:
    """Each form can be read without the others, as long as one names the path."""
    paths = tuple(dataclasses.replace(path, transport=Transport.TCP) for path in info.paths)
    wire = format_connection_info(ConnectionInfo(paths), multipath=False)
    data = _data(wire)
    for prefix in dropped:
        for suffix in ("portals", "iqns", "luns"):
            data.pop(f"{prefix}{suffix}", None)
    kept = paths[:1] if dropped == {"target_", "target_alternative_"} else paths
    assert parse_connection_info(wire).paths == kept


@given(strategies.connection_infos())
def test_plural_alone(info: ConnectionInfo) -> None:
    """The lists alone, as spec B has them, name all paths."""
    wire = format_connection_info(info, multipath=True)
    for key in SINGULAR:
        del _data(wire)[key]
    assert parse_connection_info(wire).paths == info.paths


@given(strategies.connection_infos(), st.booleans())
def test_the_wire_is_not_changed(info: ConnectionInfo, multipath: bool) -> None:
    """Reading changes nothing of what it is given."""
    wire = format_connection_info(info, multipath=multipath)
    before = copy.deepcopy(wire)
    parse_connection_info(wire)
    assert wire == before


@given(strategies.connection_infos())
def test_infos_are_values(info: ConnectionInfo) -> None:
    """Infos can be hashed and copied, and never show a secret or an unknown key's value."""
    twin = copy.deepcopy(info)
    assert {info, twin} == {info}
    if info.chap is not None:
        hidden = ChapCredentials("u", Secret("hush-hush"))
        info = dataclasses.replace(info, chap=Chap(hidden, hidden), discovery_chap=hidden)
    shown = repr(dataclasses.replace(info, extra={"x": "hush-hush"}, envelope={"x": "hush-hush"}))
    assert "hush-hush" not in shown


# -- reading what others write -------------------------------------------------------------


def test_spec_a_example() -> None:
    """The answer printed in spec A gives three paths in order, each with its own LUN."""
    stem = "iqn.2014-2.org.example:vol1"
    data = {
        "target_portal": "10.0.1.2:3260",
        "target_alternative_portals": ["10.0.2.2:3260", "10.0.3.2:3260"],
        "target_iqn": f"{stem}-1",
        "target_alternative_iqns": [f"{stem}-2", f"{stem}-3"],
        "target_lun": 1,
        "target_alternative_luns": [2, 3],
    }
    info = parse_connection_info({"driver_volume_type": "iscsi", "data": data})
    assert info.paths == tuple(
        TargetPath(Portal(f"10.0.{n}.2"), Iqn(f"{stem}-{n}"), n) for n in (1, 2, 3)
    )


def test_released_cinder() -> None:
    """What Cinder 29 answers is read whole, with no key left over."""
    portals = ["127.0.0.1:3260", "127.0.0.2:3260", "127.0.0.3:3260"]
    iqn = "iqn.2010-10.org.openstack:volume-12345678-abcd-1234-5678-12345678abcd"
    data = {
        "target_discovered": False,
        "target_portals": portals,
        "target_iqns": [iqn] * 3,
        "target_luns": [1] * 3,
        "target_portal": portals[0],
        "target_iqn": iqn,
        "target_lun": 1,
        "volume_id": "12345678-abcd-1234-5678-12345678abcd",
        "auth_method": "CHAP",
        "auth_username": "u" * 20,
        "auth_password": "p" * 16,
        "encrypted": False,
        "qos_specs": None,
        "access_mode": "rw",
        "cacheable": False,
        "enforce_multipath": False,
    }
    wire = {"driver_volume_type": "iscsi", "enforce_multipath": False, "data": data}
    info = parse_connection_info(wire)
    assert [str(path.portal) for path in info.paths] == portals
    assert info.chap == Chap(ChapCredentials("u" * 20, Secret("p" * 16)))
    assert (info.extra, info.envelope) == ({}, {})


def test_order_and_duplicates() -> None:
    """Singular comes first, then alternatives, then plural; the same path counts once."""
    data = {
        **SINGULAR,
        "target_alternative_portals": ["[fd00:0::3]", "10.0.1.2"],
        "target_portals": ["10.0.2.2:3260", "10.0.1.2:3260", "[fd00::3]:3260"],
        "target_iqns": [IQN, IQN.upper().replace("IQN", "iqn"), IQN],
        "target_luns": ["1", 1, "1"],
    }
    assert parse_connection_info({"data": data}).paths == (MAIN, THIRD, SECOND)


def test_absent_lists_repeat_the_main_path() -> None:
    """Portals without IQNs and LUNs belong to the main target and LUN."""
    data = {**SINGULAR, "target_portals": ["10.0.1.2:3260", "10.0.2.2:3260"]}
    assert parse_connection_info(data).paths == (MAIN, SECOND)
    del data["target_portal"]
    assert parse_connection_info(data).paths == (MAIN, SECOND)


def test_iser_volume_type() -> None:
    """The volume type of released drivers for iSER is that transport on every path."""
    data = {**SINGULAR, "target_portals": ["10.0.1.2:3260", "10.0.2.2:3260"]}
    info = parse_connection_info({"driver_volume_type": "iser", "data": data})
    assert {path.transport for path in info.paths} == {Transport.ISER}


def test_nova_extras_survive() -> None:
    """What Nova adds around and inside is kept where it was."""
    wire = {"serial": "v-1", "multiattach": True, "data": {**SINGULAR, "device_path": "/dev/sdb"}}
    info = parse_connection_info(wire)
    assert info.envelope == {"serial": "v-1", "multiattach": True}
    assert info.extra == {"device_path": "/dev/sdb"}
    again = format_connection_info(info, multipath=False)
    assert again.items() >= {"serial": "v-1", "multiattach": True}.items()
    assert _data(again)["device_path"] == "/dev/sdb"


def test_null_counts_as_absent() -> None:
    """A key that is null means what its absence means."""
    info = parse_connection_info(SINGULAR)
    nulls = dict.fromkeys((*LISTS, "auth_method", "auth_username", "auth_password", "wwid"))
    more = dict.fromkeys(("discard", "encrypted", "access_mode", "volume_id", "qos_specs"))
    assert parse_connection_info({**SINGULAR, **nulls, **more}) == info


def test_looser_spellings() -> None:
    """Booleans, LUNs and block sizes as strings, and multipath's form of the WWID, are read."""
    info = parse_connection_info(
        {
            **SINGULAR,
            "target_lun": "1",
            "encrypted": "False",
            "discard": "true",
            "physical_block_size": 4096,
            "wwid": "360014058971605DD3DB814E7D074F1FB",
            "auth_method": "chap",
            "auth_username": "u",
            "auth_password": "p",
        }
    )
    assert (info.encrypted, info.discard, info.physical_block_size) == (False, True, 4096)
    assert info.wwid == "naa.60014058971605dd3db814e7d074f1fb"
    assert info.chap is not None
    assert info.main_path.lun == 1


# -- refusals ------------------------------------------------------------------------------

REFUSED: list[tuple[str, dict[str, object]]] = [
    ("target_portal", {"target_portal": "10.0.1"}),
    ("target_portal", {"target_portal": "[::1"}),
    ("target_portal", {"target_portal": 7}),
    ("target_portal", {"target_portal": ["10.0.1.2:3260"]}),
    ("target_portal", {"target_portal": None}),
    ("target_iqn", {"target_iqn": "volume-1"}),
    ("target_iqn", {"target_iqn": None}),
    ("target_lun", {"target_lun": -1}),
    ("target_lun", {"target_lun": 16384}),
    ("target_lun", {"target_lun": True}),
    ("target_lun", {"target_lun": None}),
    ("target_portals", {"target_portals": []}),
    ("target_portals", {"target_portals": "10.0.1.2:3260"}),
    ("target_portals", {"target_portals": {"10.0.1.2:3260": 1}}),
    ("target_portals", {"target_portals": 0}),
    ("target_portals[1]", {"target_portals": ["10.0.1.2", "10.0.1"]}),
    ("target_portals[1]", {"target_portals": ["10.0.1.2", None]}),
    ("target_iqns", {"target_iqns": [IQN]}),
    ("target_iqns", {"target_portals": ["10.0.1.2"], "target_iqns": []}),
    ("target_iqns[0]", {"target_portals": ["10.0.1.2"], "target_iqns": ["x"]}),
    ("target_iqns[1]", {"target_portals": ["10.0.1.2", "10.0.2.2"], "target_iqns": [IQN]}),
    ("target_iqns[1]", {"target_portals": ["10.0.1.2"], "target_iqns": [IQN, IQN]}),
    ("target_luns", {"target_luns": [1]}),
    ("target_luns", {"target_portals": ["10.0.1.2"], "target_luns": []}),
    ("target_luns", {"target_portals": ["10.0.1.2"], "target_luns": 1}),
    ("target_luns[0]", {"target_portals": ["10.0.1.2"], "target_luns": [1.5]}),
    ("target_luns[1]", {"target_portals": ["10.0.1.2", "10.0.2.2"], "target_luns": [1]}),
    ("target_luns[1]", {"target_portals": ["10.0.1.2"], "target_luns": [1, 2]}),
    ("target_luns[0]", {"target_portals": ["10.0.1.2"], "target_luns": [2]}),
    ("target_luns[1]", {"target_portals": ["10.0.9.2", "10.0.9.2"], "target_luns": [1, 2]}),
    ("target_alternative_portals", {"target_alternative_portals": []}),
    ("target_alternative_portals[0]", {"target_alternative_portals": ["nowhere:x"]}),
    ("target_alternative_iqns", {"target_alternative_iqns": [IQN]}),
    ("target_alternative_luns", {"target_alternative_luns": [1]}),
    (
        "target_alternative_luns[0]",
        {"target_alternative_portals": ["10.0.1.2"], "target_alternative_luns": [2]},
    ),
    ("target_transports", {"target_transports": "tcp"}),
    ("target_transports[0]", {"target_transports": ["rdma"]}),
    ("target_transports[1]", {"target_transports": ["tcp", "iser"]}),
    (
        "target_transports[1]",
        {"target_portals": ["10.0.1.2", "10.0.1.2"], "target_transports": ["tcp", "iser"]},
    ),
    ("auth_method", {"auth_method": "SRP", "auth_username": "u", "auth_password": "p"}),
    ("auth_method", {"auth_method": 7}),
    ("auth_method", {"auth_username": "u", "auth_password": "p"}),
    ("auth_username", {"auth_method": "CHAP"}),
    ("auth_username", {"auth_method": "CHAP", "auth_password": "p"}),
    ("auth_password", {"auth_method": "CHAP", "auth_username": "u"}),
    ("auth_password", {"auth_method": "CHAP", "auth_username": "u", "auth_password": ""}),
    ("auth_password", {"auth_method": "CHAP", "auth_username": "u", "auth_password": 7}),
    ("auth_username", {"auth_method": "CHAP", "auth_username": [], "auth_password": "p"}),
    ("auth_username", {"mutual_auth_username": "u", "mutual_auth_password": "p"}),
    ("mutual_auth_password", {"mutual_auth_username": "u"}),
    ("discovery_auth_password", {"discovery_auth_username": "u"}),
    ("discovery_auth_username", {"discovery_auth_method": "CHAP"}),
    ("access_mode", {"access_mode": "w"}),
    ("access_mode", {"access_mode": ["rw"]}),
    ("encrypted", {"encrypted": "perhaps"}),
    ("discard", {"discard": 2}),
    ("cacheable", {"cacheable": []}),
    ("enforce_multipath", {"enforce_multipath": "x"}),
    ("target_discovered", {"target_discovered": 1.0}),
    ("qos_specs", {"qos_specs": "total_iops_sec"}),
    ("qos_specs", {"qos_specs": {1: 2}}),
    ("wwid", {"wwid": "naa.6"}),
    ("wwid", {"wwid": 6}),
    ("addressing_mode", {"addressing_mode": "sam9"}),
    ("physical_block_size", {"physical_block_size": "4k"}),
    ("logical_block_size", {"logical_block_size": 513}),
    ("volume_id", {"volume_id": 7}),
    ("volume_id", {"volume_id": "x\n"}),
    ("attachment_id", {"attachment_id": {}}),
    ("driver_volume_type", {"driver_volume_type": "rbd"}),
    ("driver_volume_type", {"driver_volume_type": 7}),
    ("data", {"data": None}),
    ("data", {"data": [1]}),
    ("connection info", {3: 4}),  # type: ignore[dict-item]
]


@pytest.mark.parametrize("what, change", REFUSED)
def test_refused(what: str, change: dict[str, object]) -> None:
    """What cannot be acted on is refused, by an error that names the key and the index."""
    with pytest.raises(InvalidConnectionInfo) as caught:
        parse_connection_info({**SINGULAR, **change})
    assert caught.value.what == what
    assert str(caught.value).startswith(f"Invalid {what} ")


@pytest.mark.parametrize("wire", [None, 7, "iscsi", [], [SINGULAR], {}, {"data": {}}])
def test_no_path_at_all(wire: object) -> None:
    """What is no object, or names no path, is refused."""
    with pytest.raises(InvalidConnectionInfo):
        parse_connection_info(wire)


def test_the_value_is_shown() -> None:
    """The error shows the offending value and says what would be right."""
    data = {"target_portals": ["10.0.1.2:3260", "10.0.2.2:99999"], **SINGULAR}
    with pytest.raises(InvalidConnectionInfo) as caught:
        parse_connection_info({"data": data})
    assert str(caught.value) == (
        "Invalid target_portals[1] '10.0.2.2:99999': the port is a number from 1 to 65535."
    )


@pytest.mark.parametrize("paths", [(), (MAIN, MAIN), (MAIN, dataclasses.replace(MAIN, lun=2))])
def test_contradicting_values_cannot_be_made(paths: tuple[TargetPath, ...]) -> None:
    """No info can be made without a path, or with a portal and IQN twice."""
    with pytest.raises(InvalidConnectionInfo):
        ConnectionInfo(paths)


@given(strategies.json_values(max_leaves=20))
def test_any_json_is_refused_cleanly(wire: object) -> None:
    """Arbitrary JSON names no path and raises InvalidConnectionInfo, nothing else."""
    with pytest.raises(InvalidConnectionInfo):
        parse_connection_info(wire)


KEYS = (
    *(*SINGULAR, *LISTS, "volume_id", "encrypted", "qos_specs", "access_mode", "cacheable"),
    *("auth_method", "auth_username", "auth_password", "mutual_auth_username"),
    *("mutual_auth_password", "discovery_auth_method", "discovery_auth_username"),
    *("discovery_auth_password", "wwid", "addressing_mode", "discard", "enforce_multipath"),
    *("target_discovered", "physical_block_size", "logical_block_size", "attachment_id"),
)


def _read_or_refusal(wire: object) -> ConnectionInfo | str:
    try:
        return parse_connection_info(wire)
    except InvalidConnectionInfo as error:
        return "".join(traceback.format_exception(error))


@given(
    strategies.connection_infos(),
    st.sampled_from([format_connection_info, format_flat_connection_info]),
    st.dictionaries(
        st.sampled_from(KEYS),
        st.one_of(
            strategies.json_values(),
            st.lists(strategies.portals().map(str) | strategies.iqns() | strategies.luns()),
        ),
        max_size=4,
    ),
)
def test_damaged_infos(
    info: ConnectionInfo,
    write: Callable[..., dict[str, Any]],
    damage: dict[str, object],
) -> None:
    """A damaged info is read as something that survives a round trip, or refused; no secret."""
    hidden = ChapCredentials("user", Secret("hush-hush-hush"))
    info = dataclasses.replace(info, chap=Chap(hidden, hidden), discovery_chap=hidden)
    wire = write(info, multipath=False)
    (_data(wire) if "data" in wire else wire).update(damage)
    found = _read_or_refusal(wire)
    if isinstance(found, str):
        assert "hush-hush" not in found
    elif all(path.portal.is_literal for path in found.paths):
        # a name, such as an IQN put in a portal's place, is read and never written
        again = format_connection_info(found, multipath=False)
        assert parse_connection_info(_over_the_wire(again)) == found


@given(st.lists(st.sampled_from(KEYS), max_size=6))
def test_missing_keys(dropped: list[str]) -> None:
    """An info without some of its keys is read, or refused; the paths read were all sent."""
    hidden = ChapCredentials("user", Secret("hush-hush-hush"))
    info = ConnectionInfo((MAIN, SECOND, THIRD), chap=Chap(hidden, hidden))
    wire = format_connection_info(info, multipath=False)
    for key in dropped:
        _data(wire).pop(key, None)
    found = _read_or_refusal(wire)
    if isinstance(found, str):
        assert "hush-hush" not in found
    else:
        assert set(found.paths) <= set(info.paths)
