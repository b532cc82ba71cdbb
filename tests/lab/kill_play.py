"""Connect, disconnect and recover in processes that are killed at a chosen step.

    with Player.started() as player:
        played = player.play("connect", info, Kill(at_step=3))

One small helper process without threads is started once and forks for each act, so that the
imports are paid once and what is killed is nothing but the act. The act's own process writes
each step into a pipe before it goes on, so what it had done is known however it ended.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lab.lio import Disk, Target
from lunport.core.connection_info import (
    ConnectionInfo,
    format_connection_info,
    parse_connection_info,
)
from lunport.core.host_connection import connection_key
from lunport.core.iqn import Iqn
from lunport.core.wwid import Wwid
from lunport.initiator.connector import Initiator
from lunport.initiator.initiator_host import InitiatorHost
from tests.stress.step_counter import StepCounter

PATIENCE_S = 90.0
_ROOM = 1 << 20
# Files of sysfs and the journal are written by the one, folders of node records go by the other.
_ALSO_EFFECTS = frozenset({("posix", "write"), ("posix", "rmdir")})
_KILLS = frozenset({-signal.SIGKILL, -signal.SIGALRM})


@dataclass(frozen=True, slots=True)
class Kill:
    """When to kill: at the step of a number or name, or at an effect's call (StepCounter).

    ``after_s``: that much later, or after the begin, wherever it is then.
    """

    at_step: int | str | None = None
    at_effect: int | None = None
    after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Remap:
    """At a step, the first time: another disk is put under a LUN behind the initiator's back."""

    at_step: str
    target: Target
    lun: int
    disk: Disk


@dataclass(frozen=True, slots=True)
class Played:
    """What became of an act: its steps, and its failure unless it succeeded or was killed."""

    steps: tuple[str, ...]
    is_killed: bool
    failure: str
    effects: tuple[str, ...] = ()
    path: str = ""

    @property
    def last(self) -> str:
        """The last step that was done."""
        return self.steps[-1] if self.steps else "begun"


@dataclass(frozen=True, slots=True)
class Player:
    """The helper process, seen from the tests. Not to be shared between threads."""

    child: subprocess.Popen[str] = field(repr=False)

    @classmethod
    @contextlib.contextmanager
    def started(cls) -> Iterator[Player]:
        """Have a helper for a while."""
        child = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        with child:
            try:
                yield cls(child)
            finally:
                assert child.stdin is not None
                child.stdin.close()

    def play(
        self,
        verb: str,
        info: ConnectionInfo | None = None,
        kill: Kill = Kill(),
        *,
        remap: Remap | None = None,
        counts_effects: bool = False,
        multipath: bool = False,
    ) -> Played:
        """Do what the verb says, killed if it comes so far.

        ``verb``: ``connect``, ``complete``, ``extend``, ``disconnect`` or ``recover``.

        ``multipath``: the connect makes a map, and leaves its further paths to nobody.
        """
        request = {
            "verb": verb,
            "info": None if info is None else format_connection_info(info, multipath=multipath),
            "multipath": multipath,
            "at_step": kill.at_step,
            "at_effect": kill.at_effect,
            "after_s": kill.after_s,
            "remap": None if remap is None else _format_remap(remap),
            "counts_effects": counts_effects,
        }
        assert self.child.stdin is not None
        assert self.child.stdout is not None
        print(json.dumps(request), file=self.child.stdin, flush=True)
        answer = json.loads(self.child.stdout.readline())
        played = Played(
            steps=tuple(answer["steps"]),
            is_killed=answer["status"] in _KILLS,
            failure=answer["failure"],
            effects=tuple(answer["effects"]),
            path=answer["path"],
        )
        assert played.is_killed or answer["status"] == 0, answer
        return played


def _format_remap(remap: Remap) -> Mapping[str, object]:
    return {
        "at_step": remap.at_step,
        "iqn": remap.target.iqn,
        "tpgt": remap.target.tpgt,
        "lun": remap.lun,
        "place": str(remap.disk.place),
    }


# -- the helper process ----------------------------------------------------------------------


@dataclass(slots=True)
class _Act:
    """One act in the process that is forked for it."""

    request: Mapping[str, object]
    pipe: int
    count: int = 0

    def run(self) -> None:
        counter = None
        if self.request["at_effect"] is not None or self.request["counts_effects"]:
            at = self.request["at_effect"]
            assert at is None or isinstance(at, int)
            counter = StepCounter(at, self._die, _ALSO_EFFECTS)
            counter.start()
        elif self.request["at_step"] is None and self.request["after_s"]:
            self._die()
        initiator = Initiator(InitiatorHost(on_step=self._hear, finish=_leave))
        info = parse_connection_info(self.request["info"]) if self.request["info"] else None
        match self.request["verb"]:
            case "connect":
                assert info is not None
                multipath = bool(self.request["multipath"])
                self._tell("path", initiator.connect(info, multipath=multipath).path)
            case "complete":
                assert info is not None
                initiator.complete(connection_key(info))
            case "extend":
                assert info is not None
                initiator.extend(info)
            case "disconnect":
                assert info is not None
                initiator.disconnect(info)
            case "recover":
                errors = [step.error for step in initiator.recover() if step.error]
                assert not errors, errors
            case verb:
                raise ValueError(f"{verb} is no act")
        if counter is not None:
            for seen in tuple(counter.seen):  # to tell is an effect as well
                self._tell("effects", seen)

    def _hear(self, step: str) -> None:
        self._tell("steps", step)
        remap = self.request["remap"]
        if isinstance(remap, dict) and remap["at_step"] == step:
            self.request = {**self.request, "remap": None}
            _remap(remap)
        if self.request["at_step"] in (self.count, step):
            self._die()
        self.count += 1

    def _die(self) -> None:
        after_s = self.request["after_s"]
        assert isinstance(after_s, float)
        if after_s:
            # The alarm's default action ends a process as abruptly as KILL does.
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_REAL, after_s)
        else:
            os.kill(os.getpid(), signal.SIGKILL)

    def _tell(self, what: str, word: str) -> None:
        os.write(self.pipe, f"{what}\t{word}\n".encode())


def _leave(key: str) -> None:
    """Leave what is missing of a connection to the test."""


def _remap(wire: Mapping[str, object]) -> None:
    target = Target(Iqn(str(wire["iqn"])), int(str(wire["tpgt"])), ())
    place = Path(str(wire["place"]))
    disk = Disk(Wwid(place.name), place, place)
    lun = int(str(wire["lun"]))
    target.luns[lun] = disk
    target.remap_lun(lun, disk)


def main() -> None:
    """Answer each line of the input, which is an act, by a line that says what became of it."""
    for line in sys.stdin:
        sys.stdout.write(json.dumps(_answer(json.loads(line))) + "\n")
        sys.stdout.flush()


def _answer(request: Mapping[str, object]) -> dict[str, object]:
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, _ROOM)  # it is read when the act has ended
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _run_to_the_end(_Act(request, writer).run, writer)
    os.close(writer)
    heard: dict[str, list[str]] = {"steps": [], "effects": [], "failure": [], "path": []}
    with os.fdopen(reader, encoding="utf-8") as lines:
        _await(pid)
        for line in lines:
            what, _, word = line.rstrip("\n").partition("\t")
            heard[what].append(word)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return {
        "status": status,
        "steps": heard["steps"],
        "effects": heard["effects"],
        "failure": "\n".join(heard["failure"]),
        "path": "".join(heard["path"]),
    }


def _await(pid: int) -> None:
    """Wait for the end of an act, and make one of an act that does not come to it."""
    descriptor = os.pidfd_open(pid)
    try:
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        if not poller.poll(PATIENCE_S * 1000):
            signal.pidfd_send_signal(descriptor, signal.SIGABRT)
    finally:
        os.close(descriptor)


def _run_to_the_end(act: Callable[[], None], pipe: int) -> None:
    """Be the forked process: nothing above this may go on twice."""
    status = 1
    try:
        act()
        status = 0
    except BaseException:
        for line in traceback.format_exc().splitlines():
            os.write(pipe, f"failure\t{line}\n".encode())
    finally:
        os._exit(status)


if __name__ == "__main__":
    main()
