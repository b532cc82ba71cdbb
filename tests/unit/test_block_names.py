"""Tests of the name of a disk that lasts."""

from __future__ import annotations

import pytest

from lunport.core.errors import HostLacks
from lunport.host.block_names import stable_name, wait_for_stable_name
from lunport.host.clock import Deadline


def test_a_device_without_a_link_has_no_lasting_name() -> None:
    """Where a name must outlive a restart, one that does not is refused; elsewhere it will do."""
    assert stable_name("/dev/null") == "/dev/null"
    with pytest.raises(HostLacks, match="/dev/null has no lasting name"):
        wait_for_stable_name("/dev/null", Deadline.after(0.05))
