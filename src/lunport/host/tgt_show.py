"""Read what tgtd shows of itself: targets, connections, portals, accounts.

Pure parsers of the texts that ``usr/target.c`` and ``usr/iscsi/target.c`` of tgt print; real
ones are kept in ``tests/recorded/tgt``. Unknown lines are skipped, so that a later version
may print more.

Quirk(tgt): the alias that a logged-in initiator chose is printed unescaped, line ends and
all, so what is shown of a target with sessions is a hint and not a proof.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from lunport.core.portal import Portal, parse_portal


@dataclass(frozen=True, slots=True)
class ShownLun:
    """A logical unit of a target; ``path`` is None when it has no backing file.

    ``size_mb`` is rounded as tgtd rounds: see :func:`shown_mb`.
    """

    lun: int
    scsi_id: str
    serial: str
    path: Path | None
    is_thin: bool
    size_mb: int


@dataclass(frozen=True, slots=True)
class ShownTarget:
    """A target with all that belongs to it; LUN 0, tgtd's own controller, is left out."""

    tid: int
    name: str
    sessions: int
    luns: tuple[ShownLun, ...]
    accounts: tuple[str, ...]
    outgoing: str | None
    initiators: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ShownConnection:
    """A connection of a session, by the numbers that close it."""

    sid: int
    cid: int
    initiator: str


_TARGET = re.compile(r"^Target (\d+): (.*)$", re.MULTILINE)
_OUTGOING = " (outgoing)"
_SIZE = re.compile(r"(\d+) MB")


def parse_targets(text: str) -> tuple[ShownTarget, ...]:
    """Parse the answer to *show target* without a target id."""
    heads = list(_TARGET.finditer(text))
    ends = [head.start() for head in heads[1:]] + [len(text)]
    return tuple(
        _parse_target(int(head[1]), head[2], text[head.end() : end])
        for head, end in zip(heads, ends, strict=False)
    )


def find_targets(text: str, tid: int, name: str) -> tuple[ShownTarget, ...]:
    """Parse only the target of that id and the one of that name: none, one or two."""
    found: list[ShownTarget] = []
    for head in re.finditer(rf"^Target (?:{tid}: .*|\d+: {re.escape(name)})$", text, re.MULTILINE):
        follower = text.find("\nTarget ", head.end())
        block = text[head.start() : follower + 1 if follower >= 0 else len(text)]
        found += parse_targets(block)
    return tuple(found)


def parse_connections(text: str) -> tuple[ShownConnection, ...]:
    """Parse the answer to *show connection*.

    Session: 1
        Connection: 0
            Initiator: iqn.2026-11.io.lunport:host
            IP Address: 127.0.0.1
    """
    found = []
    sid = cid = 0
    for line in text.split("\n"):
        value = line.partition(": ")[2]
        if line.startswith("Session: "):
            sid = int(value)
        elif line.startswith("    Connection: "):
            cid = int(value)
        elif line.startswith("        Initiator: "):
            found.append(ShownConnection(sid, cid, value))
    return tuple(found)


def parse_portals(text: str) -> tuple[Portal, ...]:
    """Parse the answer to *show portal*: ``Portal: [::1]:3260,1``."""
    lines = (line.strip() for line in text.split("\n"))
    return tuple(
        parse_portal(line.removeprefix("Portal: ").rpartition(",")[0])
        for line in lines
        if line.startswith("Portal: ")
    )


def parse_accounts(text: str) -> tuple[str, ...]:
    """Parse the answer to *show account*: an indented name a line."""
    return tuple(line[4:] for line in text.split("\n") if line.startswith("    "))


def parse_settings(text: str) -> dict[str, str]:
    """Parse the answer to *show target* with a target id: ``name=value`` lines."""
    return dict(line.split("=", 1) for line in text.split("\n") if "=" in line)


def _parse_target(tid: int, name: str, block: str) -> ShownTarget:
    section = ""
    sessions = 0
    luns: list[dict[str, str]] = []
    accounts: list[str] = []
    initiators: list[str] = []
    for line in block.split("\n"):
        indent = len(line) - len(line.lstrip(" "))
        word = line.strip()
        key, _, value = word.partition(":")
        if indent == 4:
            section = key
        elif section == "I_T nexus information" and indent == 8 and key == "I_T nexus":
            sessions += 1
        elif section == "LUN information" and indent == 8 and key == "LUN":
            luns.append({"LUN": value.strip()})
        elif section == "LUN information" and indent == 12 and luns:
            luns[-1][key] = value.strip()
        elif section == "Account information" and indent == 8:
            accounts.append(word)
        elif section == "ACL information" and indent == 8:
            initiators.append(word)
    outgoing = [word.removesuffix(_OUTGOING) for word in accounts if word.endswith(_OUTGOING)]
    return ShownTarget(
        tid=tid,
        name=name,
        sessions=sessions,
        luns=tuple(_lun(fields) for fields in luns if fields["LUN"] != "0"),
        accounts=tuple(word for word in accounts if not word.endswith(_OUTGOING)),
        outgoing=outgoing[0] if outgoing else None,
        initiators=tuple(initiators),
    )


def _lun(fields: dict[str, str]) -> ShownLun:
    path = fields.get("Backing store path", "None")
    return ShownLun(
        lun=int(fields["LUN"]),
        scsi_id=fields.get("SCSI ID", ""),
        serial=fields.get("SCSI SN", ""),
        path=None if path == "None" else Path(path),
        is_thin=fields.get("Thin-provisioning") == "Yes",
        size_mb=int(size[1]) if (size := _SIZE.match(fields.get("Size", ""))) else 0,
    )


def shown_mb(size_bytes: int) -> int:
    """Round a size to the MB that tgtd shows (``print_disksize``): no GiB looks like another."""
    sectors = size_bytes // 512
    return (sectors - sectors // 625 + 974) // 1950
