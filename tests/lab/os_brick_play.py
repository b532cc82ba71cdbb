"""One scenario played by one implementation, and what is there on the host after each step.

What two runs cannot have in common is named by its role: the second disk that a scenario makes
is "disk 2", whatever its identity is and whatever the kernel calls it.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.lio import Disk, Target
from lab.os_brick_environment import PYTHON, is_there
from lab.san import San
from lab.services import wait_until
from lunport.core.chap import Chap
from lunport.core.portal import Portal
from lunport.core.wwid import format_multipath_wwid
from lunport.host.clock import Deadline
from lunport.host.multipath_wwids import is_registered, unregister
from lunport.host.runner import run
from tests.lab.multipath_play import portals_in, usable

DRIVER = Path(__file__).with_name("os_brick_driver.py")
NODES = Path("/etc/iscsi/nodes")
DISCOVERIES = Path("/etc/iscsi/send_targets")
# How much shorter os-brick's pauses are. Not at a connect, which waits for udev in them.
HURRY = 5
IMPLEMENTATIONS = ("os_brick", "lunport")

Seen = dict[str, Any]


class Driver:
    """A process that has one implementation loaded."""

    def __init__(self, child: subprocess.Popen[str]) -> None:
        self._child = child
        self.ask(None)

    @classmethod
    @contextmanager
    def started(cls, implementation: str) -> Iterator[Driver]:
        """Start it and wait until it listens; end it at the end."""
        python = sys.executable
        if implementation == "os_brick":
            assert is_there(), "there is no os-brick: make it by `make lab`, outside"
            python = str(PYTHON)
        with subprocess.Popen(
            [python, "-W", "ignore", str(DRIVER), implementation],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        ) as child:
            try:
                yield cls(child)
            finally:
                assert child.stdin is not None
                child.stdin.close()
                child.wait(20)

    def ask(self, request: dict[str, Any] | None) -> dict[str, Any]:
        """Let it do something; None only waits until it is ready."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        if request is not None:
            self._child.stdin.write(json.dumps(request) + "\n")
        line = self._child.stdout.readline()
        assert line, "the driver ended"
        answer: dict[str, Any] = json.loads(line)
        return answer


class Play:
    """A stage for one scenario: targets of its own, steps, and what was seen after each."""

    def __init__(self, san: San, driver: Driver) -> None:
        self.san = san
        self.seen: dict[str, Seen] = {}
        self._driver = driver
        self._targets: list[Target] = []
        self._disks: list[Disk] = []

    # -- the storage side ----------------------------------------------------------------------

    def target(
        self, name: str = "t1", *, portals: Sequence[Portal] = (), chap: Chap | None = None
    ) -> Target:
        """Make a target, on the first portal unless said otherwise."""
        made = self.san.target(name, portals=portals or self.san.portals[:1], chap=chap)
        self._targets.append(made)
        return made

    def disk(self, target: Target, lun: int, *, growable: bool = False) -> Disk:
        """Make a disk and show it."""
        made = self.san.add_lun(target, lun, growable=growable)
        self._disks.append(made)
        return made

    @staticmethod
    def properties(target: Target, lun: object = 1, **more: object) -> dict[str, object]:
        """Write what a volume service says of a LUN."""
        return {
            "target_discovered": False,
            "target_portal": str(target.portals[0]),
            "target_iqn": target.iqn,
            "target_lun": lun,
            "access_mode": "rw",
            "encrypted": False,
            "qos_specs": None,
        } | more

    # -- the host side -------------------------------------------------------------------------

    def call(
        self,
        step: str,
        what: str,
        *args: object,
        make: tuple[str, dict[str, Any]] | None = ("ISCSI", {}),
        hurry: int | None = None,
        until: Callable[[], object] | None = None,
        **kwargs: object,
    ) -> Any:
        """Call a method of a new connector, note the answer and the state; return the value.

        ``until``: what to wait for before looking, where something goes on in the background.
        """
        if hurry is None:
            hurry = 1 if what == "connect_volume" else HURRY
        answer = self._driver.ask(
            {"make": make, "call": what, "args": args, "kwargs": kwargs, "hurry": hurry}
        )
        if until is not None:
            wait_until(until, f"the end of {step!r}: {answer}")
        names = self._disk_names()
        said = answer.get("error", self._named(answer.get("value"), names | self._map_names()))
        self.seen[step] = {
            "answer": said,
            "sessions": sorted(_sessions()),
            "records": sorted(_records()),
            "disks": sorted(names.values()),
            "maps": sorted(
                f"{role} over {' '.join(sorted(portals_in(name)))}"
                for name, role in self._map_names().items()
            ),
            "registered": [
                f"disk {number}"
                for number, disk in enumerate(self._disks, 1)
                if is_registered(disk.wwid)
            ],
            "discoveries": sorted(path.name.split(",")[0] for path in DISCOVERIES.glob("*")),
        }
        return answer.get("value")

    def note(self, step: str, **facts: object) -> None:
        """Note something else at a step."""
        self.seen.setdefault(step, {}).update(facts)

    def hand_to(self, driver: Driver) -> None:
        """Let another implementation go on."""
        self._driver = driver

    def uses(self, portals: Sequence[Portal]) -> Callable[[], bool]:
        """Tell whether the one map of this play would use just these portals."""
        wanted = set(map(str, portals))

        def are_used() -> bool:
            names = list(self._map_names())
            return len(names) == 1 and usable(names[0]) == wanted == portals_in(names[0])

        return are_used

    def log_in_as_somebody_else(self, target: Target) -> None:
        """Log in before anybody is asked to connect."""
        words = ("-T", target.iqn, "-p", str(target.portals[0]))
        _node(*words, "-o", "new")
        _node(*words, "--login")
        run(["udevadm", "settle", "--timeout=20"], Deadline.after(30))

    def leave(self) -> None:
        """Take away all that is left, however it came."""
        for name in self._map_names():
            table = _text(Path("/sys/block", name, "dm/name"))
            run(["dmsetup", "message", table, "0", "fail_if_no_path"], Deadline.after(30))
        _node("--logout", accepted=(0, 21))
        _node("-o", "delete", accepted=(0, 21))
        wait_until(lambda: not _sessions(), "the end of all sessions")
        for disk in self._disks:
            unregister(disk.wwid)
        for record in DISCOVERIES.glob("*"):
            shutil.rmtree(record)
        wait_until(lambda: not self._map_names(), "the end of all maps")
        for target in self._targets:
            self.san.remove_target(target)
        run(["udevadm", "settle", "--timeout=20"], Deadline.after(30))

    # -- names ---------------------------------------------------------------------------------

    def _disk_names(self) -> dict[str, str]:
        roles = {str(disk.wwid): f"disk {number}" for number, disk in enumerate(self._disks, 1)}
        return {
            path.name: roles.get(_text(path / "device/wwid"), "a disk of nobody")
            for path in Path("/sys/block").glob("sd*")
        }

    def _map_names(self) -> dict[str, str]:
        return {
            path.parents[1].name: f"map of disk {number}"
            for path in Path("/sys/block").glob("dm-*/dm/uuid")
            for number, disk in enumerate(self._disks, 1)
            if _text(path) == f"mpath-{format_multipath_wwid(disk.wwid)}"
        }

    def _named(self, value: Any, names: dict[str, str]) -> Any:
        if isinstance(value, dict):
            return {key: self._named(one, names) for key, one in value.items()}
        if isinstance(value, list):
            return [self._named(one, names) for one in value]
        if not isinstance(value, str):
            return value
        for number, disk in enumerate(self._disks, 1):
            if value == format_multipath_wwid(disk.wwid):
                return f"identity of disk {number}"
        for name, role in names.items():
            if value == f"/dev/{name}":
                return role
            if value.endswith(f"+{name}"):
                value = value.removesuffix(name) + ("dm-?" if name.startswith("dm-") else "sd?")
        return value


def _sessions() -> list[str]:
    found = []
    for path in Path("/sys/class/iscsi_session").glob("session*"):
        place = Path("/sys/class/iscsi_connection") / f"connection{path.name[7:]}:0"
        found.append(
            f"{_text(path / 'targetname').rpartition(':')[2]} {_text(place / 'persistent_address')}"
        )
    return found


def _records() -> list[str]:
    places = {file.relative_to(NODES).parts[:2] for file in NODES.rglob("*") if file.is_file()}
    return [f"{iqn.rpartition(':')[2]} {portal.split(',')[0]}" for iqn, portal in places]


def _text(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""


def _node(*words: str, accepted: tuple[int, ...] = (0,)) -> None:
    run(["iscsiadm", "-m", "node", *words], Deadline.after(60), accepted=accepted)


# -- the comparison ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Difference:
    """One aspect of one step in which the two differ, and the row that says why."""

    row: str
    scenario: Callable[[Play], None]
    step: str
    aspect: str
    os_brick: Any
    lunport: Any


def left(
    row: str,
    scenario: Callable[[Play], None],
    step: str,
    os_brick: tuple[list[str], list[str], list[str]],
    lunport: tuple[list[str], list[str], list[str]],
) -> tuple[Difference, ...]:
    """Make the differences in what is there after a step."""
    return tuple(
        Difference(row, scenario, step, aspect, one, other)
        for aspect, one, other in zip(
            ("sessions", "records", "disks"), os_brick, lunport, strict=True
        )
        if one != other
    )


def differences(
    scenario: Callable[[Play], None], san: San, drivers: Mapping[str, Driver]
) -> dict[tuple[str, str], tuple[Any, Any]]:
    """Let both play a scenario; list what differs, by step and aspect."""
    seen = {}
    for name in IMPLEMENTATIONS:
        play = Play(san, drivers[name])
        try:
            scenario(play)
        finally:
            play.leave()
        seen[name] = play.seen
    one, other = (seen[name] for name in IMPLEMENTATIONS)
    assert list(one) == list(other), "the steps themselves"
    return {
        (step, aspect): (one[step][aspect], other[step][aspect])
        for step in one
        for aspect in one[step]
        if one[step][aspect] != other[step][aspect]
    }


def expected(
    scenario: Callable[[Play], None], listed: Sequence[Difference]
) -> dict[tuple[str, str], tuple[Any, Any]]:
    """Select what is to differ in a scenario."""
    return {
        (one.step, one.aspect): (one.os_brick, one.lunport)
        for one in listed
        if one.scenario is scenario
    }


@contextmanager
def both_started() -> Iterator[Mapping[str, Driver]]:
    """Have one process for each implementation."""
    with contextlib.ExitStack() as stack:
        yield {name: stack.enter_context(Driver.started(name)) for name in IMPLEMENTATIONS}
