"""Tests of the connector codec."""

from __future__ import annotations

import copy
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lunport.core.attachment import AttachMode
from lunport.core.connector import Connector, format_connector, parse_connector
from lunport.core.errors import InvalidConnector
from tests import strategies

INITIATOR = "iqn.1993-08.org.debian:01:5A8b"


@given(strategies.connectors())
def test_round_trip(connector: Connector) -> None:
    """A connector is the same after it was written and read, unknown keys included."""
    wire = json.loads(json.dumps(format_connector(connector)))
    assert parse_connector(wire) == connector


@given(strategies.json_values(), st.dictionaries(st.text(max_size=5), strategies.json_values()))
def test_anything_parses_or_is_refused(value: object, wire: dict[str, object]) -> None:
    """Whatever is given, the result is a connector that can be written, or InvalidConnector."""
    for whole in (value, wire, {**wire, "initiator": INITIATOR}):
        before = copy.deepcopy(whole)
        try:
            connector = parse_connector(whole)
        except InvalidConnector:
            continue
        assert parse_connector(format_connector(connector)) == connector
        assert whole == before


@given(
    st.dictionaries(
        st.sampled_from(["ip", "host", "multipath", "enforce_multipath", "mountpoint", "mode"]),
        strategies.json_values(),
    )
)
def test_damaged_connectors(damage: dict[str, object]) -> None:
    """A connector with anything under a known key is read, or cleanly refused."""
    try:
        connector = parse_connector({"initiator": INITIATOR, **damage})
    except InvalidConnector as error:
        shown = str(error)
    else:
        shown = repr(connector)
    assert shown.startswith(("Invalid connector's ", "Connector("))


def test_what_os_brick_sends() -> None:
    """A connector as a compute host sends it is read, and what is unknown is kept."""
    wire = {
        "platform": "x86_64",
        "os_type": "linux",
        "ip": "10.0.0.7",
        "host": "node-7",
        "multipath": True,
        "enforce_multipath": True,
        "initiator": INITIATOR,
        "do_local_attach": False,
        "uuid": "9a0d",
        "system uuid": "4c4c",
        "nqn": None,
        "mountpoint": "/dev/vdb",
        "mode": "ro",
        "found_dsc": ["x"],
    }
    connector = parse_connector(wire)
    assert connector.initiator == INITIATOR
    assert (connector.ip, connector.host) == ("10.0.0.7", "node-7")
    assert (connector.multipath, connector.enforce_multipath) == (True, True)
    assert (connector.mountpoint, connector.mode) == ("/dev/vdb", AttachMode.READ_ONLY)
    assert connector.extra["system uuid"] == "4c4c"
    assert format_connector(connector) == wire


@pytest.mark.parametrize(
    "value, meant",
    [
        *((text, True) for text in ("True", "true", "TRUE", " yes ", "on", "1", "t", "Y", 1, True)),
        *((text, False) for text in ("False", "false", "no", "off", "0", "", "None", 0, False)),
        (None, False),
    ],
)
def test_booleans_as_strings(value: object, meant: bool) -> None:
    """Booleans may arrive as strings: ``cinder --multipath True`` sends ``"True"``."""
    wire = {"initiator": INITIATOR, "multipath": value, "enforce_multipath": value}
    connector = parse_connector(wire)
    assert (connector.multipath, connector.enforce_multipath) == (meant, meant)


@pytest.mark.parametrize("value", ["maybe", "2", 2, -1, 1.0, [], [True], {}])
def test_no_booleans(value: object) -> None:
    """What is no boolean is refused rather than guessed."""
    with pytest.raises(InvalidConnector) as caught:
        parse_connector({"initiator": INITIATOR, "multipath": value})
    assert caught.value.what == "connector's multipath"


def test_minimal_connector() -> None:
    """The initiator's name is all that is needed; it keeps its case."""
    assert parse_connector({"initiator": INITIATOR}) == Connector(initiator=INITIATOR)  # type: ignore[arg-type]


@pytest.mark.parametrize("wire", [{}, {"initiator": None}, {"initiator": ""}, {"ip": "10.0.0.7"}])
def test_without_initiator(wire: dict[str, object]) -> None:
    """A connector without initiator is refused with what to do about it."""
    with pytest.raises(InvalidConnector) as caught:
        parse_connector(wire)
    assert "lacks the required information: initiator" in str(caught.value)
    assert "/etc/iscsi/initiatorname.iscsi" in str(caught.value)


@pytest.mark.parametrize(
    "what, wire",
    [
        ("connector", None),
        ("connector", "initiator"),
        ("connector", [INITIATOR]),
        ("connector", {"initiator": INITIATOR, 7: 8}),
        ("connector", {"initiator": INITIATOR, "x" * 256: 8}),
        ("connector", {"initiator": INITIATOR, **{f"k{n}": n for n in range(100)}}),
        ("connector's initiator", {"initiator": "node-7"}),
        ("connector's initiator", {"initiator": [INITIATOR]}),
        ("connector's initiator", {"initiator": 7}),
        ("connector's ip", {"initiator": INITIATOR, "ip": 7}),
        ("connector's ip", {"initiator": INITIATOR, "ip": "x" * 256}),
        ("connector's host", {"initiator": INITIATOR, "host": ["node-7"]}),
        ("connector's host", {"initiator": INITIATOR, "host": "node\n7"}),
        ("connector's host", {"initiator": INITIATOR, "host": "\ud800"}),
        ("connector's mountpoint", {"initiator": INITIATOR, "mountpoint": {}}),
        ("connector's mode", {"initiator": INITIATOR, "mode": "w"}),
        ("connector's mode", {"initiator": INITIATOR, "mode": ["rw"]}),
    ],
)
def test_refused(what: str, wire: object) -> None:
    """A connector that cannot be used is refused, by an error that names the key."""
    with pytest.raises(InvalidConnector) as caught:
        parse_connector(wire)
    assert caught.value.what == what
    assert len(str(caught.value)) < 300
