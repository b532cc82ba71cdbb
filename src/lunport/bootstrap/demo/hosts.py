"""A compute host of the demo: a libvirt, an agent, and commands, all of one machine.

Each has a name, an initiator, folders and a certificate of its own: its agent and its commands run
in mounts in which it is called so, its libvirt and guests in namespaces of theirs.
"""

from __future__ import annotations

import json
import sys
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import lunport
from lunport.bootstrap.demo.libvirt_host import LibvirtHost
from lunport.core.errors import AgentUnavailable, CommandError, PromiseBroken
from lunport.core.portal import Portal
from lunport.host import runner
from lunport.host.clock import Deadline
from lunport.host.host_root import ENVIRONMENT_VARIABLE
from lunport.pki.authority import init_authority, issue, parse_holder

_LUNPORT = (sys.executable, "-c", "from lunport.cli.main import main; main()")
_AGENT_PORT = 8778
_LIBVIRT_PORT = 16509
_LOOK_S = 0.02
_DAYS = 2
# The initiator's name is read from one place; what is there belongs to the machine.
_AS = """
set -e
mount -t tmpfs tmpfs /etc/iscsi
echo "InitiatorName=$1" >/etc/iscsi/initiatorname.iscsi
hostname "$0"
shift
exec "$@"
"""


@dataclass(frozen=True, slots=True)
class Certificates:
    """An authority of the demo's own, below a folder."""

    folder: Path

    def make(self) -> None:
        """Make the authority, as ``lunport pki init`` does."""
        init_authority(self.folder / "authority", "Demo", _DAYS, datetime.now(UTC))

    def issue(self, host: str, address: str) -> Path:
        """Make a host's certificate, as ``lunport pki issue`` does; return its folder."""
        made = self.folder / host
        holder = parse_holder([host], [address])
        issue(self.folder / "authority", made, holder, _DAYS, datetime.now(UTC))
        return made


class DemoHost:
    """One host as the demo starts, asks and ends it."""

    def __init__(self, folder: Path, name: str, address: str, tls: Path, endpoint: str) -> None:
        """Describe it. ``endpoint``: where the service answers agents; ``tls``: its folder."""
        self.name = name
        self.initiator = f"iqn.2026-11.io.lunport:{name}"
        self.at = str(Portal(address, _AGENT_PORT))
        self._folder = folder
        self._tls = tls
        number = sum(name.encode())
        listen = Portal(address, _LIBVIRT_PORT)
        self.libvirt = LibvirtHost(
            folder / "libvirt", f"{number:08}-0000-4000-8000-00000000000a", listen=listen
        )
        self._agent: runner.Daemon | None = None
        self._log = folder / "agent.log"
        self._environment = {
            "PYTHONPATH": str(Path(lunport.__file__).parents[1]),
            ENVIRONMENT_VARIABLE: str(folder),
            "LUNPORT_TLS": str(tls),
            "LUNPORT_LIBVIRT": self.libvirt.uri,
            "OS_ENDPOINT": endpoint,
        }

    def start(self, deadline: Deadline) -> None:
        """Start its libvirt and its agent, and wait until both answer.

        Raises: HostLacks, AgentUnavailable.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        self.libvirt.start()
        words = ["agent", "--listen", self.at, "--tls", str(self._tls), "--host-name", self.name]
        words += ["--libvirt", self.libvirt.uri, "--migration-uri", self.libvirt.migration_uri]
        with self._log.open("ab") as log:
            self._agent = runner.start(
                self._as_here(*words), output=log, environment=self._environment
            )
        pause = threading.Event()
        while "agent listens on" not in self._said():
            if self._agent.poll() is not None or deadline.has_passed():
                raise AgentUnavailable(f"lunport agent does not start: {self._said().strip()}")
            pause.wait(_LOOK_S)

    def run(self, *words: str, deadline: Deadline) -> Any:  # noqa: ANN401 - a command's JSON
        """Run a command of Lunport on the host; return what it says. Raises: PromiseBroken."""
        argv = self._as_here(*words, "-o", "json")
        try:
            done = runner.run(argv, deadline, environment=self._environment)
        except CommandError as error:
            command = f"lunport {' '.join(words[:2])}"
            raise PromiseBroken(f"{command} does it", error.stderr.strip()) from error
        return json.loads(done.stdout)

    def end(self, deadline: Deadline) -> None:
        """End agent and libvirt, and with it every guest. Idempotent."""
        if self._agent is not None and self._agent.poll() is None:
            self._agent.terminate()
            self._agent.wait(max(0.1, deadline.remaining_s()))
        self.libvirt.end()

    def _said(self) -> str:
        return self._log.read_text(errors="replace")

    def _as_here(self, *words: str) -> list[str]:
        shell = ["sh", "-c", _AS, self.name, self.initiator]
        return ["unshare", "--mount", "--uts", *shell, *_LUNPORT, *words]
