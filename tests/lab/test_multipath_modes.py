"""The map is made whatever multipath is set to on this host; no file of the operator changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lab import services
from lab.san import San
from lunport.agent.heal_acts import give_queueing_back
from tests.lab.conftest import LabHost
from tests.lab.multipath_play import portals_in, queues, registered, several_paths, soon

CONFIGURATION = Path("/etc/multipath.conf")
QUEUES_FOR_EVER = "overrides {\n no_path_retry queue\n}\n"


@pytest.mark.parametrize(
    ("find_multipaths", "user_friendly_names"),
    [("no", "yes"), ("yes", "no"), ("greedy", "yes"), ("smart", "no"), ("strict", "yes")],
)
def test_the_map_is_made_in_each_mode(
    san: San, lab_host: LabHost, find_multipaths: str, user_friendly_names: str
) -> None:
    """A map at once, of one path and then of two, by a name of the operator's liking; and gone."""
    with services.multipathd(find_multipaths, user_friendly_names):
        text = CONFIGURATION.read_text()
        with several_paths(san, lab_host, portals=san.portals[:2]) as play:
            volume = play.connect_all()
            assert volume.map_name is not None
            assert portals_in(volume.map_name) == set(map(str, san.portals[:2]))
            name = Path("/sys/block", volume.map_name, "dm/name").read_text().strip()
            assert name.startswith("mpath" if user_friendly_names == "yes" else "36001405")
        assert registered() == set()
        assert CONFIGURATION.read_text() == text


def test_nobody_queues_without_a_bound(san: San, lab_host: LabHost) -> None:
    """Where multipathd would keep I/O for ever it fails without an agent, and that is said."""
    with (
        services.multipathd(find_multipaths="strict", extra=QUEUES_FOR_EVER),
        several_paths(san, lab_host, portals=san.portals[:1]) as play,
    ):
        volume = play.connect()
        assert volume.map_name is not None
        assert not queues(volume.map_name)
        assert "fails at once" in (volume.note or "")
        play.disconnect()

        host = replace(play.initiator.host, keeps_watch=True)
        watched = replace(play, initiator=replace(play.initiator, host=host))
        volume = watched.connect()
        assert volume.map_name is not None
        assert (queues(volume.map_name), volume.note) == (True, None)
        give_queueing_back(watched.initiator, soon())
        assert not queues(volume.map_name)
