"""``lunport serve`` as a process of its own, and the few requests that tests make of it."""

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
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from lunport.host.clock import Deadline
from lunport.host.process import open_process
from tests.daemons.conftest import free_portals

INITIATOR = "iqn.2026-11.io.lunport.test:service"
WAIT_S = 30.0
_LOOK_S = 0.02
_COMMAND = [sys.executable, "-c", "from lunport.cli.main import main; main()", "serve"]
_pause = threading.Event()

Answer = tuple[int, Any]


class ServiceProcess:
    """One service: its folder, ports, process and log. ``with`` ends it and its daemon."""

    def __init__(
        self,
        folder: Path,
        *,
        service: str = "",
        backend: str = "",
        listen: str = "",
        data_dir: Path | None = None,
        options: Sequence[str] = (),
        start_s: float = WAIT_S,
        wait_s: float = WAIT_S,
    ) -> None:
        """Describe it; ``wait_s`` is for an answer, a status, and its end."""
        address, *self.portals = free_portals("127.0.0.1", "127.0.0.1", "127.0.0.2")
        folder.mkdir(parents=True, exist_ok=True)
        self.data_dir = data_dir or folder / "data"
        self.images = self.data_dir / "backends" / "local" / "images"
        self.target = self.data_dir / "backends" / "local" / "target"
        self.log = folder / "log"
        self._options = tuple(options)
        self._start_s = start_s
        self._wait_s = wait_s
        self._address = (address.host, address.port)
        self._listen = listen or str(address)
        self._config = folder / "lunport.toml"
        self._common = (
            f"[service]\n{service}\n"
            f"[backend.local]\nportals = {json.dumps([str(portal) for portal in self.portals])}\n"
        )
        self.configure(backend)
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    @property
    def process(self) -> subprocess.Popen[str]:
        """The process that was started last."""
        assert self._process is not None
        return self._process

    @property
    def endpoint(self) -> str:
        """Where it answers."""
        return "http://{}:{}".format(*self._address)

    @property
    def log_text(self) -> str:
        """What it has logged."""
        return self.log.read_text(errors="replace")

    # -- coming and going ----------------------------------------------------------------

    def configure(self, backend: str) -> None:
        """Say how the backend is, from its next start on."""
        self._config.write_text(f"{self._common}{backend}\n")

    def launch(self, prefix: Sequence[str] = (), environment: Mapping[str, str] = {}) -> None:
        """Start the process and wait for nothing."""
        arguments = ["--config", str(self._config), "--data-dir", str(self.data_dir)]
        arguments += self._options
        with self.log.open("a") as log:
            self._process = subprocess.Popen(
                [*prefix, *_COMMAND, *arguments, "--listen", self._listen],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
            )

    def start(self, prefix: Sequence[str] = (), environment: Mapping[str, str] = {}) -> None:
        """Start the process and wait until it serves."""
        self.launch(prefix, environment)
        said = self.first_line()
        assert "serving Block Storage v3" in said, f"{said}\n{self.log_text}"

    def first_line(self) -> str:
        """Wait for what it says first."""
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], self._start_s)
        return self.process.stdout.readline() if ready else ""

    def refusal(self, prefix: Sequence[str] = ()) -> tuple[int, str]:
        """Start a process that shall not serve; return its exit status and what it says."""
        self.launch(prefix)
        try:
            assert self.first_line() == ""
            return self.wait(), self.log_text
        finally:
            self.end()

    def send(self, signum: signal.Signals) -> None:
        """Send the service a signal."""
        self.process.send_signal(signum)

    def wait(self) -> int:
        """Wait for the end; return the exit status."""
        status = self.process.wait(self._wait_s)
        if self.process.stdout is not None:
            self.process.stdout.close()
        return status

    def stop(self, signum: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; return the exit status."""
        self.send(signum)
        return self.wait()

    def tgtd(self) -> int:
        """Return the id of its target daemon."""
        pid: int = json.loads((self.target / "tgtd.json").read_text())["pid"]
        return pid

    def end(self) -> None:
        """Leave no process."""
        if self._process is not None and self._process.poll() is None:
            self.stop(signal.SIGKILL)
        elif self._process is not None and self._process.stdout is not None:
            self._process.stdout.close()
        with contextlib.suppress(OSError, ValueError):
            daemon = open_process(self.tgtd(), "tgtd")
            if daemon is not None:
                with daemon:
                    daemon.kill()
                    daemon.wait(Deadline.after(self._wait_s))

    # -- requests ------------------------------------------------------------------------

    def ask(self, method: str, path: str, body: object = None, *, token: str = "") -> Answer:
        """Make one request below ``/v3``; return status and body."""
        with contextlib.closing(
            http.client.HTTPConnection(*self._address, timeout=self._wait_s)
        ) as one:
            return _ask(one, method, path, body, token)

    def create(self, **source: str) -> str:
        """Make a volume of 1 GiB, and wait until it is made or refused."""
        body = {"volume": {"size": 1, **source}}
        status, answer = self.ask("POST", "/p/volumes", body)
        assert status == 202, answer
        self.until(answer["volume"]["id"], "available", "error")
        identifier: str = answer["volume"]["id"]
        return identifier

    def status_of(self, volume: str) -> str:
        """Return a volume's status; ``gone`` when there is none."""
        status, answer = self.ask("GET", f"/p/volumes/{volume}")
        return "gone" if status == 404 else str(answer["volume"]["status"])

    def until(self, volume: str, *wanted: str) -> str:
        """Wait for one of these statuses."""
        deadline = Deadline.after(self._wait_s)
        while (status := self.status_of(volume)) not in wanted:
            assert not deadline.has_passed(), f"{volume} is {status}\n{self.log_text}"
            _pause.wait(_LOOK_S)
        return status

    def connect(self, volume: str) -> Answer:
        """Ask for a connection of a host."""
        connector = {"initiator": INITIATOR, "host": "h"}
        action = {"os-initialize_connection": {"connector": connector}}
        return self.ask("POST", f"/p/volumes/{volume}/action", action)

    def until_connected(self, volume: str) -> None:
        """Ask for a connection until there is one."""
        deadline = Deadline.after(self._wait_s)
        while (answer := self.connect(volume))[0] != 200:
            assert not deadline.has_passed(), f"{answer}\n{self.log_text}"
            _pause.wait(_LOOK_S)

    def until_logged(self, words: str) -> None:
        """Wait until the log holds these words."""
        deadline = Deadline.after(self._wait_s)
        while words not in self.log_text:
            assert not deadline.has_passed(), self.log_text
            _pause.wait(_LOOK_S)

    def silent_connections(
        self, stack: contextlib.ExitStack, count: int, saying: bytes = b""
    ) -> None:
        """Open connections that say no more than that."""
        for _ in range(count):
            one = stack.enter_context(socket.create_connection(self._address, WAIT_S))
            one.sendall(saying)


def ask_at(path: Path) -> int:
    """Ask the service at a unix socket for its versions; return the HTTP status."""

    class Connection(http.client.HTTPConnection):
        def connect(self) -> None:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(WAIT_S)
            self.sock.connect(str(path))

    with contextlib.closing(Connection("localhost")) as connection:
        return _ask(connection, "GET", "", None, "")[0]


def _ask(
    connection: http.client.HTTPConnection, method: str, path: str, body: object, token: str
) -> Answer:
    headers = {"OpenStack-API-Version": "volume 3.71", "Content-Type": "application/json"}
    if token:
        headers["X-Auth-Token"] = token
    content = None if body is None else json.dumps(body)
    connection.request(method, f"/v3{path}", content, headers)
    answer = connection.getresponse()
    said = answer.read()
    return answer.status, json.loads(said) if said else None
