"""Start and stop the service that is measured: as an operator would, in a folder of its own."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from bench.processes import program_of

_START_S = 30.0
_LOOK_S = 0.002
_CONFIG = """\
[backend.local]
over_subscription_ratio = 10000.0
portals = ["127.0.0.1", "127.0.0.2", "127.0.0.3"]
"""


class NotStarted(Exception):
    """The service did not come up."""


class MeasuredService:
    """One data directory, and the process that serves it while it runs."""

    def __init__(
        self, program: Path, folder: Path, backend: str = "", *, start_s: float = _START_S
    ) -> None:
        self.folder = folder
        self._start_s = start_s
        self.port = _free_port()
        self._program = program
        self._config = folder.with_suffix(".toml")
        self._log = folder.with_suffix(".log")
        self._config.write_text(f"{_CONFIG}{backend}\n")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> float:
        """Start it; return the seconds from there to its first answer."""
        command = [
            str(self._program), "serve", "--config", str(self._config),
            "--data-dir", str(self.folder), "--listen", f"127.0.0.1:{self.port}",
        ]  # fmt: skip
        with self._log.open("ab") as log:
            begin = time.perf_counter()
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        while time.perf_counter() - begin < self._start_s:
            if self._answers():
                return time.perf_counter() - begin
            if self._process.poll() is not None:
                break
            time.sleep(_LOOK_S)
        raise NotStarted(f"{' '.join(command)}: {self._log.read_text()[-2000:]}")

    def stop(self) -> None:
        """Stop it; its target daemon stays while there are exports."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(self._start_s)
            self._process = None

    def end(self) -> None:
        """Stop it, and its target daemon."""
        self.stop()
        self.kill_target_daemons()

    def kill_target_daemons(self) -> None:
        """End the target daemons, as a reboot would."""
        for pid in self._daemons():
            if program_of(pid) == "tgtd":
                handle = os.pidfd_open(pid)
                try:
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
                    _wait_for_end(pid)
                finally:
                    os.close(handle)

    def pids(self) -> list[int]:
        """Return the service's process, and those of its target daemons."""
        own = [] if self._process is None else [self._process.pid]
        return own + [pid for pid in self._daemons() if program_of(pid) == "tgtd"]

    def _daemons(self) -> Iterator[int]:
        # A target daemon outlives the service, so it is no child; the service notes its pid.
        for record in self.folder.glob("backends/*/target/tgtd.json"):
            yield json.loads(record.read_text())["pid"]

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_START_S)
        with contextlib.closing(connection):
            try:
                connection.request("GET", "/v3/")
                return connection.getresponse().status == 200
            except (OSError, http.client.HTTPException):
                return False


def _wait_for_end(pid: int) -> None:
    end = time.monotonic() + _START_S
    while program_of(pid) == "tgtd" and time.monotonic() < end:
        time.sleep(_LOOK_S)


def _free_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        port: int = trial.getsockname()[1]
        return port
