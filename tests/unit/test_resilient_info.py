"""A connection info whose one data path may move, and one whose paths are for one at a time."""

from __future__ import annotations

from dataclasses import replace

from lunport.core.connection_info import (
    ConnectionInfo,
    format_connection_info,
    format_whole_connection_info,
    parse_connection_info,
)
from lunport.core.iqn import Iqn
from lunport.core.portal import Portal
from lunport.core.target_path import TargetPath

IQN = Iqn("iqn.2026-11.org.example:v")
INFO = ConnectionInfo(
    paths=tuple(TargetPath(Portal(f"10.0.{number}.2"), IQN, 1) for number in (1, 2)),
    resilient=True,
)


def test_one_data_path_may_move() -> None:
    """The failover form says so, and reads back as it was."""
    wire = format_connection_info(INFO, multipath=False)
    assert parse_connection_info(wire) == INFO
    assert parse_connection_info(wire).has_alternatives


def test_all_paths_at_once_need_not_move() -> None:
    """The multipath form says nothing of it, and its paths are not for one at a time."""
    read = parse_connection_info(format_connection_info(INFO, multipath=True))
    assert not read.resilient
    assert not read.has_alternatives


def test_nothing_is_said_unless_it_is_wanted() -> None:
    """What other readers get is as it was before."""
    wire = format_connection_info(replace(INFO, resilient=False), multipath=False)
    assert "resilient" not in str(wire)


def test_what_paths_are_for_is_known_to_another_process() -> None:
    """Handed on to the agent, one data path stays one, and several stay several."""
    for multipath in (True, False):
        read = parse_connection_info(format_connection_info(INFO, multipath=multipath))
        again = parse_connection_info(format_whole_connection_info(read))
        assert (again, again.has_alternatives) == (read, not multipath)
        assert (again.is_complete, again.resilient) == (True, not multipath)
