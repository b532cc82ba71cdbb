"""Commands to multipathd: how they are framed, and what becomes of a daemon that misbehaves."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import struct
import threading
from collections.abc import Callable, Iterator

import pytest

from lunport.core.errors import CommandTimedOut, InvalidInput, MultipathDown
from lunport.core.wwid import Wwid
from lunport.host.clock import Deadline
from lunport.host.multipathd import Multipathd

LENGTH = struct.Struct("@N")
WWID = Wwid("naa.60014050000000100000000000000000")
Answering = Callable[[socket.socket, str], None]


def soon() -> Deadline:
    """Return time enough for an answer."""
    return Deadline.after(30)


class Played:
    """A daemon that reads one command of each connection, as multipathd frames it."""

    def __init__(self, listener: socket.socket, answer: Answering) -> None:
        self.commands: list[str] = []
        self._listener = listener
        self._answer = answer

    def serve(self) -> None:
        """Serve until the listener is closed."""
        with contextlib.suppress(OSError):
            while self._listener.fileno() >= 0:
                connection, _ = self._listener.accept()
                with connection:
                    self._one(connection)

    def _one(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            (length,) = LENGTH.unpack(connection.recv(LENGTH.size, socket.MSG_WAITALL))
            command = connection.recv(length, socket.MSG_WAITALL)
            assert command.endswith(b"\0")
            self.commands.append(command[:-1].decode())
            self._answer(connection, self.commands[-1])


def framed(text: str) -> bytes:
    """Frame an answer."""
    return LENGTH.pack(len(text) + 1) + text.encode() + b"\0"


def saying(text: str) -> Answering:
    """Answer everything with one text."""
    return lambda connection, _: connection.sendall(framed(text))


@contextlib.contextmanager
def daemon(answer: Answering) -> Iterator[tuple[Multipathd, Played]]:
    """Have a daemon at an abstract socket of the test's own."""
    name = f"/io/lunport/test/{os.getpid()}/{secrets.token_hex(4)}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0{name}")
        listener.listen(10)
        played = Played(listener, answer)
        thread = threading.Thread(target=played.serve)
        thread.start()
        try:
            yield Multipathd(name), played
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_an_answer_is_returned_without_blanks_and_nul() -> None:
    """The text of one framed answer comes back, however it ends."""
    with daemon(saying("ok\n")) as (multipathd, played):
        assert multipathd.ask("add path sda", soon()) == "ok"
        assert multipathd.ask("show daemon", soon()) == "ok"
    assert played.commands == ["add path sda", "show daemon"]


def test_an_answer_may_come_byte_by_byte() -> None:
    """A length and a text in pieces are put together."""

    def answer(connection: socket.socket, _: str) -> None:
        for byte in framed("pid 812 idle\n"):
            connection.sendall(bytes([byte]))

    with daemon(answer) as (multipathd, _):
        assert multipathd.ask("show daemon", soon()) == "pid 812 idle"


def test_a_long_answer_is_read_whole() -> None:
    """A megabyte of text arrives as it was sent."""
    text = "sda 8:0 ready\n" * (1 << 16)
    with daemon(saying(text)) as (multipathd, _):
        assert multipathd.ask("show paths", soon()) == text.strip()


@pytest.mark.parametrize(
    ("call", "command"),
    [
        (lambda md: md.add_path("sda", soon()), "add path sda"),
        (lambda md: md.remove_path("sda", soon()), "remove path sda"),
        (lambda md: md.add_map(WWID, soon()), "add map 360014050000000100000000000000000"),
        (lambda md: md.know_map("mpatha", soon()), "add map mpatha"),
        (lambda md: md.remove_map("mpatha", soon()), "remove map mpatha"),
        (lambda md: md.resize_map("mpatha", soon()), "resize map mpatha"),
        (lambda md: md.reinstate("sda", soon()), "reinstate path sda"),
        (lambda md: md.disable_queueing("mpatha", soon()), "disablequeueing map mpatha"),
        (lambda md: md.restore_queueing("mpatha", soon()), "restorequeueing map mpatha"),
    ],
)
def test_each_verb_is_a_command_that_is_ok_or_not(
    call: Callable[[Multipathd], bool], command: str
) -> None:
    """``ok`` alone is a yes; ``fail``, ``delayed`` and ``blacklisted`` are a no."""
    for answer in ("ok\n", "fail\n", "delayed\n", "blacklisted\n"):
        with daemon(saying(answer)) as (multipathd, played):
            assert call(multipathd) is (answer == "ok\n")
        assert played.commands == [command]


def test_a_daemon_that_was_busy_is_asked_again() -> None:
    """``timeout`` means that nothing was begun: the command is given again until it is."""
    answers = ["timeout\n", "timeout\n", "ok\n"]
    with daemon(lambda connection, _: connection.sendall(framed(answers.pop(0)))) as (
        multipathd,
        played,
    ):
        assert multipathd.add_path("sda", soon())
    assert played.commands == ["add path sda"] * 3


def test_a_daemon_that_stays_busy_is_given_up_at_the_deadline() -> None:
    """``timeout`` for ever ends with ours."""
    with (
        daemon(saying("timeout\n")) as (multipathd, _),
        pytest.raises(CommandTimedOut, match="multipathd add path sda"),
    ):
        multipathd.add_path("sda", Deadline.after(0.2))


def test_a_silent_daemon_is_given_up_at_the_deadline() -> None:
    """One that took the command and says nothing is a CommandTimedOut, and does not run."""
    over = threading.Event()
    with daemon(lambda *_: assert_set(over)) as (multipathd, _):
        with pytest.raises(CommandTimedOut):
            multipathd.ask("show daemon", Deadline.after(0.2))
        assert not multipathd.is_running(Deadline.after(0))
        over.set()


def assert_set(event: threading.Event) -> None:
    """Wait for an event."""
    assert event.wait(30)


def test_a_daemon_that_lets_nobody_in_is_given_up_at_the_deadline() -> None:
    """Where others wait to be let in already, so do we, and not for ever."""
    name = f"/io/lunport/test/{os.getpid()}/{secrets.token_hex(4)}"
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(f"\0{name}")
        listener.listen(1)
        for _ in range(2):
            waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
            waiting.connect(f"\0{name}")
        with pytest.raises(CommandTimedOut):
            Multipathd(name).ask("show daemon", Deadline.after(0.2))


def test_nobody_there_says_what_mends_it() -> None:
    """Without a daemon the error names the command that starts it."""
    multipathd = Multipathd("/io/lunport/test/nobody")
    with pytest.raises(MultipathDown, match="systemctl start multipathd"):
        multipathd.ask("show daemon", soon())
    assert not multipathd.is_running()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        LENGTH.pack(3)[:4],
        LENGTH.pack(4) + b"o",
        LENGTH.pack(0),
        LENGTH.pack(1 << 40) + b"ok\n\0",
    ],
    ids=["nothing", "half a length", "half a text", "an empty text", "a terabyte"],
)
def test_a_daemon_that_ends_or_talks_nonsense_is_down(answer: bytes) -> None:
    """What is no whole answer is MultipathDown, at once."""
    with (
        daemon(lambda connection, _: connection.sendall(answer)) as (multipathd, _),
        pytest.raises(MultipathDown),
    ):
        multipathd.ask("show daemon", soon())


def test_a_running_daemon_is_known_by_its_answer() -> None:
    """Whatever it says of itself, it answers."""
    with daemon(saying("pid 812 configure\n")) as (multipathd, played):
        assert multipathd.is_running()
    assert played.commands == ["show daemon"]


def test_a_command_that_multipathd_would_not_take_is_not_sent() -> None:
    """It hangs up on more than 512 bytes, so that is refused beforehand."""
    with daemon(saying("ok\n")) as (multipathd, played):
        with pytest.raises(InvalidInput):
            multipathd.remove_map("m" * 600, soon())
        assert multipathd.remove_map("m" * 400, soon())
    assert len(played.commands) == 1
