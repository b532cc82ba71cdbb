"""A libvirt of a test's own, and what can happen to it."""

from __future__ import annotations

import shutil
import tempfile
import threading
from pathlib import Path

from lunport.bootstrap.demo import libvirt_host
from lunport.core.errors import CommandError
from lunport.core.portal import Portal
from lunport.host.clock import Deadline

_LOOK_S = 0.05
_pause = threading.Event()


class LibvirtHost(libvirt_host.LibvirtHost):
    """One libvirtd and all that it starts, in a folder of its own; ``with`` ends it."""

    def __init__(
        self, uuid: str = "aaaaaaaa-0000-4000-8000-00000000000a", *, listen: Portal | None = None
    ) -> None:
        # Short: a socket's path has 108 bytes at most.
        folder = Path(tempfile.mkdtemp(prefix="lunport-libvirt-", dir="/tmp"))
        super().__init__(folder, uuid, listen=listen)

    def end(self) -> None:
        """End it with its guests, and remove its folder."""
        super().end()
        shutil.rmtree(self.folder, ignore_errors=True)

    def kill_daemon(self) -> None:
        """Kill libvirtd; its guests live on."""
        pid = self.inside("cat", "/run/libvirtd.pid")
        self.inside("kill", "-KILL", pid)
        deadline = Deadline.after(libvirt_host._WAIT_S)
        while self._is_there(pid):
            assert not deadline.has_passed()
            _pause.wait(_LOOK_S)

    def hang_daemon(self) -> None:
        """Stop libvirtd in its tracks, as if it hung."""
        self.inside("kill", "-STOP", self.inside("cat", "/run/libvirtd.pid"))

    def wake_daemon(self) -> None:
        """Let libvirtd go on."""
        self.inside("kill", "-CONT", self.inside("cat", "/run/libvirtd.pid"))

    def kill_guest(self, name: str) -> None:
        """Kill a guest's process."""
        self.inside("kill", "-KILL", self.inside("cat", f"/run/libvirt/qemu/{name}.pid"))

    def _is_there(self, pid: str) -> bool:
        try:
            self.inside("kill", "-0", pid)
        except CommandError:
            return False
        return True
