"""The all-in-one service of the demo: ``lunport serve`` as a process of its own."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import lunport
from lunport.client.block_storage import BlockStorage
from lunport.core.errors import VolumeApiUnavailable
from lunport.core.portal import Portal
from lunport.host import runner
from lunport.host.clock import Deadline
from lunport.host.host_root import ENVIRONMENT_VARIABLE
from lunport.host.tgtd import OwnTgtd
from lunport.targets.helper import TargetHelper
from lunport.targets.tgt import TgtHelper

BACKEND = "files"
LISTEN = "127.0.0.1:8776"
_START = "from lunport.cli.main import main; main()"
_LOOK_S = 0.02


@dataclass(frozen=True, slots=True)
class Places:
    """Where the demo keeps what, below its one folder."""

    folder: Path

    @property
    def service_data(self) -> Path:
        """The service's data directory."""
        return self.folder / "service"

    @property
    def host_root(self) -> Path:
        """What a host's processes share: remembered portals, secrets in passing."""
        return self.folder / "host"

    @property
    def images(self) -> Path:
        """Where the file driver keeps volumes."""
        return self.service_data / "backends" / BACKEND / "images"

    @property
    def target(self) -> Path:
        """Where the tgt helper keeps its daemon's socket and log."""
        return self.service_data / "backends" / BACKEND / "target"


@dataclass(frozen=True, slots=True)
class ForHosts:
    """Where the agents of hosts are answered, and the folder of the service's certificate."""

    listen: str
    tls: Path


class DemoService:
    """The service as the demo starts, asks and ends it."""

    def __init__(
        self, places: Places, portals: Sequence[Portal], *, for_hosts: ForHosts | None = None
    ) -> None:
        """Describe it. ``for_hosts``: it answers agents as well, each host with a target."""
        self.client = BlockStorage(f"http://{LISTEN}")
        self.places = places
        self.portals = tuple(portals)
        self._for_hosts = for_hosts
        self._log = places.folder / "service.log"
        self._process: runner.Daemon | None = None

    def start(self, deadline: Deadline) -> None:
        """Start it and wait until it answers. Raises: VolumeApiUnavailable."""
        self.places.folder.mkdir(exist_ok=True)
        config = self.places.folder / "lunport.toml"
        config.write_text(self._config())
        with self._log.open("ab") as log:
            self._process = runner.start(
                [
                    sys.executable, "-c", _START,
                    "serve",
                    "--config", config,
                    "--data-dir", self.places.service_data,
                ],
                output=log,
                environment={
                    "PYTHONPATH": str(Path(lunport.__file__).parents[1]),
                    ENVIRONMENT_VARIABLE: str(self.places.host_root),
                },
            )  # fmt: skip
        pause = threading.Event()
        while not self.client.is_up(deadline):
            status = self._process.poll()
            if status is not None:
                detail = f"lunport serve ended with status {status}"
                raise VolumeApiUnavailable(f"{detail}: {self.last_words()}")
            if deadline.has_passed():
                detail = f"lunport serve did not answer within {deadline.budget_s:.0f} s"
                raise VolumeApiUnavailable(f"{detail}: {self.last_words()}")
            pause.wait(_LOOK_S)

    def stop(self, deadline: Deadline) -> int:
        """End it as an operator does, and return its exit status. Raises: VolumeApiUnavailable."""
        if self._process is None:
            return 0
        self.client.close()
        self._process.terminate()
        pause = threading.Event()
        while (status := self._process.poll()) is None:
            if deadline.has_passed():
                detail = f"lunport serve did not end within {deadline.budget_s:.0f} s of SIGTERM"
                raise VolumeApiUnavailable(f"{detail}: {self.last_words()}")
            pause.wait(_LOOK_S)
        return status

    def target_helper(self) -> TargetHelper:
        """Look at the service's tgtd past the service."""
        return TgtHelper(OwnTgtd(self.places.target, self.portals))

    def last_words(self) -> str:
        """Return the last line of its log."""
        with contextlib.suppress(OSError):
            lines = self._log.read_text(errors="replace").strip().splitlines()
            if lines:
                return lines[-1]
        return "it said nothing"

    def _config(self) -> str:
        portals = ", ".join(f'"{portal}"' for portal in self.portals)
        service = backend = ""
        if self._for_hosts is not None:
            service = f'tls = "{self._for_hosts.tls}"\ntls_listen = "{self._for_hosts.listen}"\n'
            backend = 'export = "target_per_host"\n'
        return (
            f'[service]\nlisten = "{LISTEN}"\nhost = "demo"\n{service}\n'
            f'[backend.{BACKEND}]\ndriver = "file"\nhelper = "tgt"\n{backend}'
            f'portals = [{portals}]\nportal_order = "fixed"\n'
        )
