"""What iscsiadm's statuses mean: every one of the header has a meaning and somebody to act."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lunport.core.errors import (
    CommandError,
    HostLacks,
    InitiatorDown,
    LoginRejected,
    LoginTimedOut,
    LunportError,
    PortalUnreachable,
    Remedy,
    TransportMissing,
)
from lunport.core.iqn import Iqn
from lunport.core.portal import Portal
from lunport.core.target_path import TargetPath
from lunport.host.iscsiadm import EXIT_CODES, Actor, error_of, login_argv
from lunport.host.runner import Completed

HEADER = Path(__file__).parents[1] / "recorded" / "open-iscsi" / "2.1.8" / "iscsi_err.txt"
PATH = TargetPath(Portal("10.0.1.2"), Iqn("iqn.2026-11.io.lunport.test:a"), 1)


def error(status: int, *, iface: str = "default", is_root: bool = True) -> LunportError:
    """Make the error of a status."""
    completed = Completed(status, "", "iscsiadm: it said this\n", 0.2)
    return error_of(
        completed, ["iscsiadm", "-m", "node"], where=str(PATH), iface=iface, is_root=is_root
    )


def test_the_table_has_every_status_of_the_header() -> None:
    """No status of iscsi_err.h is missing, none has another's name, and 255 is the only extra."""
    header = {
        int(number): name
        for name, number in re.findall(r"^(\w+) = (\d+)$", HEADER.read_text(), re.MULTILINE)
    }
    assert len(header) == 34
    assert {number: EXIT_CODES[number].name for number in header} == header
    assert EXIT_CODES.keys() - header.keys() == {255}


@pytest.mark.parametrize("status", sorted(EXIT_CODES))
def test_every_failure_says_what_it_is_and_who_acts(status: int) -> None:
    """Each status has a meaning, its error tells its number, and a mending command is shown."""
    found = EXIT_CODES[status]
    assert found.meaning
    assert (found.actor is Actor.NOBODY) == (status in {0, 15})
    if found.actor is Actor.NOBODY:
        return
    told = str(error(status))
    assert str(status) in told
    if found.how and found.error is not TransportMissing:
        assert found.how in told


@pytest.mark.parametrize(
    "status, expected",
    [
        (4, PortalUnreachable),
        (8, LoginTimedOut),
        (11, LoginTimedOut),
        (19, LoginRejected),
        (24, LoginRejected),
    ],
)
def test_what_another_path_may_not_share_lets_it_be_tried(
    status: int, expected: type[LunportError]
) -> None:
    """Refusals and silence are one path's: 24 too, since it can mean forbidden at this portal."""
    found = error(status)
    assert type(found) is expected
    assert found.remedy is Remedy.NEXT_PATH
    assert str(PATH) in str(found)


@pytest.mark.parametrize("status", [16, 18, 20, 31, 33])
def test_a_host_without_initiator_is_told_how_to_mend_it(status: int) -> None:
    """Trouble with iscsid is this host's, no other path is tried, and a command is named."""
    found = error(status)
    assert isinstance(found, InitiatorDown)
    assert found.remedy is Remedy.NEVER
    assert "systemctl" in found.how


def test_a_missing_module_is_the_hosts_or_the_ifaces() -> None:
    """Without iscsi_tcp nothing works; without an offload's module another path may."""
    assert "modprobe iscsi_tcp" in str(error(12))
    assert isinstance(error(12), InitiatorDown)
    assert isinstance(error(12, iface="iser"), TransportMissing)
    assert error(12, iface="iser").remedy is Remedy.NEXT_PATH


def test_who_is_not_root_is_told_so() -> None:
    """Records that may not be read are none to iscsiadm; the error names the cause."""
    assert isinstance(error(21, is_root=False), HostLacks)
    assert isinstance(error(13), HostLacks)
    assert isinstance(error(21), CommandError)


def test_the_generic_rest_quotes_iscsiadm() -> None:
    """A status that nobody acts differently on carries what iscsiadm said."""
    assert "it said this" in str(error(1))


def test_a_login_names_the_record_and_no_more() -> None:
    """The command has portal, group, target and iface; IPv6 is in brackets; nothing secret."""
    argv = login_argv(TargetPath(Portal("fd00::2", 3261), PATH.iqn, 1), tpgt=257, iface="default")
    assert " ".join(argv) == (
        "iscsiadm --mode node --targetname iqn.2026-11.io.lunport.test:a "
        "--portal [fd00::2]:3261,257 --interface default --login"
    )
    assert "10.0.1.2:3260" in login_argv(PATH, tpgt=None, iface="default")
