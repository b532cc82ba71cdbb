"""``lunport demo``: the main job on real components, told step by step.

Colours and a line that is overwritten on a terminal; plain lines elsewhere. NO_COLOR is
honoured, and ASCII is used where the output can hold no more.
"""

from __future__ import annotations

import contextlib
import textwrap
import time

import click
from rich.console import Console
from rich.control import Control
from rich.segment import ControlType
from rich.text import Text

from lunport.bootstrap.demo.telling import Line, Mark

_WIDTH = 80
_INDENT = 4
_SUBJECT_WIDTH = 16
_STYLES = {Mark.GOOD: "green", Mark.BAD: "red", Mark.PLAIN: ""}
_SIGNS = {Mark.GOOD: "✓", Mark.BAD: "✗", Mark.PLAIN: " "}
_ASCII_SIGNS = {Mark.GOOD: "+", Mark.BAD: "-", Mark.PLAIN: " "}


@click.command()
@click.option("--quick", is_flag=True, help="The first act alone: neither libvirt nor a guest.")
def demo(quick: bool) -> int:
    """Show the whole job on this machine, on real components, and leave nothing.

    One volume behind three portals: the main one swallows packets, another refuses. A host
    finds a path, writes 64 MiB through QEMU's own initiator, reads them back through
    another portal, lets go. Then a guest of libvirt moves between two hosts with different
    targets for its volume, and writes all the while. All of it happens in a network of its own;
    needs root.
    """
    from lunport.bootstrap.demo.stage import perform  # noqa: PLC0415 - only now is it needed

    began = time.monotonic()
    console = Console(highlight=False, emoji=False, markup=False, soft_wrap=True)
    teller = ConsoleTeller(console)
    ending = perform(teller, is_quick=quick)
    seconds = time.monotonic() - began
    with contextlib.suppress(OSError):
        if ending.status == 0:
            console.print()
            console.print(Text(f"demo: ok in {seconds:.1f} s", style="bold green"))
        else:
            errors = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
            show_complaint(ending.complaint, console, errors)
    return ending.status


def show_complaint(complaint: str | None, console: Console, errors: Console) -> None:
    """Show why the demo ended, on a line of its own, below the step it ended in."""
    if _overwrites(console):
        # The step was told by another process, which may have been killed within its line.
        console.print()
    errors.print(Text(f"demo: {complaint}", style="bold red"))


def _overwrites(console: Console) -> bool:
    return console.is_terminal and not console.is_dumb_terminal


class ConsoleTeller:
    """Shows steps on a console, numbered, with their times on the right."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._width = max(40, min(_WIDTH, console.width)) if console.is_terminal else _WIDTH
        self._count = 0
        self._is_line_open = False
        is_unicode = console.encoding.lower().startswith("utf")
        self._signs = _SIGNS if is_unicode else _ASCII_SIGNS

    def act(self, title: str) -> None:
        """Show what comes, between two empty lines."""
        if self._count:
            self._console.print()
        self._console.print(Text(f"{title}\n", style="bold"))

    def begin(self, title: str) -> None:
        """Show on a terminal what is going on."""
        self._count += 1
        if _overwrites(self._console):
            self._console.print(Text(f"{self._count:>2}  {title} ...", style="dim"), end="")
            self._is_line_open = True

    def end(self, title: str, seconds: float, lines: list[Line]) -> None:
        """Show a step that is done."""
        self._show_title(title, f"{seconds:.2f} s", "bold")
        self.add(lines)

    def fail(self, title: str, seconds: float, lines: list[Line]) -> None:
        """Show a step that failed."""
        self._show_title(title, f"failed, {seconds:.2f} s", "bold red")
        self.add(lines)

    def add(self, lines: list[Line]) -> None:
        """Show lines below the last step."""
        for line in lines:
            self._show_line(line)
        self._console.file.flush()

    def _show_title(self, title: str, seconds: str, style: str) -> None:
        room = self._width - 5 - len(seconds)
        text = Text()
        text.append(f"{self._count:>2}  ", style="dim")
        text.append(f"{title:<{room}}", style=style)
        text.append(f" {seconds}", style="dim")
        if self._is_line_open:
            self._console.control(Control(ControlType.CARRIAGE_RETURN))
            self._is_line_open = False
        self._console.print(text)

    def _show_line(self, line: Line) -> None:
        hanging = " " * (_INDENT + 2 + _SUBJECT_WIDTH)
        room = max(20, self._width - len(hanging))
        first, *others = textwrap.wrap(line.words, room) or [""]
        style = _STYLES[line.mark]
        text = Text(" " * _INDENT)
        text.append(f"{self._signs[line.mark]} ", style=style)
        text.append(f"{line.subject:<{_SUBJECT_WIDTH}}", style="cyan")
        text.append(first, style=style)
        self._console.print(text)
        for other in others:
            self._console.print(Text(hanging + other, style=style))
