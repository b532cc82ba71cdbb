"""Hypothesis strategies for the values of the core, shared by all folders of tests."""

from __future__ import annotations

import string
import unicodedata

from hypothesis import strategies as st

from lunport.core.attachment import AttachMode
from lunport.core.chap import Chap, ChapCredentials
from lunport.core.connection_info import AddressingMode, ConnectionInfo
from lunport.core.connector import Connector
from lunport.core.iqn import Iqn, fold_iqn
from lunport.core.portal import Portal
from lunport.core.provider_location import ProviderLocation
from lunport.core.secret import Secret
from lunport.core.target_path import MAX_LUN, TargetPath
from lunport.core.transport import Transport
from lunport.core.wwid import Wwid

_LOWER_AND_DIGITS = string.ascii_lowercase + string.digits
_HEX = "0123456789abcdef"


def uuids() -> st.SearchStrategy[str]:
    """Ids of volumes, snapshots and attachments."""
    return st.uuids(version=4).map(str)


def addresses() -> st.SearchStrategy[str]:
    """Canonical IPv4 and IPv6 literals."""
    return st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(str)


def host_names() -> st.SearchStrategy[str]:
    """Names that a resolver may be asked for, in lower case."""
    label = st.from_regex(r"[a-z0-9_]([a-z0-9_-]{0,20}[a-z0-9_])?", fullmatch=True)
    last = st.from_regex(r"[a-wyz][a-z0-9-]{0,10}[a-z]", fullmatch=True)
    return st.builds(
        lambda labels, end: ".".join([*labels, end]), st.lists(label, max_size=3), last
    )


def ports() -> st.SearchStrategy[int]:
    """TCP ports."""
    return st.one_of(st.just(3260), st.integers(1, 65535))


def portals() -> st.SearchStrategy[Portal]:
    """Portals with a literal address, as they go over the wire."""
    return st.builds(Portal, addresses(), ports())


def iqns() -> st.SearchStrategy[Iqn]:
    """ISCSI names of all three forms, in mixed case, some beyond ASCII."""
    label = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9_-]{0,12}[A-Za-z0-9])?", fullmatch=True)
    domain = st.lists(label, min_size=1, max_size=4).map(".".join)
    ascii_name = st.text(string.ascii_letters + string.digits + "._:-", min_size=1, max_size=60)
    wide_name = (
        st.text(st.characters(categories=["Ll", "Lo", "Nd"]), min_size=1, max_size=12)
        .map(lambda text: unicodedata.normalize("NFKC", text.lower()))
        .filter(_is_name)
    )
    qualified = st.builds(
        lambda year, month, naming, name: f"iqn.{year}-{month}.{naming}{name}",
        st.integers(1000, 9999),
        st.sampled_from(["1", "01", "7", "12"]),
        domain,
        st.one_of(st.just(""), st.one_of(ascii_name, wide_name).map(":".__add__)),
    )
    extended = st.text(_HEX, min_size=16, max_size=16).map("eui.".__add__)
    address = st.sampled_from([16, 32]).flatmap(
        lambda length: st.text(_HEX, min_size=length, max_size=length).map("naa.".__add__)
    )
    return st.one_of(qualified, extended, address).map(Iqn)


def _is_name(text: str) -> bool:
    # Some letters become several words: U+FDFA holds blanks.
    return text.isalnum() and unicodedata.normalize("NFKC", text) == text


def luns() -> st.SearchStrategy[int]:
    """LUNs of the flat space, the borders of its encodings among them."""
    return st.one_of(st.sampled_from([0, 1, 255, 256, MAX_LUN]), st.integers(0, MAX_LUN))


def transports() -> st.SearchStrategy[Transport]:
    """Transports."""
    return st.sampled_from(Transport)


def target_paths() -> st.SearchStrategy[TargetPath]:
    """Complete ways to a logical unit."""
    return st.builds(TargetPath, portals(), iqns(), luns(), transports())


def path_lists(max_size: int = 5) -> st.SearchStrategy[tuple[TargetPath, ...]]:
    """Paths of one volume: no portal and IQN twice."""
    return st.lists(
        target_paths(),
        min_size=1,
        max_size=max_size,
        unique_by=lambda path: (path.portal, fold_iqn(path.iqn)),
    ).map(tuple)


def secrets() -> st.SearchStrategy[Secret]:
    """Secrets that can be sent."""
    return st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=40).map(
        Secret
    )


def chap_credentials() -> st.SearchStrategy[ChapCredentials]:
    """A name and its secret."""
    names = st.text(string.ascii_letters + string.digits + ".-:_", min_size=1, max_size=40)
    return st.builds(ChapCredentials, names, secrets())


def chaps() -> st.SearchStrategy[Chap]:
    """One-way and mutual CHAP."""
    return st.builds(Chap, chap_credentials(), st.none() | chap_credentials())


def wwids() -> st.SearchStrategy[Wwid]:
    """Canonical identities of every kind."""
    naa8 = st.builds(
        lambda kind, rest: f"naa.{kind}{rest}",
        st.sampled_from("235"),
        st.text(_HEX, min_size=15, max_size=15),
    )
    naa16 = st.text(_HEX, min_size=31, max_size=31).map("naa.6".__add__)
    eui = st.sampled_from([16, 24, 32]).flatmap(
        lambda length: st.text(_HEX, min_size=length, max_size=length).map("eui.".__add__)
    )
    t10 = st.from_regex(r"t10\.[A-Za-z0-9.:-]+(_[A-Za-z0-9.:-]+)?", fullmatch=True)
    name = st.from_regex(r"iqn\.[A-Za-z0-9.:-]{1,40},t,0x[0-9]{1,4}", fullmatch=True)
    return st.one_of(naa8, naa16, eui, t10, name).filter(lambda text: len(text) < 200).map(Wwid)


def json_values(max_leaves: int = 8) -> st.SearchStrategy[object]:
    """Anything JSON can say."""
    leaves = st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(max_size=12),
    )
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
        max_leaves=max_leaves,
    )


def unknown_keys() -> st.SearchStrategy[dict[str, object]]:
    """Keys that mean nothing to Lunport, with any value but null."""
    keys = st.text(_LOWER_AND_DIGITS, min_size=1, max_size=8).map("x_".__add__)
    return st.dictionaries(keys, json_values(4), max_size=3)


def connection_infos() -> st.SearchStrategy[ConnectionInfo]:
    """Everything a connection info can say."""
    block_sizes = st.none() | st.sampled_from([512, 4096, 65536])
    return st.builds(
        ConnectionInfo,
        paths=path_lists(),
        volume_id=st.none() | uuids(),
        attachment_id=st.none() | uuids(),
        chap=st.none() | chaps(),
        discovery_chap=st.none() | chap_credentials(),
        access_mode=st.sampled_from(AttachMode),
        encrypted=st.booleans(),
        cacheable=st.booleans(),
        discard=st.none() | st.booleans(),
        enforce_multipath=st.booleans(),
        target_discovered=st.booleans(),
        qos_specs=st.none() | st.dictionaries(st.text(max_size=8), json_values(3), max_size=3),
        wwid=st.none() | wwids(),
        addressing_mode=st.none() | st.sampled_from(AddressingMode),
        physical_block_size=block_sizes,
        logical_block_size=block_sizes,
        extra=unknown_keys(),
        envelope=unknown_keys(),
    )


def provider_locations() -> st.SearchStrategy[ProviderLocation]:
    """Stored locations."""
    hosts = st.one_of(addresses(), host_names())
    found = st.lists(st.builds(Portal, hosts, ports()), min_size=1, max_size=4, unique=True)
    return st.builds(ProviderLocation, found.map(tuple), st.integers(-1, 2**31), iqns(), luns())


def connectors() -> st.SearchStrategy[Connector]:
    """What compute hosts declare of themselves."""
    texts = st.none() | st.text(string.printable[:95], min_size=1, max_size=30)
    return st.builds(
        Connector,
        initiator=iqns(),
        ip=st.none() | addresses(),
        host=texts,
        multipath=st.booleans(),
        enforce_multipath=st.booleans(),
        mountpoint=texts,
        mode=st.none() | st.sampled_from(AttachMode),
        extra=unknown_keys(),
    )
