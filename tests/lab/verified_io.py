"""A writer that checks every block: what a disk acknowledged is there, or the test hears of it.

    with VerifiedWriter.on(volume.path) as writer:
        writer.await_rounds()
        ... break something ...
        report = writer.end()
    assert report.failures == () and wrong_in_file(report, disk.file) == ()

A child process writes blocks of 4 KiB past the page cache, from several threads, each in a range
of its own. A block is a function of (seed, block number, generation), with a checksum; so a wrong
one tells what it is: corrupt, stale, of another block, of another writer. Before a block is
written it must hold its last acknowledged generation, and after that it is read back. A write that
failed may have happened or not: both are right until the next one. Once the writer has ended,
every block is read again through the disk, and by the test in the file behind the SAN.

The child needs the standard library only, ends on a message through its pipe, at its end, or
when its time is over. open(2) for O_DIRECT.
"""

from __future__ import annotations

import contextlib
import errno
import json
import mmap
import os
import random
import signal
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

BLOCK = 4096
THREADS = 4
BLOCKS_EACH = 48
FIRST_BLOCK = 16  # a disk's mark is before it
LIMIT_S = 240.0
PAUSE_S = 0.004  # an emulated machine has other work as well
LOOK_S = 0.1
STUCK_S = 20.0  # how long the end waits for a write that does not come back

_HEAD = struct.Struct("<8sQQQ")
_SUM = struct.Struct("<I")
_MAGIC = b"lunport\n"
_BODY = BLOCK - _HEAD.size - _SUM.size
_MANY = 40


# -- blocks ------------------------------------------------------------------------------------


def make_block(seed: int, number: int, generation: int) -> bytes:
    """Return the one content that a block of a generation has; generations begin with 1."""
    head = _HEAD.pack(_MAGIC, seed, number, generation)
    text = blake2b(head).digest()
    body = (text * (_BODY // len(text) + 1))[:_BODY]
    return head + _SUM.pack(zlib.crc32(body, zlib.crc32(head))) + body


def what_is_wrong(content: bytes, seed: int, number: int, allowed: Sequence[int]) -> str | None:
    """Say what a block holds instead of one of the allowed generations; None if all is well.

    With generation 0 among them no write was acknowledged yet, so that it may hold anything.
    """
    if 0 in allowed or content in (make_block(seed, number, one) for one in allowed):
        return None
    wanted = f"block {number}: expected generation {'/'.join(map(str, allowed))}"
    if content == bytes(BLOCK):
        return f"{wanted}, found an empty block"
    magic, its_seed, its_number, its_generation = _HEAD.unpack_from(content)
    if magic != _MAGIC or content != make_block(its_seed, its_number, its_generation):
        return f"{wanted}, found a corrupt block"
    if its_seed != seed:
        return f"{wanted}, found another writer's block"
    if its_number != number:
        return f"{wanted}, found block {its_number}, a misplaced block"
    return f"{wanted}, found the stale generation {its_generation}"


# -- seen from the test ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Report:
    """What a writer did and saw.

    ``mismatches``: blocks that were not what they had to be. ``errors``: calls that failed, by
    what they said. ``allowed``: for each block written the generations that it may have.
    ``longest_s``: how long the slowest call took, which was over ``longest_ended_s`` after the
    begin; ``stuck``: calls that had not come back at the end.
    """

    seed: int
    writes: int
    mismatches: tuple[str, ...]
    errors: tuple[str, ...]
    stuck: int
    longest_s: float
    longest_ended_s: float
    allowed: dict[int, tuple[int, ...]] = field(repr=False)

    @property
    def failures(self) -> tuple[str, ...]:
        """What must not be where I/O is to go on: wrong blocks, errors, and calls that hang."""
        hanging = (f"{self.stuck} calls have not come back",) if self.stuck else ()
        return (*self.mismatches, *self.errors, *hanging)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a writer is. ``oldest_s``: how long the oldest call has been under way."""

    writes: int
    errors: int
    mismatches: int
    oldest_s: float


class VerifiedWriter:
    """The child process, seen from the test. Not to be shared between threads."""

    def __init__(self, child: subprocess.Popen[str], seed: int) -> None:
        self.seed = seed
        self._child = child

    @classmethod
    @contextlib.contextmanager
    def on(
        cls,
        device: str | Path,
        *,
        seed: int = 0,
        threads: int = THREADS,
        blocks_each: int = BLOCKS_EACH,
        first_block: int = FIRST_BLOCK,
        limit_s: float = LIMIT_S,
    ) -> Iterator[VerifiedWriter]:
        """Write to a device until the end; what it wrote before is unknown to it."""
        seed = seed or random.SystemRandom().getrandbits(63)
        order = _Order(str(device), seed, threads, blocks_each, first_block, limit_s)
        child = subprocess.Popen(
            [sys.executable, "-S", __file__, json.dumps(asdict(order))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        with child:
            try:
                yield cls(child, seed)
            finally:
                assert child.stdin is not None
                child.stdin.close()
                _end_within(child, STUCK_S + 10)

    def await_rounds(self, writes_each: int = 10, limit_s: float = 60.0) -> Progress:
        """Wait until every thread has had so many writes acknowledged that began after this.

        Raises: AssertionError when they are not within the limit.
        """
        answer = self._ask({"verb": "await", "writes_each": writes_each, "limit_s": limit_s})
        assert answer["is_done"], f"no {writes_each} writes each within {limit_s:g} s: {answer}"
        return _progress(answer)

    def await_error(self, limit_s: float) -> Progress:
        """Wait until a call fails. Raises: AssertionError when none does within the limit."""
        answer = self._ask({"verb": "await_error", "limit_s": limit_s})
        assert answer["is_done"], f"no error within {limit_s:g} s: {answer}"
        return _progress(answer)

    def await_silence(self, oldest_s: float, limit_s: float) -> Progress:
        """Wait until a call has been under way for so long. Raises: AssertionError."""
        answer = self._ask({"verb": "await_silence", "oldest_s": oldest_s, "limit_s": limit_s})
        assert answer["is_done"], f"no call of {oldest_s:g} s within {limit_s:g} s: {answer}"
        return _progress(answer)

    def pause(self) -> dict[int, tuple[int, ...]]:
        """Let it rest between two calls; return what each block written may hold."""
        answer = self._ask({"verb": "pause"})
        return _numbers(answer["allowed"])

    def resume(self) -> None:
        """Let it go on."""
        self._ask({"verb": "resume"})

    def end(self) -> Report:
        """Let it stop, and read all again through the device."""
        answer = self._ask({"verb": "end"})
        return Report(
            seed=self.seed,
            writes=int(str(answer["writes"])),
            mismatches=tuple(_texts(answer["mismatches"])),
            errors=tuple(_texts(answer["errors"])),
            stuck=int(str(answer["stuck"])),
            longest_s=float(str(answer["longest_s"])),
            longest_ended_s=float(str(answer["longest_ended_s"])),
            allowed=_numbers(answer["allowed"]),
        )

    def _ask(self, order: dict[str, object]) -> dict[str, object]:
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        print(json.dumps(order), file=self._child.stdin, flush=True)
        line = self._child.stdout.readline()
        assert line, f"the writer ended by itself with {self._child.wait()}"
        answer: dict[str, object] = json.loads(line)
        return answer


def wrong_in_file(report: Report, file: Path) -> tuple[str, ...]:
    """Say which blocks of a file behind the SAN are not what was acknowledged last."""
    with file.open("rb") as content:
        return tuple(_wrong(report.seed, report.allowed, content.fileno()))


def _wrong(seed: int, allowed: dict[int, tuple[int, ...]], descriptor: int) -> Iterator[str]:
    for number, generations in allowed.items():
        content = os.pread(descriptor, BLOCK, number * BLOCK)
        wrong = what_is_wrong(content, seed, number, generations)
        if wrong is not None:
            yield wrong


def _end_within(child: subprocess.Popen[str], limit_s: float) -> None:
    try:
        child.wait(limit_s)
    except subprocess.TimeoutExpired:
        child.kill()


def _progress(answer: dict[str, object]) -> Progress:
    return Progress(
        writes=int(str(answer["writes"])),
        errors=int(str(answer["errors"])),
        mismatches=int(str(answer["mismatches"])),
        oldest_s=float(str(answer["oldest_s"])),
    )


def _texts(value: object) -> list[str]:
    assert isinstance(value, list)
    return [str(one) for one in value]


def _numbers(value: object) -> dict[int, tuple[int, ...]]:
    assert isinstance(value, dict)
    return {int(number): tuple(generations) for number, generations in value.items()}


# -- the child ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Order:
    device: str
    seed: int
    threads: int
    blocks_each: int
    first_block: int
    limit_s: float


class _Work:
    """What all threads of the child have done, under one lock."""

    def __init__(self, order: _Order) -> None:
        self.order = order
        self.changed = threading.Condition()
        self.may_go = threading.Event()
        self.may_go.set()
        self.is_over = threading.Event()
        self.begun = time.monotonic()
        self.resting = 0
        self.mismatches: list[str] = []
        self.errors: list[str] = []
        self.error_count = 0
        self.longest = (0.0, 0.0)
        self.allowed: dict[int, list[int]] = {}
        self.under_way: dict[int, float] = {}

    def add_mismatch(self, text: str) -> None:
        with self.changed:
            if len(self.mismatches) < _MANY:
                self.mismatches.append(text)
            self.changed.notify_all()

    def add_error(self, text: str) -> None:
        with self.changed:
            self.error_count += 1
            if len(self.errors) < _MANY:
                self.errors.append(f"{time.monotonic() - self.begun:.1f} s: {text}")
            self.changed.notify_all()

    @contextlib.contextmanager
    def timed(self) -> Iterator[None]:
        """Take the time of a call on the device."""
        me, began = threading.get_ident(), time.monotonic()
        self.under_way[me] = began
        try:
            yield
        finally:
            ended = time.monotonic()
            with self.changed:
                del self.under_way[me]
                self.longest = max(self.longest, (ended - began, ended - self.begun))

    def oldest_s(self) -> float:
        """How long the oldest call has been under way."""
        now = time.monotonic()
        return max((now - began for began in tuple(self.under_way.values())), default=0.0)


class _Writer(threading.Thread):
    """One thread, with a range of blocks of its own."""

    def __init__(self, work: _Work, descriptor: int, number: int) -> None:
        super().__init__(name=f"writer-{number}", daemon=True)
        order = work.order
        first = order.first_block + number * order.blocks_each
        self.blocks = range(first, first + order.blocks_each)
        self.chance = random.Random(order.seed + number)
        self.work = work
        self.descriptor = descriptor
        self.buffer = mmap.mmap(-1, BLOCK)  # aligned, as O_DIRECT wants it
        self.writes = 0

    def run(self) -> None:
        while not self.work.is_over.is_set():
            for number in self.chance.sample(self.blocks, len(self.blocks)):
                if not self._may_go_on():
                    return
                self._write(number)
                self.work.is_over.wait(PAUSE_S)

    def _may_go_on(self) -> bool:
        work = self.work
        if not work.may_go.is_set():
            with work.changed:
                work.resting += 1
                work.changed.notify_all()
            work.may_go.wait()
            with work.changed:
                work.resting -= 1
        return not work.is_over.is_set()

    def _write(self, number: int) -> None:
        work, seed = self.work, self.work.order.seed
        allowed = work.allowed.get(number)
        if allowed is not None and not self._is_right(number, allowed):
            return
        before = allowed or []
        generation = max(before, default=0) + 1
        self.buffer[:] = make_block(seed, number, generation)
        # from here on until it is acknowledged it is there, or what was there before
        work.allowed[number] = [*before, generation] if allowed is not None else [0, generation]
        try:
            with work.timed():
                count = os.pwritev(self.descriptor, [self.buffer], number * BLOCK)
        except OSError as error:
            self._tell(error, "write", number)
            return
        if count != BLOCK:
            self._tell(OSError(errno.EIO, f"{count} bytes"), "write", number)
            return
        with work.changed:
            work.allowed[number] = [generation]
            self.writes += 1
            work.changed.notify_all()
        self._is_right(number, [generation])

    def _is_right(self, number: int, allowed: list[int]) -> bool:
        self.buffer[:] = b"\xff" * BLOCK
        try:
            with self.work.timed():
                os.preadv(self.descriptor, [self.buffer], number * BLOCK)
        except OSError as error:
            self._tell(error, "read", number)
            return False
        wrong = what_is_wrong(bytes(self.buffer), self.work.order.seed, number, allowed)
        if wrong is not None:
            self.work.add_mismatch(wrong)
            # told once; what follows begins anew
            self.work.allowed.pop(number)
        return wrong is None

    def _tell(self, error: OSError, verb: str, number: int) -> None:
        name = errno.errorcode.get(error.errno or 0, str(error))
        self.work.add_error(f"{verb} of block {number}: {name}")
        self.work.is_over.wait(0.05)


def main() -> None:
    """Write as the argument says, and answer each line of the input by a line."""
    order = _Order(**json.loads(sys.argv[1]))
    # whoever is asked to end by this alarm is ended by the kernel, whatever its threads wait for
    signal.setitimer(signal.ITIMER_REAL, order.limit_s)
    work = _Work(order)
    descriptor = os.open(order.device, os.O_RDWR | os.O_DIRECT | os.O_CLOEXEC)
    writers = [_Writer(work, descriptor, number) for number in range(order.threads)]
    for writer in writers:
        writer.start()
    for line in sys.stdin:
        asked = json.loads(line)
        answer = _answer(work, writers, descriptor, asked)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
        if asked["verb"] == "end":
            break
    os._exit(0)


def _answer(
    work: _Work, writers: Sequence[_Writer], descriptor: int, asked: dict[str, Any]
) -> dict[str, object]:
    limit_s = float(asked.get("limit_s", 0.0))
    match asked["verb"]:
        case "await":
            # those that are under way began before
            goals = [writer.writes + 1 + asked["writes_each"] for writer in writers]
            return _wait(work, writers, limit_s, lambda: _are_at(writers, goals))
        case "await_error":
            known = work.error_count
            return _wait(work, writers, limit_s, lambda: work.error_count > known)
        case "await_silence":
            oldest_s = asked["oldest_s"]
            return _wait(work, writers, limit_s, lambda: work.oldest_s() >= oldest_s)
        case "pause":
            work.may_go.clear()
            with work.changed:
                work.changed.wait_for(lambda: work.resting == len(writers), STUCK_S)
        case "resume":
            work.may_go.set()
        case "end":
            return _end(work, writers, descriptor)
    return {"allowed": work.allowed}


def _are_at(writers: Sequence[_Writer], goals: Sequence[int]) -> bool:
    return all(one.writes >= goal for one, goal in zip(writers, goals, strict=True))


def _wait(
    work: _Work, writers: Sequence[_Writer], limit_s: float, condition: Callable[[], bool]
) -> dict[str, object]:
    limit = time.monotonic() + limit_s
    with work.changed:
        # silence changes nothing, so it is looked for
        while not (is_done := condition()) and time.monotonic() < limit:
            work.changed.wait(LOOK_S)
        return {
            "is_done": is_done,
            "writes": sum(writer.writes for writer in writers),
            "errors": work.error_count,
            "mismatches": len(work.mismatches),
            "oldest_s": work.oldest_s(),
        }


def _end(work: _Work, writers: Sequence[_Writer], descriptor: int) -> dict[str, object]:
    work.is_over.set()
    work.may_go.set()
    limit = time.monotonic() + STUCK_S
    for writer in writers:
        writer.join(max(0.0, limit - time.monotonic()))
    stuck = sum(writer.is_alive() for writer in writers)
    if not stuck:
        _read_all(work, descriptor)
    return {
        "writes": sum(writer.writes for writer in writers),
        "mismatches": work.mismatches,
        "errors": work.errors,
        "stuck": stuck,
        "longest_s": max(work.longest[0], work.oldest_s()),
        "longest_ended_s": work.longest[1],
        "allowed": work.allowed,
    }


def _read_all(work: _Work, descriptor: int) -> None:
    buffer = mmap.mmap(-1, BLOCK)
    for number, allowed in sorted(work.allowed.items()):
        try:
            with work.timed():
                os.preadv(descriptor, [buffer], number * BLOCK)
        except OSError as error:
            work.add_error(f"last read of block {number}: {error.strerror}")
            continue
        wrong = what_is_wrong(bytes(buffer), work.order.seed, number, allowed)
        if wrong is not None:
            work.add_mismatch(wrong)


if __name__ == "__main__":
    main()
