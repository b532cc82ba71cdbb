"""The demo's console: what a step looks like, plain, in colours, and in ASCII."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from lunport.bootstrap.demo.telling import Line, Mark, step
from lunport.cli.demo import ConsoleTeller, show_complaint


def teller(
    *, terminal: bool, encoding: str = "utf-8", width: int = 80, kind: str = "xterm"
) -> tuple[ConsoleTeller, io.TextIOWrapper]:
    """Make a teller and the stream it writes to."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True, newline="")
    console = Console(
        file=stream,
        force_terminal=terminal,
        color_system="standard" if terminal else None,
        width=width,
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=True,
        legacy_windows=False,
        _environ={"TERM": kind},
    )
    return ConsoleTeller(console), stream


def text_of(stream: io.TextIOWrapper) -> str:
    """Return what was written."""
    buffer = stream.buffer
    assert isinstance(buffer, io.BytesIO)
    return buffer.getvalue().decode(stream.encoding)


def test_plain_step() -> None:
    """Elsewhere than on a terminal a step is lines of text, the time at the 80th column."""
    one, stream = teller(terminal=False)
    one.act("An act")
    one.begin("A step")
    one.end("A step", 0.123, [Line("10.0.1.2:3260", "refuses", Mark.BAD)])
    lines = text_of(stream).splitlines()
    assert lines[:2] == ["An act", ""]
    assert lines[2] == " 1  A step" + " " * 64 + "0.12 s"
    assert len(lines[2]) == 80
    assert lines[3] == "    ✗ 10.0.1.2:3260   refuses"


def test_ascii_step() -> None:
    """An output that holds ASCII alone gets signs of ASCII."""
    one, stream = teller(terminal=False, encoding="ascii")
    one.begin("A step")
    one.end("A step", 1, [Line("a", "good", Mark.GOOD), Line("b", "bad", Mark.BAD)])
    assert [line[4] for line in text_of(stream).splitlines()[1:]] == ["+", "-"]


def test_terminal_step_is_overwritten() -> None:
    """On a terminal a step is shown as it begins, and its line is overwritten at its end."""
    one, stream = teller(terminal=True)
    one.begin("A step")
    assert "A step ..." in text_of(stream)
    one.end("A step", 1, [Line("a", "good", Mark.GOOD)])
    assert text_of(stream).count("\r") == 1
    assert "\x1b[32mgood" in text_of(stream)


def test_dumb_terminal_gets_whole_lines() -> None:
    """A terminal that cannot go back in a line sees a step once, when it is done."""
    one, stream = teller(terminal=True, kind="dumb")
    one.begin("A step")
    one.end("A step", 1, [])
    assert text_of(stream).count("A step") == 1


@pytest.mark.parametrize(
    ("terminal", "expected"), [(True, "A step ...\ndemo: no"), (False, "demo: no")]
)
def test_complaint_has_a_line_of_its_own(terminal: bool, expected: str) -> None:
    """Whoever tells the end does not know whether the line of the last step is open."""
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=terminal, _environ={"TERM": "xterm"})
    errors = Console(file=stream, color_system=None)
    if terminal:
        stream.write(" 8  A step ...")
    show_complaint("no", console, errors)
    assert stream.getvalue().endswith(expected + "\n")


def test_long_words_are_wrapped() -> None:
    """Words that do not fit go on below where they began."""
    one, stream = teller(terminal=False)
    one.begin("A step")
    one.end("A step", 1, [Line("subject", "word " * 20)])
    lines = text_of(stream).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[2].startswith(" " * 22 + "word")


def test_failed_step_is_told() -> None:
    """A step that fails is shown with what it had found, and its error goes on."""
    one, stream = teller(terminal=False)

    def fail() -> None:
        with step(one, "A step") as say:
            say("a", "found")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert "failed, 0.00 s" in text_of(stream)
    assert "found" in text_of(stream)
