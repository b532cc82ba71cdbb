"""What the demo tells whoever watches, without a word on how it looks."""

from __future__ import annotations

import contextlib
import enum
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol


class Mark(enum.Enum):
    """What a line says about its subject."""

    GOOD = "good"
    BAD = "bad"
    PLAIN = "plain"


@dataclass(frozen=True, slots=True)
class Line:
    """One fact: what it is about, and the words."""

    subject: str
    words: str
    mark: Mark = Mark.PLAIN


class Teller(Protocol):
    """Shows a demo step by step; implemented by the command line."""

    def act(self, title: str) -> None:
        """An act begins."""

    def begin(self, title: str) -> None:
        """A step begins."""

    def end(self, title: str, seconds: float, lines: list[Line]) -> None:
        """The step is done."""

    def fail(self, title: str, seconds: float, lines: list[Line]) -> None:
        """The step failed; why is told at the end of all."""

    def add(self, lines: list[Line]) -> None:
        """More lines to the last step."""


class Say(Protocol):
    """Tell one fact of a step."""

    def __call__(self, subject: str, words: str, mark: Mark = Mark.PLAIN) -> None:
        """Tell it."""


@contextlib.contextmanager
def step(teller: Teller, title: str) -> Iterator[Say]:
    """Tell one step: that it began, what it found, and how long it took."""
    lines: list[Line] = []

    def say(subject: str, words: str, mark: Mark = Mark.PLAIN) -> None:
        lines.append(Line(subject, words, mark))

    began = time.monotonic()
    teller.begin(title)
    try:
        yield say
    except BaseException:
        teller.fail(title, time.monotonic() - began, lines)
        raise
    teller.end(title, time.monotonic() - began, lines)
