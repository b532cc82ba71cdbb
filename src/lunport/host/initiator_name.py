"""Read who this host is to iSCSI targets: ``/etc/iscsi/initiatorname.iscsi`` (iscsid(8)).

    InitiatorName=iqn.1993-08.org.debian:01:2f8c5d11a7

Never makes a name: a host has one name, and open-iscsi's package makes it.
"""

from __future__ import annotations

from pathlib import Path

from lunport.core.iqn import Iqn, parse_iqn

FILE = Path("/etc/iscsi/initiatorname.iscsi")


def read_initiator_name(file: Path = FILE) -> Iqn | None:
    """Return the host's initiator name; None where there is none.

    Raises: InvalidIqn, naming the file, for a name that no target would take.
    """
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    for line in text.splitlines():
        key, equals, value = line.strip().partition("=")
        if equals and key.strip() == "InitiatorName":
            return parse_iqn(value.strip(), what=str(file))
    return None
