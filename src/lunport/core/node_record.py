"""Node records: what open-iscsi's database says of one portal of one target.

    iqn.2026-11.org.example:volume-1/10.0.1.2,3260,1/default      (the file's place)
    node.conn[0].address = 10.0.1.2                               (a line in it)

Builds the text of a record and its place below the database's ``nodes`` folder, and reads
``name = value`` files just as ``idbm_recinfo_config`` does (``usr/idbm.c`` of open-iscsi 2.1.8
to 2.1.11), quirks included: what open-iscsi would not read is not there for us either.
A record is complete in itself, so that one ``iscsiadm --login`` is all a connect needs, and
the secret is in no argv. It never touches a file.

CHAP: with credentials the record has exactly these, and nothing of iscsid.conf's, whose
``username_in`` would turn one-way CHAP into mutual CHAP. Without credentials what iscsid.conf
says of authentication stays in force, as with ``iscsiadm -o new`` and os-brick: a host-wide
setting is its operator's decision. Algorithms (``chap_algs``) are always iscsid.conf's.

Quirk(open-iscsi): a setting that a record lacks takes a compiled-in default and not
iscsid.conf's (``__idbm_rec_read``), so iscsid.conf's settings are copied into the record.
Quirk(open-iscsi): a value is copied into a buffer of 256 bytes without a check
(``idbm_recinfo_config``), in iscsid as root as well: nothing longer is ever written.
Quirk(open-iscsi): ``name=value`` without a blank before the sign is not read (with a warning);
neither is a last line without its end, nor a line of 2047 bytes or more.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from lunport.core.chap import Chap
from lunport.core.errors import InvalidInput
from lunport.core.iqn import Iqn
from lunport.core.portal import Portal
from lunport.core.secret import Secret
from lunport.core.target_path import TargetPath
from lunport.core.transport import Transport

DEFAULT_IFACE = "default"
UNKNOWN_TPGT = -1

MAX_NAME = 127
MAX_VALUE = 255
_LINE_BUFFER = 2048
_BLANKS = " \t\n\v\f\r"  # isspace(3) in the C locale, and no more: str.strip() strips more
# One sign after the name is skipped without a look at it, then a "=" is demanded.
_SETTING = re.compile(rf"([^{_BLANKS}=]+)[{_BLANKS}=][{_BLANKS}]*=[{_BLANKS}]*(.+)", re.DOTALL)
_COPIED = re.compile(r"(?:node|iface)\.[\w.\[\]-]+", re.ASCII)
_CREDENTIALS = re.compile(
    r"node\.session\.auth\.(?:authmethod|(?:username|password)(?:_in)?|password(?:_in)?_length)"
)
_IFACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,63}", re.ASCII)
_HEADING = "# Written by lunport, which takes it away when the last volume is disconnected.\n"


@dataclass(frozen=True, slots=True)
class RecordSettings:
    """What a record says in place of iscsid.conf.

    ``login_retries``: how often iscsid tries in all; open-iscsi's own 15 s times 8 would keep
    one dead portal for two minutes. What keeps a session alive later is the operator's where it
    is None: the pings, and how long the commands of a lost session wait for its return.
    """

    login_timeout_s: int = 5
    login_retries: int = 1
    logout_timeout_s: int = 5
    noop_interval_s: int | None = None
    noop_timeout_s: int | None = None
    replacement_timeout_s: int | None = None


class RecordKey(NamedTuple):
    """What a place says: which record it is. ``iface`` is None in the form without a TPGT."""

    portal: Portal
    iqn: Iqn
    tpgt: int | None
    iface: str | None


# -- places --------------------------------------------------------------------------------


def record_place(portal: Portal, iqn: Iqn, tpgt: int | None, iface: str) -> str:
    """Say where a record is, relative to the ``nodes`` folder.

    Where the portal group is not known (None) the record is a file without group and iface.
    Raises: InvalidInput.
    """
    check_iface_name(iface)
    if "/" in iqn or iqn in {"", ".", ".."}:
        raise InvalidInput("target name", iqn, "it would not be a file's name")
    end = f"{portal.host},{portal.port}"
    return f"{iqn}/{end}" if tpgt is None else f"{iqn}/{end},{tpgt}/{iface}"


def parse_record_place(place: str) -> RecordKey | None:
    """Read a place; None for one that no record has."""
    iqn, _, rest = place.partition("/")
    where, _, iface = rest.partition("/")
    host, *numbers = where.split(",")
    if not iqn or not host or "/" in iface or not all(map(_is_number, numbers)):
        return None
    match [int(number) for number in numbers]:
        case [port] if not iface and 0 < port < 65536:
            return RecordKey(Portal(host, port), Iqn(iqn), None, None)
        case [port, tpgt] if iface and 0 < port < 65536:
            return RecordKey(Portal(host, port), Iqn(iqn), tpgt, iface)
    return None


# -- records -------------------------------------------------------------------------------


def format_node_record(
    path: TargetPath,
    *,
    tpgt: int | None,
    iface: str,
    chap: Chap | None,
    settings: RecordSettings,
    configured: Mapping[str, str],
) -> Secret:
    """Write a record: what is configured on this host first, then what is ours.

    ``configured``: the settings of iscsid.conf (``node.*``) and of the iface's own file
    (``iface.*``); others are left out.
    Raises: InvalidInput for what no record can hold; a secret's value is never part of it.
    """
    check_iface_name(iface)
    ours = _ours(path, tpgt, iface, settings, configured)
    for name, value in ours.items():
        _check(name, value, shown=value)
    secrets = _credentials(chap) if chap else {}
    for name, value in secrets.items():
        _check(name, value, shown="***" if "password" in name else value)
    copied = {
        name: value
        for name, value in configured.items()
        if name not in ours
        and _COPIED.fullmatch(name)
        and not (chap and _CREDENTIALS.fullmatch(name))
        and _why_not(name, value) is None
    }
    lines = (f"{name} = {value}\n" for name, value in (copied | ours | secrets).items())
    return Secret(_HEADING + "".join(lines))


def is_our_record(text: Secret) -> bool:
    """Tell whether a record is as :func:`format_node_record` wrote it, and nobody since."""
    return text.reveal().startswith(_HEADING)


def parse_settings(text: str) -> dict[str, str]:
    """Read ``name = value`` lines as open-iscsi does: the last one of a name counts.

    Bytes that are not UTF-8 are expected as surrogates (``errors="surrogateescape"``).
    """
    found = {}
    for line in _lines(text.encode(errors="surrogateescape")):
        match = _SETTING.fullmatch(line.strip(_BLANKS))
        if not match or line.lstrip(_BLANKS).startswith("#"):
            continue
        name, value = match.groups()
        if len(_encoded(name)) <= MAX_NAME and len(_encoded(value)) <= MAX_VALUE:
            found[name] = value
    return found


def check_iface_name(iface: str) -> None:
    """Refuse what no iface can be called. Raises: InvalidInput."""
    if not _IFACE.fullmatch(iface):
        raise InvalidInput("iface", iface, "expected a name of 1 to 64 letters, digits and . : _ -")


def _ours(
    path: TargetPath,
    tpgt: int | None,
    iface: str,
    settings: RecordSettings,
    configured: Mapping[str, str],
) -> dict[str, str]:
    transport = configured.get("iface.transport_name") or (
        Transport.ISER if iface == Transport.ISER else path.transport
    )
    return {
        "node.name": path.iqn,
        "node.tpgt": str(UNKNOWN_TPGT if tpgt is None else tpgt),
        "node.startup": "manual",
        "node.leading_login": "No",
        "iface.iscsi_ifacename": iface,
        "iface.transport_name": transport,
        "node.discovery_type": "static",
        "node.session.scan": "manual",
        "node.session.nr_sessions": "1",
        "node.session.initial_login_retry_max": str(settings.login_retries),
        "node.conn[0].address": path.portal.host,
        "node.conn[0].port": str(path.portal.port),
        "node.conn[0].startup": "manual",
        "node.conn[0].timeo.login_timeout": str(settings.login_timeout_s),
        "node.conn[0].timeo.logout_timeout": str(settings.logout_timeout_s),
        **{name: str(value) for name, value in _patience(settings).items() if value is not None},
    }


def _patience(settings: RecordSettings) -> dict[str, int | None]:
    return {
        "node.conn[0].timeo.noop_out_interval": settings.noop_interval_s,
        "node.conn[0].timeo.noop_out_timeout": settings.noop_timeout_s,
        "node.session.timeo.replacement_timeout": settings.replacement_timeout_s,
    }


def _credentials(chap: Chap) -> dict[str, str]:
    auth = "node.session.auth."
    lines = {
        auth + "authmethod": "CHAP",
        auth + "username": chap.initiator.username,
        auth + "password": chap.initiator.password.reveal(),
    }
    if chap.mutual:
        lines[auth + "username_in"] = chap.mutual.username
        lines[auth + "password_in"] = chap.mutual.password.reveal()
    return lines


# -- what a line can hold ------------------------------------------------------------------


def _check(name: str, value: str, *, shown: str) -> None:
    reason = _why_not(name, value)
    if reason is not None:
        raise InvalidInput(f"{name} for open-iscsi", shown, reason)


def _why_not(name: str, value: str) -> str | None:
    if not 0 < len(_encoded(value)) <= MAX_VALUE or len(_encoded(name)) > MAX_NAME:
        return f"a node record holds 1 to {MAX_VALUE} bytes of it"
    if any(sign < " " or sign == "\x7f" for sign in value):
        return "a node record holds no control characters"
    if value.strip(_BLANKS) != value:
        return "a node record cannot hold blanks at the beginning or the end"
    return None


def _lines(data: bytes) -> list[str]:
    # fgets(3) with a buffer: what is too long comes in pieces, and all but the last are dropped.
    read = _LINE_BUFFER - 1
    whole = []
    for line in data.split(b"\n")[:-1]:
        last = line[len(line) // read * read :]
        if b"\0" not in last:  # strlen(3) ends there, and no line end is found
            whole.append(last.decode(errors="surrogateescape"))
    return whole


def _encoded(text: str) -> bytes:
    return text.encode(errors="surrogateescape")


def _is_number(text: str) -> bool:
    return text.isascii() and text.removeprefix("-").isdigit() and len(text) < 10
