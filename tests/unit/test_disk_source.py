"""Tests of how a path is written for QEMU and libvirt."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lunport.core.chap import Chap, ChapCredentials
from lunport.core.disk_source import (
    format_options,
    iscsi_uri,
    libvirt_source,
    make_disk_source,
    qemu_blockdev,
    qemu_options,
    qemu_secret_options,
)
from lunport.core.errors import InvalidConnectionInfo
from lunport.core.iqn import Iqn
from lunport.core.portal import Portal
from lunport.core.secret import Secret
from lunport.core.target_path import TargetPath
from lunport.core.transport import Transport
from tests.strategies import chap_credentials, iqns, luns, portals

HOST = Iqn("iqn.2026-11.org.example:host")
PATH = TargetPath(Portal("10.0.0.1", 3261), Iqn("iqn.2026-11.org.example:volume-1"), 1)
CHAP = Chap(ChapCredentials("us,er<&'\"", Secret("Secret4Tests1234")))
PLAIN = make_disk_source(PATH, HOST, None)
WITH_CHAP = make_disk_source(PATH, HOST, CHAP)


def parse_options(text: str) -> dict[str, str]:
    """Read an option string as QEMU does: a doubled comma is one comma of the value."""
    parts = text.replace(",,", "\0").split(",")
    pairs = (part.replace("\0", ",").partition("=") for part in parts)
    return {key: value for key, _, value in pairs}


def test_qemu_options_without_chap() -> None:
    """A path without CHAP is portal, target, LUN and who we are."""
    assert qemu_options(PLAIN, secret_id=None) == (
        "driver=iscsi,transport=tcp,portal=10.0.0.1:3261,"
        "target=iqn.2026-11.org.example:volume-1,lun=1,"
        "initiator-name=iqn.2026-11.org.example:host"
    )


def test_qemu_options_name_the_secret_only() -> None:
    """With CHAP the options hold the name and a reference to the secret, commas doubled."""
    text = qemu_options(WITH_CHAP, secret_id="chap0")
    assert "user=us,,er<" in text
    assert parse_options(text)["password-secret"] == "chap0"
    assert "Secret4Tests1234" not in text


def test_the_secret_object_is_a_file() -> None:
    """The secret comes from a file, whose name may hold a comma."""
    assert qemu_secret_options("s0", "/run/a,b") == "secret,id=s0,format=raw,file=/run/a,,b"


@given(st.dictionaries(st.from_regex(r"[a-z][a-z-]*", fullmatch=True), st.text("ab,=")))
def test_options_are_read_back(options: dict[str, str]) -> None:
    """Whatever the values hold, QEMU's parser gets them back."""
    if options:
        assert parse_options(format_options(options)) == options


@given(portals(), iqns(), luns(), st.none() | chap_credentials())
def test_no_form_shows_the_secret(
    portal: Portal, iqn: Iqn, lun: int, credentials: ChapCredentials | None
) -> None:
    """The secret is in none of the forms, whatever the rest is."""
    marked = Secret("@@the-secret@@")
    chap = Chap(ChapCredentials(credentials.username, marked)) if credentials else None
    source = make_disk_source(TargetPath(portal, iqn, lun), HOST, chap)
    name = "id-1" if chap else None
    forms = qemu_options(source, secret_id=name) + libvirt_source(source, secret_uuid=name)
    assert marked.reveal() not in forms + repr(source)


@pytest.mark.parametrize(
    "path, uri",
    [
        (PATH, "iscsi://10.0.0.1:3261/iqn.2026-11.org.example:volume-1/1"),
        (
            replace(PATH, portal=Portal("fd00::2"), lun=300),
            "iscsi://[fd00::2]:3260/iqn.2026-11.org.example:volume-1/300",
        ),
        (
            replace(PATH, transport=Transport.ISER),
            "iser://10.0.0.1:3261/iqn.2026-11.org.example:volume-1/1",
        ),
    ],
)
def test_uris(path: TargetPath, uri: str) -> None:
    """A URI has portal, target and LUN, an IPv6 address in brackets, and nobody's name."""
    assert iscsi_uri(path) == uri


@pytest.mark.parametrize("mark", ["/", "?", "@"])
def test_a_name_that_a_uri_cannot_hold_is_refused(mark: str) -> None:
    """Libiscsi decodes nothing, so a name with one of its own marks is refused."""
    with pytest.raises(InvalidConnectionInfo, match="target_iqn"):
        iscsi_uri(replace(PATH, iqn=Iqn(f"iqn.2026-11.org.example:a{mark}b")))


def test_mutual_chap_is_refused_clearly() -> None:
    """QEMU's initiator cannot check the target, and is not used as if it could."""
    mutual = replace(CHAP, mutual=ChapCredentials("target", Secret("Target4Tests1234")))
    with pytest.raises(InvalidConnectionInfo, match="make the target prove itself") as caught:
        make_disk_source(PATH, HOST, mutual)
    assert "Target4Tests1234" not in str(caught.value)


def test_a_portal_that_is_a_name_is_refused() -> None:
    """Names are resolved before they get here."""
    with pytest.raises(InvalidConnectionInfo, match="not a name"):
        make_disk_source(replace(PATH, portal=Portal("san.example")), HOST, None)


def test_libvirt_source() -> None:
    """The libvirt element has the same facts, quoted, and a reference to the secret."""
    element = ET.fromstring(libvirt_source(WITH_CHAP, secret_uuid="aaaa-bbbb"))
    assert element.attrib == {
        "protocol": "iscsi",
        "name": "iqn.2026-11.org.example:volume-1/1",
    }
    host, auth, initiator = (element.find(tag) for tag in ("host", "auth", "initiator/iqn"))
    assert host is not None
    assert auth is not None
    assert initiator is not None
    assert host.attrib == {"name": "10.0.0.1", "port": "3261"}
    assert auth.attrib == {"type": "chap", "username": "us,er<&'\""}
    assert [child.attrib for child in auth] == [{"type": "iscsi", "uuid": "aaaa-bbbb"}]
    assert initiator.attrib == {"name": HOST}


def test_libvirt_source_without_chap_has_no_auth() -> None:
    """Without CHAP there is no auth element."""
    assert ET.fromstring(libvirt_source(PLAIN, secret_uuid=None)).find("auth") is None


def test_libvirt_cannot_say_iser() -> None:
    """An iSER path is refused for libvirt rather than written as TCP."""
    source = make_disk_source(replace(PATH, transport=Transport.ISER), HOST, None)
    assert qemu_blockdev(source, secret_id=None)["transport"] == "iser"
    with pytest.raises(InvalidConnectionInfo, match="TCP only"):
        libvirt_source(source, secret_uuid=None)


def test_a_name_and_a_secret_come_together() -> None:
    """A CHAP name without a secret, or a secret without a name, is refused."""
    with pytest.raises(InvalidConnectionInfo):
        qemu_options(WITH_CHAP, secret_id=None)
    with pytest.raises(InvalidConnectionInfo):
        qemu_options(PLAIN, secret_id="chap0")
    with pytest.raises(InvalidConnectionInfo):
        libvirt_source(WITH_CHAP, secret_uuid=None)
    with pytest.raises(InvalidConnectionInfo):
        libvirt_source(PLAIN, secret_uuid="u")
