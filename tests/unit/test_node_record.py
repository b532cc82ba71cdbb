"""Node records: what is written is what open-iscsi reads, and nothing else gets in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lunport.core.chap import Chap, ChapCredentials
from lunport.core.errors import InvalidInput
from lunport.core.iqn import Iqn
from lunport.core.node_record import (
    RecordKey,
    RecordSettings,
    format_node_record,
    parse_record_place,
    parse_settings,
    record_place,
)
from lunport.core.portal import Portal
from lunport.core.secret import Secret
from lunport.core.target_path import TargetPath
from lunport.core.transport import Transport
from tests.strategies import iqns, portals, target_paths

PATH = TargetPath(Portal("10.0.1.2"), Iqn("iqn.2026-11.io.lunport.test:a"), 1)
AUTH = "node.session.auth."
BLANKS = b" \t\n\v\f\r"


def read_as_open_iscsi(data: bytes) -> dict[bytes, bytes]:
    """Read a record step by step as ``idbm_recinfo_config`` of 2.1.8 does, sign by sign."""
    found: dict[bytes, bytes] = {}
    at = 0
    while at < len(data):
        end = data.find(b"\n", at, at + 2047)
        line = data[at : at + 2047] if end < 0 else data[at : end + 1]
        at += len(line)
        line = line.split(b"\0")[0]
        if not line.endswith(b"\n"):
            continue
        rest = line.strip(BLANKS) + b"\0"
        if rest[:1] in {b"\0", b"#"}:
            continue
        i = 0
        while rest[i : i + 1] not in {b"\0", b"="} and rest[i] not in BLANKS:
            i += 1
        name, end_of_name = rest[:i], i
        if rest[i : i + 1] == b"\0":
            continue
        i = end_of_name + 1
        while rest[i : i + 1] and rest[i] in BLANKS:
            i += 1
        if rest[i : i + 1] != b"=":
            continue
        i += 1
        while rest[i : i + 1] and rest[i] in BLANKS:
            i += 1
        value = rest[i:-1]
        if value and name and len(name) < 128 and len(value) < 256:
            found[name] = value
    return found


def record(
    path: TargetPath = PATH,
    *,
    tpgt: int | None = 1,
    iface: str = "default",
    chap: Chap | None = None,
    configured: Mapping[str, str] | None = None,
) -> Secret:
    """Write a record."""
    return format_node_record(
        path,
        tpgt=tpgt,
        iface=iface,
        chap=chap,
        settings=RecordSettings(),
        configured=configured or {},
    )


def settings_of(text: Secret) -> dict[str, str]:
    """Read it back by the reader of this file."""
    read = read_as_open_iscsi(text.reveal().encode(errors="surrogateescape"))
    return {
        name.decode(errors="surrogateescape"): value.decode(errors="surrogateescape")
        for name, value in read.items()
    }


def chap_of(password: str, mutual: str | None = None) -> Chap:
    """Make credentials."""
    back = None if mutual is None else ChapCredentials("target", Secret(mutual))
    return Chap(ChapCredentials("host", Secret(password)), back)


def values() -> st.SearchStrategy[str]:
    """Texts that a line can hold."""
    return (
        st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S", "Zs"]), min_size=1)
        .map(lambda text: text[:60])
        .filter(lambda text: text.strip(BLANKS.decode()) == text and len(text.encode()) < 256)
    )


# -- content -------------------------------------------------------------------------------


def test_a_record_says_all_that_a_login_needs() -> None:
    """Where, how often and how long, nothing automatic, and no scan of our own accord."""
    assert settings_of(record()) == {
        "node.name": PATH.iqn,
        "node.tpgt": "1",
        "node.startup": "manual",
        "node.leading_login": "No",
        "iface.iscsi_ifacename": "default",
        "iface.transport_name": "tcp",
        "node.discovery_type": "static",
        "node.session.scan": "manual",
        "node.session.nr_sessions": "1",
        "node.session.initial_login_retry_max": "1",
        "node.conn[0].address": "10.0.1.2",
        "node.conn[0].port": "3260",
        "node.conn[0].startup": "manual",
        "node.conn[0].timeo.login_timeout": "5",
        "node.conn[0].timeo.logout_timeout": "5",
    }


def test_what_the_operator_configured_stays_but_for_what_is_ours() -> None:
    """iscsid.conf's node settings are kept, other kinds are left out, ours replace its."""
    configured = {
        "node.session.timeo.replacement_timeout": "7",
        "node.conn[0].timeo.noop_out_interval": "2",
        "node.startup": "automatic",
        "node.session.scan": "auto",
        "node.session.initial_login_retry_max": "8",
        "iscsid.startup": "/bin/true",
        "discovery.sendtargets.auth.password": "never here",
    }
    read = settings_of(record(configured=configured))
    assert read["node.session.timeo.replacement_timeout"] == "7"
    assert read["node.conn[0].timeo.noop_out_interval"] == "2"
    assert (read["node.startup"], read["node.session.scan"]) == ("manual", "manual")
    assert read["node.session.initial_login_retry_max"] == "1"
    assert not {name for name in read if not name.startswith(("node.", "iface."))}


def test_one_way_chap_is_not_made_mutual_by_the_configuration() -> None:
    """With credentials given, none of iscsid.conf's is in the record, only its algorithms."""
    configured = {
        AUTH + "authmethod": "None",
        AUTH + "username_in": "operator",
        AUTH + "password_in": "operator-secret",
        AUTH + "chap_algs": "SHA256,MD5",
    }
    read = settings_of(record(chap=chap_of("s3cret#=x"), configured=configured))
    assert {name: value for name, value in read.items() if name.startswith(AUTH)} == {
        AUTH + "authmethod": "CHAP",
        AUTH + "username": "host",
        AUTH + "password": "s3cret#=x",
        AUTH + "chap_algs": "SHA256,MD5",
    }


def test_mutual_chap_has_both_directions() -> None:
    """What the target proves itself with is in the record too."""
    read = settings_of(record(chap=chap_of("one", "other")))
    assert read[AUTH + "username_in"] == "target"
    assert read[AUTH + "password_in"] == "other"


def test_without_credentials_the_hosts_own_stay_in_force() -> None:
    """A host-wide CHAP setting is its operator's decision, as with iscsiadm's own records."""
    configured = {AUTH + "authmethod": "CHAP", AUTH + "password": "operator-secret"}
    read = settings_of(record(configured=configured))
    assert configured.items() <= read.items()


def test_a_record_does_not_show_itself() -> None:
    """The text is a secret, with or without credentials in it."""
    text = record(chap=chap_of("do-not-show"))
    assert "do-not-show" not in f"{text} {text!r}"


def test_ipv6_addresses_have_no_brackets_in_a_record() -> None:
    """Address and place are as iscsiadm writes them."""
    path = replace(PATH, portal=Portal("fd00::2", 3261))
    assert settings_of(record(path))["node.conn[0].address"] == "fd00::2"
    assert record_place(path.portal, path.iqn, 1, "default") == (
        "iqn.2026-11.io.lunport.test:a/fd00::2,3261,1/default"
    )


def test_an_unknown_portal_group_is_minus_one() -> None:
    """The record says -1, and its place has neither group nor iface."""
    assert settings_of(record(tpgt=None))["node.tpgt"] == "-1"
    assert record_place(PATH.portal, PATH.iqn, None, "default") == f"{PATH.iqn}/10.0.1.2,3260"


@pytest.mark.parametrize(
    "iface, path, configured, transport",
    [
        ("default", PATH, {}, "tcp"),
        ("iser", PATH, {}, "iser"),
        ("default", replace(PATH, transport=Transport.ISER), {}, "iser"),
        ("offload", PATH, {"iface.transport_name": "cxgb4i"}, "cxgb4i"),
    ],
)
def test_the_transport_is_the_ifaces(
    iface: str, path: TargetPath, configured: dict[str, str], transport: str
) -> None:
    """The iface's own record decides, then a built-in iface's name, then the path."""
    read = settings_of(record(path, iface=iface, configured=configured))
    assert read["iface.transport_name"] == transport
    assert read["iface.iscsi_ifacename"] == iface


# -- what cannot be written ----------------------------------------------------------------


@pytest.mark.parametrize(
    "password", ["", " lead", "trail ", "tail\t", "two\nlines", "nul\0", "cr\rcr", "x" * 256]
)
def test_a_secret_that_a_record_cannot_hold_is_refused_and_not_shown(password: str) -> None:
    """Longer than open-iscsi's buffer, with line ends or blanks around: refused, unseen."""
    for chap in (chap_of(password), chap_of("good", password)):
        with pytest.raises(InvalidInput) as caught:
            record(chap=chap)
        shown = f"{caught.value} {caught.value!r}"
        assert AUTH + "password" in shown
        assert not password.strip() or password.strip() not in shown


def test_the_longest_secret_fits() -> None:
    """255 bytes are written; they are bytes, not signs."""
    assert settings_of(record(chap=chap_of("x" * 255)))[AUTH + "password"] == "x" * 255
    with pytest.raises(InvalidInput):
        record(chap=chap_of("é" * 128))


@pytest.mark.parametrize("iface", ["", "a/b", "..", ".hidden", "a b", "x" * 65, "a\n", "é"])
def test_an_iface_that_is_no_file_name_is_refused(iface: str) -> None:
    """Neither the record nor its place is made."""
    with pytest.raises(InvalidInput):
        record(iface=iface)
    with pytest.raises(InvalidInput):
        record_place(PATH.portal, PATH.iqn, 1, iface)


@given(values(), values(), st.booleans())
def test_credentials_come_back_as_they_were(username: str, password: str, mutual: bool) -> None:
    """Whatever is accepted reads back unchanged by open-iscsi's rules; signs of any kind."""
    back = ChapCredentials(username, Secret(password + "-")) if mutual else None
    text = record(chap=Chap(ChapCredentials(username, Secret(password)), back))
    read = settings_of(text)
    assert read[AUTH + "username"] == username
    assert read[AUTH + "password"] == password
    assert read.get(AUTH + "password_in") == (f"{password}-" if mutual else None)


@given(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=80)
    | st.text("ab =#\n\t\r\v\0x\x85\xa0", max_size=40),
    st.text("ab =#\n\t\rx\x85\xa0", min_size=1, max_size=30),
)
def test_nothing_can_be_smuggled_into_a_record(password: str, configured: str) -> None:
    """A secret or a configured value adds no line, and changes none that is ours."""
    try:
        text = record(chap=chap_of(password), configured={"node.session.queue_depth": configured})
    except InvalidInput:
        return
    read = settings_of(text)
    assert read.pop(AUTH + "password") == password
    assert read.pop("node.session.queue_depth", configured) == configured
    plain = settings_of(record(chap=chap_of("x")))
    del plain[AUTH + "password"]
    assert read == plain


# -- reading -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, expected",
    [
        ("node.a = 1\n", {"node.a": "1"}),
        ("node.a = 1\nnode.a = 2\n", {"node.a": "2"}),
        ("  node.a\t=  x y = z  \n", {"node.a": "x y = z"}),
        ("node.a=1\n", {}),
        ("node.a =1\n", {"node.a": "1"}),
        ("node.a== 1\n", {"node.a": "1"}),
        ("node.a =\nnode.b\n# c = 1\n\n = 3\n", {}),
        ("node.a = 1", {}),
        ("node.a = " + "x" * 255 + "\nnode.b = " + "x" * 256 + "\n", {"node.a": "x" * 255}),
        ("#" * 2047 + "node.a = 1\n", {"node.a": "1"}),
        ("node.a = 1\0\nnode.b = 2\n", {"node.b": "2"}),
        ("node.a = \xa0x\x85\n", {"node.a": "\xa0x\x85"}),
    ],
)
def test_settings_are_read_as_open_iscsi_reads_them(text: str, expected: dict[str, str]) -> None:
    """A blank before the sign is needed, the last one counts, what is too long is not there."""
    assert parse_settings(text) == expected


@given(
    st.lists(
        st.text("ab.=# \t\r\v\0\xe9", max_size=12)
        | st.sampled_from(["node.a = 1", "x" * 2040, "a" * 130 + " = 1", "a = " + "b" * 256])
    ).map("\n".join)
)
def test_both_readers_agree_on_anything(text: str) -> None:
    """The reader of this file and the project's, written apart, find the same settings."""
    read = read_as_open_iscsi(text.encode())
    assert parse_settings(text) == {name.decode(): value.decode() for name, value in read.items()}


def test_settings_that_are_not_utf8_are_kept() -> None:
    """A configuration in an old encoding is copied byte by byte."""
    name = "node.session.auth.username"
    text = b"node.session.auth.username = J\xf6rg\n".decode(errors="surrogateescape")
    kept = record(configured=parse_settings(text)).reveal().encode(errors="surrogateescape")
    assert read_as_open_iscsi(kept)[name.encode()] == b"J\xf6rg"


# -- places --------------------------------------------------------------------------------


@given(
    portals(),
    iqns(),
    st.none() | st.integers(-1, 65535),
    st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,9}", fullmatch=True),
)
def test_places_come_back_as_they_were(
    portal: Portal, iqn: Iqn, tpgt: int | None, iface: str
) -> None:
    """A place says again which record it is."""
    place = record_place(portal, iqn, tpgt, iface)
    expected = RecordKey(portal, iqn, tpgt, None if tpgt is None else iface)
    assert parse_record_place(place) == expected


@pytest.mark.parametrize(
    "place",
    ["", "iqn", "iqn/", "iqn/10.0.1.2", "iqn/10.0.1.2,x", "iqn/10.0.1.2,3260,1",
     "iqn/10.0.1.2,3260/default", "iqn/10.0.1.2,3260,1/a/b", "iqn/10.0.1.2,0", "iqn/,3260",
     "iqn/10.0.1.2,3260,1,2/default"],
)  # fmt: skip
def test_other_files_are_no_records(place: str) -> None:
    """Folders, drafts and strangers in the database have no key."""
    assert parse_record_place(place) is None


@given(target_paths())
def test_every_path_has_a_record(path: TargetPath) -> None:
    """Whatever path a connection info can name, the record names the same one."""
    read = settings_of(record(path))
    assert (read["node.name"], read["node.conn[0].address"], read["node.conn[0].port"]) == (
        path.iqn, path.portal.host, str(path.portal.port),
    )  # fmt: skip
