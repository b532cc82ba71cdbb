"""A worker's other end: start it, order something, wait for the answer within a cap."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

_READY_S = 60.0
_ENDING_S = 5.0


class TooLate(Exception):
    """A worker did not answer in time."""

    def __init__(self, waited_s: float) -> None:
        super().__init__(f"no end within {waited_s:.0f} s")
        self.waited_s = waited_s


class Client:
    """One worker. ``before`` gets its pid as soon as it exists."""

    def __init__(self, python: Path, kind: str, *, before: Callable[[int], None]) -> None:
        log = Path(os.environ["LAB_OUT"]) / f"worker-{kind}.log"
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [str(python), "-m", "bench.attach_worker", kind],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )
        self.kind = kind
        self.pid = self._process.pid
        before(self.pid)
        self._received = b""
        self.version: str = self._answer(_READY_S)["ready"]

    def send(self, order: Mapping[str, Any]) -> None:
        """Order something, and do not wait."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        self._process.stdin.flush()

    def ask(self, order: Mapping[str, Any], cap_s: float) -> dict[str, Any]:
        """Order something and wait for its end. Raises: TooLate."""
        self.send(order)
        return self._answer(cap_s)

    def poll(self, cap_s: float = 0.0) -> dict[str, Any] | None:
        """Return the answer to an order that was sent, if it comes in time."""
        try:
            return self._answer(cap_s)
        except TooLate:
            return None

    def kill(self) -> None:
        """End the worker and whatever it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait(_ENDING_S)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def _answer(self, cap_s: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        source = self._process.stdout.fileno()
        began = time.monotonic()
        while b"\n" not in self._received:
            left = began + cap_s - time.monotonic()
            if not select.select([source], [], [], max(0.0, left))[0]:
                raise TooLate(time.monotonic() - began)
            piece = os.read(source, 1 << 16)
            if not piece:
                raise RuntimeError(f"the worker of {self.kind} ended")
            self._received += piece
        line, _, self._received = self._received.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer
