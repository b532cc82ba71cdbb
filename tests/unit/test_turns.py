"""Requests take turns, and nobody waits for a slow one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from lunport.bootstrap.turns import in_turns


class Recorder:
    """An application that notes how many requests are inside it at once."""

    def __init__(self) -> None:
        self.inside = 0
        self.most = 0
        self.let_go = threading.Event()
        self.entered = threading.Semaphore(0)

    def __call__(self, environ: dict[str, Any], _: Callable[..., Any]) -> Iterable[bytes]:
        """Enter, wait as told, leave."""
        self.inside += 1
        self.most = max(self.most, self.inside)
        self.entered.release()
        if environ.get("waits"):
            assert self.let_go.wait(30)
        self.inside -= 1
        return [b"answer"]


def ask(app: Any, **environ: object) -> threading.Thread:
    """Send a request from a thread of its own."""
    thread = threading.Thread(target=app, args=(environ, None))
    thread.start()
    return thread


def test_one_at_a_time() -> None:
    """While one request has its turn the next one waits for it."""
    recorder = Recorder()
    app = in_turns(recorder, patience_s=30)
    first = ask(app, waits=True)
    assert recorder.entered.acquire(timeout=30)
    others = [ask(app) for _ in range(5)]
    recorder.let_go.set()
    for thread in (first, *others):
        thread.join(30)
    assert recorder.most == 1


def test_a_slow_one_holds_nobody_up() -> None:
    """Who has waited long enough goes on without a turn."""
    recorder = Recorder()
    app = in_turns(recorder, patience_s=0.01)
    slow = ask(app, waits=True)
    assert recorder.entered.acquire(timeout=30)
    assert list(app({}, lambda *_: None)) == [b"answer"]
    recorder.let_go.set()
    slow.join(30)


def test_a_failure_gives_the_turn_back() -> None:
    """The turn of a request that raised is free again."""

    def fail(environ: dict[str, Any], _: Callable[..., Any]) -> Iterable[bytes]:
        if environ.get("fails"):
            raise ValueError("on purpose")
        return [b"answer"]

    app = in_turns(fail, patience_s=30)
    with pytest.raises(ValueError, match="on purpose"):
        app({"fails": True}, lambda *_: None)
    assert list(app({}, lambda *_: None)) == [b"answer"]
