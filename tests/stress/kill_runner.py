"""Kill the service, or its tgtd, at a chosen step of the story, and see what becomes of it.

Every act runs in a forked process of its own, because it is killed, or starts threads. The
service is the real one: file driver, tgtd, SQLite, the bootstrap's own start and recovery.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Literal, get_args

from lunport.bootstrap.serve import running_service, serve
from lunport.config import BackendConfig, Config
from lunport.core.errors import TargetDaemonDown
from lunport.core.portal import Portal
from lunport.host.clock import Deadline
from lunport.host.process import ProcessName, reopen_process
from lunport.host.tgtd import OwnTgtd
from tests.stress.observed import Place, await_agreement, await_agreement_of_all
from tests.stress.step_counter import StepCounter
from tests.stress.story import (
    BLOCK,
    STORY,
    Client,
    Model,
    clear,
    model_after,
    tell,
    tell_stubbornly,
)

ExportPolicy = Literal["target_per_volume", "target_per_host"]
POLICIES: tuple[ExportPolicy, ...] = get_args(ExportPolicy)
PATIENCE_S = 120.0
PIECES = 40
CROWD = ("a-", "b-", "c-")
_pause = threading.Event()
BACKEND = "local"


@dataclass(frozen=True, slots=True)
class Stage:
    """Where a story is played: a folder and the ports of its own, and the export policy."""

    folder: Path
    listen: Portal
    portals: tuple[Portal, ...]
    policy: ExportPolicy = "target_per_volume"

    @property
    def data(self) -> Path:
        """The service's data directory."""
        return self.folder / "data"

    @property
    def config(self) -> Config:
        """One backend with default settings but for its policy."""
        backend = BackendConfig(
            portals=tuple(map(str, self.portals)), export=self.policy, reserve_mib=0
        )
        return Config(backend={BACKEND: backend})

    @property
    def images(self) -> Path:
        """Where the backend's files are."""
        return self.data / "backends" / BACKEND / "images"

    @property
    def diary(self) -> Path:
        """What the killed client noted."""
        return self.folder / "diary"

    @property
    def daemon(self) -> OwnTgtd:
        """The service's tgtd as seen from outside."""
        return OwnTgtd(self.data / "backends" / BACKEND / "target", self.portals)

    @contextlib.contextmanager
    def service(self) -> Iterator[Place]:
        """Run the service in this process."""
        with running_service(self.config, self.data, str(self.listen)) as running:
            yield Place(running.service, self.images, self.daemon)

    def end(self) -> None:
        """Leave no daemon behind."""
        self.daemon.stop(Deadline.after(20))


def count_steps(stage: Stage) -> int:
    """Count the steps of a story that nobody disturbs, the start of the service included."""

    def act() -> None:
        counter = StepCounter(None, _nothing)
        counter.start()
        with stage.service() as place:
            client = Client(place.service)
            tell(client, _ignore)
            with counter.paused():
                await_agreement(place, [model_after(len(STORY))])
        (stage.folder / "steps").write_text(str(counter.count))
        (stage.folder / "seen").write_text("\n".join(counter.seen))

    _succeed(stage, act)
    return int((stage.folder / "steps").read_text())


def kill_service_at(stage: Stage, step: int) -> bool:
    """Kill the service at a step, start it again, and assert that all is as it must be.

    Tells whether the story was long enough to come to that step.
    """
    stage.diary.unlink(missing_ok=True)

    def play() -> None:
        StepCounter(step, _kill_me).start()
        with stage.service() as place:
            tell(Client(place.service), _Notes(stage.diary))

    status = _fork(stage, play)
    assert status in (0, -signal.SIGKILL), _failure(stage, f"step {step}: status {status}")
    begun, done = _read_diary(stage.diary)

    def recover() -> None:
        with stage.service() as place:
            models = [model_after(done), *([model_after(begun)] if begun != done else [])]
            is_writing = begun != done and STORY[done].name == "write"
            await_agreement(place, models, ignores_data=is_writing)
            clear(Client(place.service))
            await_agreement(place, [Model()])

    _succeed(stage, recover, f"killed at step {step}, in {_where(begun, done)}")
    return status != 0


def kill_daemon_at(stage: Stage, step: int) -> bool:
    """Kill tgtd at a step while the service goes on; what it refuses then is repeated."""
    killed = stage.folder / "killed"
    killed.unlink(missing_ok=True)

    def kill() -> None:
        if _kill_tgtd(stage.daemon):
            killed.touch()

    def play() -> None:
        counter = StepCounter(step, kill)
        counter.start()
        with contextlib.ExitStack() as stack:
            try:
                place = stack.enter_context(stage.service())
            except TargetDaemonDown:  # It died under the start, which says so; once more.
                place = stack.enter_context(stage.service())
            client = Client(place.service)

            def check(count: int) -> None:
                with counter.paused():
                    await_agreement(place, [model_after(count)])

            tell_stubbornly(client, check)
            check(len(STORY))

    _succeed(stage, play, f"tgtd killed at step {step}")
    return killed.exists()


def kill_crowd_at(stage: Stage, step: int) -> bool:
    """Kill the service while several clients live through the story at once.

    Tells whether it lived long enough to come to that step.
    """
    diaries = {prefix: stage.folder / f"diary-{prefix}" for prefix in CROWD}
    for diary in diaries.values():
        diary.unlink(missing_ok=True)

    def play() -> None:
        StepCounter(step, _kill_me).start()
        with stage.service() as place:
            threads = [
                threading.Thread(target=tell, args=(Client(place.service, prefix), _Notes(diary)))
                for prefix, diary in diaries.items()
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(PATIENCE_S)

    status = _fork(stage, play)
    assert status in (0, -signal.SIGKILL), _failure(stage, f"step {step}: status {status}")
    counts = {prefix: _read_diary(diary) for prefix, diary in diaries.items()}

    def recover() -> None:
        with stage.service() as place:
            choices = {
                prefix: [model_after(done), model_after(begun)]
                for prefix, (begun, done) in counts.items()
            }
            await_agreement_of_all(place, choices)
            clear(Client(place.service))
            await_agreement(place, [Model()])

    _succeed(stage, recover, f"a crowd killed at step {step}, at {counts}")
    return status != 0


def kill_first_start_at(stage: Stage, step: int) -> bool:
    """Kill the very first start of a service at a step; the second one must succeed.

    Tells whether the start was long enough to come to that step.
    """

    def start() -> None:
        counter = StepCounter(step, _kill_me)
        counter.start()
        with stage.service() as place:
            await_agreement(place, [Model()])

    status = _fork(stage, start)
    assert status in (0, -signal.SIGKILL), _failure(stage, f"step {step}: status {status}")

    def start_again() -> None:
        with stage.service() as place:
            client = Client(place.service)
            for action in STORY[:7]:
                action.do(client)
                client.settle()
            await_agreement(place, [model_after(7)])
            clear(client)

    _succeed(stage, start_again, f"first start killed at step {step}")
    stage.end()
    shutil.rmtree(stage.data)
    return status != 0


def stop_in_a_copy(stage: Stage) -> None:
    """Send SIGTERM in the middle of a copy: a prompt end, nothing half-made, and done later."""

    def begin() -> None:
        threading.setprofile(_CopyHook(_kill_me))
        with stage.service() as place:
            client = Client(place.service)
            STORY[0].do(client)
            client.settle()
            with client.image("src").open("r+b") as file:
                for number in range(PIECES):
                    file.seek(number << 20)
                    file.write(BLOCK)
            STORY[2].do(client)
            client.settle()

    status = _fork(stage, begin)
    assert status == -signal.SIGKILL, _failure(stage, "the copy was not begun")

    def go_on() -> None:
        is_serving = threading.Event()

        def stop_me() -> None:
            assert is_serving.wait(PATIENCE_S)
            os.kill(os.getpid(), signal.SIGTERM)

        hook = _CopyHook(stop_me, pause_s=0.05)
        threading.setprofile(hook)
        serve(stage.config, stage.data, str(stage.listen), lambda _: is_serving.set())
        assert 0 < hook.count < PIECES, f"{hook.count} of {PIECES} pieces were copied"

    _succeed(stage, go_on, "stopped in a copy")
    assert [path.name[:7] for path in stage.images.iterdir()] == ["volume-"]

    def finish() -> None:
        with stage.service() as place:
            client = Client(place.service)
            client.settle()
            assert client.volume("copy").status == "available"
            assert _are_equal(client.image("copy"), client.image("src"))
            clear(client)
            await_agreement(place, [Model()])

    _succeed(stage, finish, "after the stop")


def _are_equal(one: Path, other: Path) -> bool:
    """Compare what was written, and see that the first one is as sparse as it should be."""
    with one.open("rb") as first, other.open("rb") as second:
        if first.read(PIECES << 20) != second.read(PIECES << 20):
            return False
    return one.stat().st_blocks * 512 <= 2 * PIECES * len(BLOCK)


class _CopyHook:
    """Act at the first piece of a copy, then slow the copy down."""

    def __init__(self, act: Callable[[], None], pause_s: float = 0) -> None:
        self.count = 0
        self._act = act
        self._pause_s = pause_s

    def __call__(self, _frame: FrameType, event: str, function: object) -> None:
        if event == "c_call" and getattr(function, "__name__", "") == "copy_file_range":
            self.count += 1
            if self.count == 1:
                self._act()
            _pause.wait(self._pause_s)


def _where(begun: int, done: int) -> str:
    return f"the middle of {STORY[done].name!r}" if begun != done else f"action {done}"


def _kill_me() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _kill_tgtd(daemon: OwnTgtd) -> bool:
    """Kill the daemon that its record names, and nobody else."""
    try:
        record = json.loads((daemon.folder / "tgtd.json").read_text())
    except (FileNotFoundError, ValueError):
        return False
    name = ProcessName(record["pid"], record["start_ticks"], record["boot_id"])
    process = reopen_process(name, "tgtd")
    if process is None:
        return False
    with process:
        process.kill()
    return True


def _nothing() -> None:
    return None


def _ignore(_line: str) -> None:
    return None


class _Notes:
    """Notes that are there whatever happens next."""

    def __init__(self, file: Path) -> None:
        self._descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def __call__(self, line: str) -> None:
        os.write(self._descriptor, f"{line}\n".encode())


def _read_diary(diary: Path) -> tuple[int, int]:
    """Return how many actions had begun, and how many had returned."""
    lines = diary.read_text().split() if diary.exists() else []
    return lines.count("begin"), lines.count("done")


def _succeed(stage: Stage, act: Callable[[], None], what: str = "the story") -> None:
    status = _fork(stage, act)
    assert status == 0, _failure(stage, f"{what}: status {status}")


def _failure(stage: Stage, what: str) -> str:
    files = [stage.folder / "failure", stage.folder / "log"]
    return "\n".join([what, *(file.read_text()[-6000:] for file in files if file.exists())])


def _fork(stage: Stage, act: Callable[[], None]) -> int:
    """Run something in a process of its own; return its exit status, negative for a signal."""
    for name in ("failure", "log"):
        (stage.folder / name).unlink(missing_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        _run_to_the_end(stage, act)
    return _wait(pid)


def _run_to_the_end(stage: Stage, act: Callable[[], None]) -> None:
    """Be the forked process: nothing above this may go on twice."""
    status = 1
    try:
        signal.setitimer(signal.ITIMER_REAL, 0)
        logging.basicConfig(
            filename=stage.folder / "log",
            level=logging.INFO,
            force=True,
            format="%(asctime)s %(threadName)s %(name)s %(message)s",
        )
        act()
        status = 0
    except BaseException:
        (stage.folder / "failure").write_text(traceback.format_exc())
    finally:
        os._exit(status)


def _wait(pid: int) -> int:
    descriptor = os.pidfd_open(pid)
    try:
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        if not poller.poll(PATIENCE_S * 1000):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    finally:
        os.close(descriptor)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
