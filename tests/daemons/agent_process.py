"""``lunport agent`` as a process of its own, and the commands beside it on the same host."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lunport.host.host_root import ENVIRONMENT_VARIABLE

WAIT_S = 150.0
LUNPORT = [sys.executable, "-c", "from lunport.cli.main import main; main()"]


class AgentProcess:
    """The agent of a host whose folders are a test's own, and the commands beside it.

    ``prefix``: a program that each of them is started by.
    """

    def __init__(self, folder: Path, prefix: Sequence[str] = ()) -> None:
        self.folder = folder
        self.prefix = tuple(prefix)
        self.path = folder / "run" / "agent.sock"
        self.log = folder / "log"
        self.process: subprocess.Popen[str] | None = None
        self.environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            ENVIRONMENT_VARIABLE: str(folder),
        }

    def start(self, *options: str) -> None:
        """Start it and wait until it says that it listens."""
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [*self.prefix, *LUNPORT, "agent", *options],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=self.environment,
            )
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], WAIT_S)
        said = self.process.stdout.readline() if ready else ""
        assert str(self.path) in said, said + self.log.read_text()

    def end(self, signum: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; return the exit status."""
        assert self.process is not None
        self.process.send_signal(signum)
        with self.process:
            return self.process.wait(WAIT_S)

    def send(self, signum: signal.Signals) -> None:
        """Send it a signal, and wait for nothing."""
        assert self.process is not None
        self.process.send_signal(signum)

    def run(self, *words: str, text: str = "") -> tuple[int, str, str]:
        """Run a command of this host; return its status and what it said."""
        done = subprocess.run(
            [*self.prefix, *LUNPORT, *words],
            env=self.environment,
            input=text,
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    def launch(self, *words: str) -> subprocess.Popen[str]:
        """Start a command of this host, and wait for nothing."""
        return subprocess.Popen(
            [*self.prefix, *LUNPORT, *words],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def ask(self, method: str, target: str, body: object = None) -> tuple[int, Any]:
        """Make one request without our client."""

        class Connection(http.client.HTTPConnection):
            def connect(one) -> None:  # noqa: N805
                one.sock = self.connection()

        with contextlib.closing(Connection("localhost")) as connection:
            connection.request(method, target, None if body is None else json.dumps(body))
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())

    def connection(self) -> socket.socket:
        """Connect, and say nothing."""
        one = socket.socket(socket.AF_UNIX)
        one.settimeout(WAIT_S)
        one.connect(str(self.path))
        return one
