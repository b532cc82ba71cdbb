"""``lunport host paths`` on a host that is played: what it prints, and how it ends."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import click
import pytest
from rich.console import Console

from lunport.agent.agent import Agent
from lunport.bootstrap.host_verbs import HostVerbs
from lunport.cli.exit_codes import exit_code_of
from lunport.cli.host import host
from lunport.cli.host_parts import HostInitiator, HostParts
from lunport.cli.path_output import watch_on_terminal
from lunport.core.errors import AgentUnavailable, LunportError
from lunport.core.path_report import parse_path_report
from lunport.core.path_status import PathState, VolumePaths
from tests.fakes.played_host import PlayedInitiator
from tests.unit.test_path_view import ALONE, LIVE, LOST, MAPPED

WHOLE = replace(MAPPED, paths=(LIVE, replace(LIVE, path=LOST.path, sid=13, device="sdd")))


class LostAgent(Agent):
    """An agent that does not answer any more."""

    def paths(self) -> tuple[VolumePaths, ...]:
        """Fail."""
        raise AgentUnavailable("it was killed")


@dataclass(frozen=True, slots=True)
class PlayedParts(HostParts):
    """A host whose pauses end at once; the last one as Ctrl-C does where that is wanted."""

    played: PlayedInitiator = field(default_factory=PlayedInitiator)
    is_interrupted: bool = False
    has_lost_agent: bool = False

    def initiator(self) -> HostInitiator:
        """Return the played one."""
        return self.played

    def verbs(self) -> HostVerbs:
        """Return this process's verbs, or those of an agent that has been lost."""
        return LostAgent(self.played, self.has_multipath) if self.has_lost_agent else self.here()

    def earlier_boot(self, initiator: HostInitiator) -> None:
        """Nothing is left of an earlier boot."""

    def host_name(self) -> str:
        """Return a fixed one."""
        return "kvm3"

    def pause(self, seconds: float) -> Callable[[], bool]:
        """End when all looks but the last have been taken."""
        assert seconds == 0.5

        def pause() -> bool:
            if self.is_interrupted:
                raise KeyboardInterrupt
            return len(self.played.looks) == 1

        return pause


Run = Callable[..., tuple[int, str]]


@pytest.fixture
def parts() -> PlayedParts:
    """A host that looks once, at a degraded volume and one that is down."""
    return PlayedParts(PlayedInitiator(looks=[(MAPPED, ALONE)]))


@pytest.fixture
def run(parts: PlayedParts, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command; give its exit status, and what it printed or its error."""

    def run(*words: str) -> tuple[int, str]:
        try:
            status = host.main(["paths", *words], obj=parts, standalone_mode=False) or 0
        except click.UsageError as error:
            return 2, error.format_message()
        except click.Abort:
            status = 130
        except LunportError as error:
            return exit_code_of(error), str(error)
        return int(status), capsys.readouterr().out

    return run


def test_what_is_degraded_is_told_by_the_status(parts: PlayedParts, run: Run) -> None:
    """The exit status is 8 when paths are missing or all are, and 0 when all is well."""
    status, said = run()
    assert status == 8
    assert "DEGRADED" in said
    assert "DOWN" in said
    parts.played.looks[:] = [(WHOLE,)]
    status, said = run()
    assert (status, "2/2    OK" in said) == (0, True)


def test_nothing_is_connected(parts: PlayedParts, run: Run) -> None:
    """A host without volumes is well."""
    parts.played.looks.clear()
    assert run() == (0, "Nothing is connected.\n")
    assert json.loads(run("-o", "json")[1]) == {"host": "kvm3", "volumes": []}


def test_json_is_the_document_of_each_volume(run: Run) -> None:
    """As JSON every volume is the document that the service gets, too."""
    status, said = run("-o", "json")
    assert status == 8
    shown = json.loads(said)
    assert shown["host"] == "kvm3"
    assert [parse_path_report(one) for one in shown["volumes"]] == [MAPPED, ALONE]


@pytest.mark.parametrize(
    "name",
    [
        MAPPED.volume_id,
        MAPPED.key,
        MAPPED.wwid,
        "3600140500000000100000000000A1F00",
        "dm-7",
        "/dev/dm-7",
        MAPPED.map_name,
    ],
)
def test_one_volume_by_any_of_its_names(run: Run, name: str) -> None:
    """A volume is found by id, key, identity in any form, or device; others are not shown."""
    status, said = run(name, "-o", "json")
    assert status == 8
    assert [one["key"] for one in json.loads(said)["volumes"]] == [MAPPED.key]


def test_an_agent_that_is_lost_hides_nothing(
    parts: PlayedParts, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the agent ends while it is asked, the paths are looked at in process."""
    lost = replace(parts, has_lost_agent=True)
    assert host.main(["paths"], obj=lost, standalone_mode=False) == 8
    assert "DEGRADED" in capsys.readouterr().out


def test_a_volume_that_is_not_here(run: Run) -> None:
    """A volume that is not connected is not found."""
    status, said = run("no-such")
    assert status == 3
    assert "no-such" in said


def test_an_interval_that_is_no_number(run: Run) -> None:
    """NaN and times that are too short are usage errors."""
    for value in ("nan", "0.01", "x"):
        assert run("--watch", "--interval", value)[0] == 2


def test_each_change_is_a_line(parts: PlayedParts, run: Run) -> None:
    """Without a terminal: what there is, then each change of a path, then what is gone."""
    aged = replace(MAPPED, paths=(LIVE, replace(LOST, since=1.0)))
    parts.played.looks[:] = [(MAPPED,), (aged,), (WHOLE,), (MAPPED,), (), ()]
    status, said = run("--watch", "--interval", "0.5")
    assert status == 0
    lines = [line.split("  ", 1) for line in said.splitlines()]
    assert all(moment.endswith("Z") for moment, _ in lines)
    name, reason = MAPPED.volume_id, LOST.why
    assert [rest for _, rest in lines] == [
        f"{name}  10.0.1.2:3260  live",
        f"{name}  10.0.2.2:3260  missing  {reason}",
        f"{name}  10.0.2.2:3260  missing -> live",
        f"{name}  10.0.2.2:3260  live -> missing  {reason}",
        f"{name}  10.0.1.2:3260  live -> gone",
        f"{name}  10.0.2.2:3260  missing -> gone",
    ]


def test_each_change_is_a_document(parts: PlayedParts, run: Run) -> None:
    """As JSON: one line for each volume at first, and for each that changed or is gone."""
    parts.played.looks[:] = [(MAPPED, ALONE), (MAPPED, ALONE), (WHOLE,), ()]
    status, said = run("--watch", "--interval", "0.5", "-o", "json")
    assert status == 0
    told = [json.loads(line) for line in said.splitlines()]
    assert [one["key"] for one in told] == [MAPPED.key, ALONE.key, WHOLE.key, ALONE.key]
    volumes = [one["volume"] and parse_path_report(one["volume"]) for one in told]
    assert volumes == [MAPPED, ALONE, WHOLE, None]


@pytest.mark.parametrize("output", ["table", "json"])
def test_ctrl_c_ends_a_watch(parts: PlayedParts, output: str) -> None:
    """Watching goes on until Ctrl-C, which is no error of ours: 130."""
    stopped = replace(parts, is_interrupted=True)
    with pytest.raises(click.Abort):
        host.main(
            ["paths", "--watch", "--interval", "0.5", "-o", output],
            obj=stopped,
            standalone_mode=False,
        )


def test_a_terminal_is_redrawn_when_something_changed() -> None:
    """On a terminal the view is drawn anew where a look differs, and left alone where not."""
    looks = [(WHOLE,), (WHOLE,), (replace(WHOLE, wanted=3),), ()]
    seen: list[tuple[VolumePaths, ...]] = []
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100, legacy_windows=False)
    sizes: list[int] = []

    def look() -> tuple[VolumePaths, ...]:
        seen.append(looks[len(seen)])
        return seen[-1]

    def pause() -> bool:
        sizes.append(len(screen.getvalue()))
        return len(seen) == len(looks)

    # Ages grow with the clock; paths without one are drawn the same at any moment.
    looks = [
        tuple(
            replace(one, paths=tuple(replace(path, since=None) for path in one.paths))
            for one in volumes
        )
        for volumes in looks
    ]
    watch_on_terminal(look, console, "kvm3", pause)
    assert sizes[0] < sizes[2] < sizes[3]
    assert sizes[0] == sizes[1]
    text = screen.getvalue()
    assert text.index("2/2") < text.index("2/3") < text.index("Nothing is connected.")
    assert PathState.LIVE.value in text
