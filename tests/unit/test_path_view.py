"""How the paths of volumes are drawn: what is shown, in which width, with which signs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lunport.cli.path_view import PathView
from lunport.core.iqn import Iqn
from lunport.core.path_report import format_path_report
from lunport.core.path_status import PathState, PathStatus, VolumePaths
from lunport.core.portal import Portal
from lunport.core.target_path import TargetPath
from lunport.core.wwid import Wwid
from tests.unit.test_path_report import volume_paths

NOW = 1_790_000_000.0
IQN = Iqn("iqn.2026-11.io.lunport.test:v")
WWID = Wwid("naa.600140500000000100000000000a1f00")


def a_path(host: str, state: PathState, age_s: float | None = None, **more: object) -> PathStatus:
    """Return one path of the volume."""
    since = None if age_s is None else NOW - age_s
    path = PathStatus(TargetPath(Portal(host), IQN, 1), "default", state, since=since)
    return replace(path, **more)  # type: ignore[arg-type]


LIVE = a_path("10.0.1.2", PathState.LIVE, 8040, sid=12, device="sdc")
LOST = a_path("10.0.2.2", PathState.MISSING, 192, why="no answer to a connection within 5 s")
MAPPED = VolumePaths(
    key=WWID,
    volume_id="0c3f9d2e-1111-4222-8333-444455556666",
    wwid=WWID,
    device="dm-7",
    map_name="3600140500000000100000000000a1f00",
    size_bytes=1 << 30,
    wanted=2,
    paths=(LIVE, LOST),
)
ALONE = VolumePaths(
    key="paths-0123",
    volume_id=None,
    wwid=None,
    device="sda",
    map_name=None,
    size_bytes=None,
    wanted=1,
    paths=(
        a_path("fd00:2::2", PathState.FAILED, 100800, iface="rdma0", sid=3, why="offline"),
        a_path("10.0.3.2", PathState.JOINING),
        a_path("10.0.4.2", PathState.SPARE),
    ),
)


def drawn(*volumes: VolumePaths, width: int | None = None, encoding: str = "utf-8") -> str:
    """Draw volumes at a fixed moment."""
    lines = PathView("kvm3", NOW, width, encoding).lines(volumes)
    return "\n".join(line.plain for line in lines)


def test_all_of_it_where_there_is_room() -> None:
    """Volumes in a table, below each its paths: state, portal, session, disk, age, reason."""
    assert drawn(MAPPED, ALONE) == (
        "VOLUME                                HOST  WWID                                  "
        "MAP   PATHS  STATE     SINCE\n"
        "0c3f9d2e-1111-4222-8333-444455556666  kvm3  naa.600140500000000100000000000a1f00  "
        "dm-7  1/2    DEGRADED  00:03:12\n"
        "├─ ● 10.0.1.2:3260            tcp  sid 12  sdc  live     02:14:00\n"
        "└─ ○ 10.0.2.2:3260            tcp  -       -    missing  00:03:12  "
        "no answer to a connection within 5 s\n"
        "paths-0123                            kvm3  -                                     "
        "-     0/1    DOWN      1d 04h\n"
        "├─ ✗ [fd00:2::2]:3260  rdma0  tcp  sid 3   -    failed   1d 04h  offline\n"
        "├─ ◐ 10.0.3.2:3260            tcp  -       -    joining  -\n"
        "└─ · 10.0.4.2:3260            tcp  -       -    spare    -"
    )


def test_the_page_shows_what_is_drawn() -> None:
    """The example of the reference is what the command prints, and its document is read."""
    page = (Path(__file__).parents[2] / "docs/reference/paths.md").read_text()
    assert f"# lunport host paths\n{drawn(MAPPED)}\n```" in page
    document = page.partition("```json\n")[2].partition("```")[0]
    assert json.loads(document) == format_path_report(MAPPED)


def test_eighty_columns() -> None:
    """On a usual terminal identities are shortened in the middle, a long reason goes below."""
    reason = "no answer to a connection within 5 s, and three other hosts say the same of it"
    volume = replace(MAPPED, paths=(LIVE, replace(LOST, why=reason)))
    assert drawn(volume, width=80) == (
        "VOLUME                      HOST  WWID           MAP   PATHS  STATE     SINCE\n"
        "0c3f9d2e-1111-422…55556666  kvm3  naa.6001…1f00  dm-7  1/2    DEGRADED  00:03:12\n"
        "├─ ● 10.0.1.2:3260  tcp  sid 12  sdc  live     02:14:00\n"
        "└─ ○ 10.0.2.2:3260  tcp  -       -    missing  00:03:12\n"
        "       no answer to a connection within 5 s, and three other hosts say the same\n"
        "       of it"
    )
    assert drawn(volume, width=90).splitlines()[3:] == [
        "└─ ○ 10.0.2.2:3260  tcp  -       -    missing  00:03:12  no answer to a connection within",
        "       5 s, and three other hosts say the same of it",
    ]


def test_forty_columns() -> None:
    """Where it is narrow the lesser columns are left out, and states stay."""
    assert drawn(MAPPED, width=40) == (
        "VOLUME             MAP   PATHS  STATE\n"
        "0c3f9d2e-11…56666  dm-7  1/2    DEGRADED\n"
        "├─ ● 10.0.1.2:3260  sid 12  sdc  live\n"
        "└─ ○ 10.0.2.2:3260  -       -    missing\n"
        "       no answer to a connection within\n"
        "       5 s"
    )


def test_without_the_signs() -> None:
    """An output that can hold ASCII alone gets other signs, and question marks for the rest."""
    volume = replace(MAPPED, paths=(LIVE, replace(LOST, why="Verbindung überlastet")))
    text = drawn(volume, ALONE, width=100, encoding="ascii")
    assert text.isascii()
    assert [line[:5] for line in text.splitlines()[2:]] == [
        *("|- * ", "`- o ", "paths", "|- x ", "|- ~ ", "`- . "),
    ]
    assert "Verbindung ?berlastet" in text
    assert "naa.60014050" in text
    assert "..." in text


def test_a_terminal_is_not_controlled() -> None:
    """What an array or a kernel put into a reason or a name can't move the cursor."""
    evil = replace(LOST, why="x\x1b[2J\x07y\nz\u202e", device="sd\x9b1A")
    text = drawn(replace(MAPPED, paths=(evil,)))
    assert all(line.isprintable() for line in text.splitlines())
    assert "x?[2J?y z?" in text


def test_ages() -> None:
    """Hours, minutes and seconds; days from one day on; a clock that went back shows zero."""
    view = PathView("h", NOW)
    ages = [None, -5, 0, 59.9, 3600, 86399, 86400, 8_640_000]
    told = [view.age(None if age is None else NOW - age) for age in ages]
    assert told == [
        *("-", "00:00:00", "00:00:00", "00:00:59", "01:00:00", "23:59:59", "1d 00h", "100d 00h"),
    ]


def test_no_paths_and_no_volumes() -> None:
    """A volume without a path is a line, and no volume is the head alone."""
    assert drawn(replace(MAPPED, paths=()), width=80).count("\n") == 1
    assert drawn().split() == ["VOLUME", "HOST", "WWID", "MAP", "PATHS", "STATE", "SINCE"]


@given(
    st.lists(volume_paths(), max_size=3),
    st.integers(1, 200),
    st.sampled_from(["utf-8", "ascii", "latin-1"]),
)
def test_no_line_is_wider_than_the_terminal(
    volumes: list[VolumePaths], width: int, encoding: str
) -> None:
    """Whatever is shown fits the width, and can be written to the output."""
    for line in PathView("kvm3", NOW, width, encoding).lines(volumes):
        assert line.cell_len <= width
        assert line.plain.encode(encoding)
        assert line.plain.isprintable()


@pytest.mark.parametrize("width", [None, 80])
def test_each_path_is_shown_once(width: int | None) -> None:
    """Every path has one line with its sign, in the order of the volume."""
    lines = drawn(MAPPED, ALONE, width=width).splitlines()
    signs = [line[3] for line in lines if line[:2] in ("├─", "└─")]
    assert signs == ["●", "○", "✗", "◐", "·"]
