"""QEMU's built-in initiator (libiscsi), played through ``qemu-io``: an oracle that is not ours.

A :class:`QemuSession` logs in and stays until it is closed. The secret goes by a file of mode
0600, never by an argv. libiscsi comes back by itself when its session is dropped, so closing
a session whose target is gone means KILL.
"""

from __future__ import annotations

import os
import select
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

from lunport.core.chap import ChapCredentials
from lunport.core.iqn import Iqn
from lunport.core.portal import Portal
from lunport.host.clock import Deadline

_PROMPT = b"qemu-io> "


class QemuRefusedError(Exception):
    """QEMU could not log in; its words are the text."""


class QemuSession:
    """One session of QEMU's initiator with one logical unit."""

    def __init__(
        self,
        folder: Path,
        portal: Portal,
        target: Iqn,
        initiator: Iqn,
        credentials: ChapCredentials | None = None,
        lun: int = 1,
    ) -> None:
        """Log in. Raises: QemuRefusedError."""
        options = [
            "driver=raw,discard=unmap,cache.direct=on",
            "file.driver=iscsi,file.transport=tcp",
            f"file.portal={portal},file.target={target},file.lun={lun}",
            f"file.initiator-name={initiator}",
        ]
        argv = ["qemu-io", "--cache", "none"]
        if credentials is not None:
            secret = folder / f"secret-{os.getpid()}"
            secret.touch(mode=0o600)
            secret.write_text(credentials.password.reveal())
            argv += ["--object", f"secret,id=chap,file={secret}"]
            options.append(f"file.user={credentials.username},file.password-secret=chap")
        argv += ["--image-opts", ",".join(options)]
        self._child = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        try:
            self._until_prompt(Deadline.after(20))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def run(self, command: str, deadline_s: float = 20.0) -> str:
        """Give one qemu-io command and return what it says."""
        assert self._child.stdin is not None
        self._child.stdin.write(command.encode() + b"\n")
        self._child.stdin.flush()
        return self._until_prompt(Deadline.after(deadline_s))

    def close(self) -> None:
        """End it at once and reap it."""
        self._child.kill()
        for stream in (self._child.stdin, self._child.stdout):
            if stream is not None:
                stream.close()
        self._child.wait()

    def log_out(self) -> None:
        """End it as QEMU ends: with a logout."""
        assert self._child.stdin is not None
        self._child.stdin.write(b"quit\n")
        self._child.stdin.flush()
        self._child.wait(20)
        self.close()

    def _until_prompt(self, deadline: Deadline) -> str:
        assert self._child.stdout is not None
        descriptor = self._child.stdout.fileno()
        said = b""
        while not said.endswith(_PROMPT):
            if not select.select([descriptor], [], [], deadline.remaining_s())[0]:
                raise TimeoutError(f"qemu-io said only {said!r}")
            block = os.read(descriptor, 65536)
            if not block:
                raise QemuRefusedError(said.decode(errors="replace"))
            said += block
        return said.removesuffix(_PROMPT).decode(errors="replace")
