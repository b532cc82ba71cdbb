"""Tests of reading the host's initiator name."""

from __future__ import annotations

from pathlib import Path

import pytest

from lunport.core.errors import InvalidIqn
from lunport.host.initiator_name import read_initiator_name

DEBIAN = """\
## DO NOT EDIT OR REMOVE THIS FILE!
## If you remove this file, the iSCSI daemon will not start.
#InitiatorName=iqn.1993-08.org.debian:01:old
InitiatorName=iqn.1993-08.org.debian:01:2f8c5d11a7
"""


def test_debians_file(tmp_path: Path) -> None:
    """The name is the one that is not commented out."""
    file = tmp_path / "initiatorname.iscsi"
    file.write_text(DEBIAN)
    assert read_initiator_name(file) == "iqn.1993-08.org.debian:01:2f8c5d11a7"


@pytest.mark.parametrize("text", ["", "GenerateName=yes\n", "InitiatorName\n"])
def test_a_file_without_a_name(tmp_path: Path, text: str) -> None:
    """A file without a name, like no file, is no name."""
    file = tmp_path / "initiatorname.iscsi"
    assert read_initiator_name(file) is None
    file.write_text(text)
    assert read_initiator_name(file) is None


def test_a_bad_name_names_the_file(tmp_path: Path) -> None:
    """A name that no target would take is refused with the file's path."""
    file = tmp_path / "initiatorname.iscsi"
    file.write_text("InitiatorName=my host\n")
    with pytest.raises(InvalidIqn, match=r"initiatorname\.iscsi"):
        read_initiator_name(file)
