"""A tiny real guest: an installed kernel, busybox, and a process that writes a log to each disk.

The log is of numbered, chained, checksummed blocks (``tiny_guest/log_writer.c``); :class:`GuestLog`
says how far one goes, and fails where it is damaged. What the guest boots from is made once in a
folder and kept there. The tests use the same guest.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import struct
import threading
from dataclasses import dataclass
from pathlib import Path

from lunport.bootstrap.demo.needs import GUEST_MODULES, PACKAGES
from lunport.core.errors import HostLacks, PromiseBroken
from lunport.host.clock import Deadline
from lunport.host.cpio import cpio_archive
from lunport.host.linux_kernel import (
    find_kernel,
    module_files,
    plain_name,
    read_module,
    unpacked_image,
)
from lunport.host.runner import find_program, run

_SOURCE = Path(__file__).parent / "tiny_guest"
_EMULATOR = _SOURCE / "qemu-odd-memory"
_FOLDERS = ("bin", "dev", "proc", "sys", "modules")
_BLOCK = 4096
_MARK = 0x474F4C54524F504E
_PRIME = 0x100000001B3
_ALL = (1 << 64) - 1
_LOOK_S = 0.02
_pause = threading.Event()
_PROMISE = "The guest's log is whole"


@dataclass(frozen=True, slots=True)
class TinyGuest:
    """What a hypervisor boots, and the emulator that survives its move (see the file)."""

    kernel: Path
    initrd: Path
    emulator: Path

    def domain_xml(self, name: str, uuid: str, console: Path, *, pause_us: int = 20000) -> str:
        """Define a guest without a disk; its console goes to a file.

        ``pause_us``: how long it rests between two blocks of a log.
        """
        command = f"console=ttyS0 quiet panic=-1 log.pause_us={pause_us}"
        return f"""<domain type='qemu'>
  <name>{name}</name>
  <uuid>{uuid}</uuid>
  <memory unit='MiB'>192</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='pc'>hvm</type>
    <kernel>{self.kernel}</kernel>
    <initrd>{self.initrd}</initrd>
    <cmdline>{command}</cmdline>
  </os>
  <features><acpi/></features>
  <on_reboot>destroy</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <emulator>{self.emulator}</emulator>
    <controller type='usb' model='none'/>
    <controller type='scsi' model='virtio-scsi'/>
    <serial type='file'><source path='{console}'/><target port='0'/></serial>
    <memballoon model='none'/>
  </devices>
</domain>
"""


def build_tiny_guest(folder: Path, deadline: Deadline) -> TinyGuest:
    """Return what the guest boots from, made in the folder now unless it is there.

    Raises: HostLacks, CommandMissing, CommandError (the compiler).
    """
    kernel = find_kernel(GUEST_MODULES)
    busybox = (find_program("busybox") or Path("/bin/busybox")).read_bytes()
    if b"/ld-linux" in busybox[:4096]:
        how = f"apt-get install {PACKAGES['busybox']}"
        raise HostLacks("This busybox needs libraries", "a guest has none", how)
    parts = [busybox, *((_SOURCE / name).read_bytes() for name in ("init", "log_writer.c"))]
    mark = hashlib.sha256(b"".join([kernel.version.encode(), *parts])).hexdigest()[:16]
    initrd = folder / f"initrd-{mark}.cpio"
    folder.mkdir(parents=True, exist_ok=True)
    if not initrd.exists():
        files = module_files(kernel, GUEST_MODULES)
        names = [plain_name(path).rpartition("/")[2] for path in _in_order(files)]
        entries = [(name, stat.S_IFDIR | 0o755, b"") for name in _FOLDERS]
        entries += [
            ("bin/busybox", stat.S_IFREG | 0o755, busybox),
            ("init", stat.S_IFREG | 0o755, parts[1]),
            ("log_writer", stat.S_IFREG | 0o755, _compile(folder, deadline)),
            ("modules/order", stat.S_IFREG | 0o644, "".join(f"{n}\n" for n in names).encode()),
        ]
        for path, name in zip(_in_order(files), names, strict=True):
            entries.append((f"modules/{name}", stat.S_IFREG | 0o644, read_module(kernel, path)))
        _keep(initrd, cpio_archive(entries))
    content = _EMULATOR.read_bytes()
    emulator = folder / f"{_EMULATOR.name}-{hashlib.sha256(content).hexdigest()[:16]}"
    if not emulator.exists():
        _keep(emulator, content, mode=0o755)
    return TinyGuest(unpacked_image(kernel, folder), initrd, emulator)


def _keep(file: Path, content: bytes, *, mode: int = 0o644) -> None:
    new = file.with_name(f".{file.name}.{os.getpid()}")
    new.write_bytes(content)
    new.chmod(mode)
    new.replace(file)


def _compile(folder: Path, deadline: Deadline) -> bytes:
    program = folder / f".log_writer.{os.getpid()}"
    argv = ["gcc", "-O2", "-static", "-o", str(program), str(_SOURCE / "log_writer.c")]
    run(argv, deadline, package=PACKAGES["gcc"])
    content = program.read_bytes()
    program.unlink()
    return content


def _in_order(files: dict[str, tuple[str, ...]]) -> list[str]:
    """Order modules so that each comes behind all that it needs."""
    done: list[str] = []

    def take(path: str) -> None:
        if path not in done:
            for need in files[path]:
                take(need)
            done.append(path)

    for path in files:
        take(path)
    return done


class GuestLog:
    """A disk's log that is read while it grows: each block once."""

    def __init__(self, image: Path) -> None:
        self._image = image
        self._count = 0
        self._before = 0

    def read(self) -> int:
        """Go on reading, and return how many blocks there are.

        Raises: PromiseBroken where one is damaged, lost or out of order, or there is one too many.
        """
        with self._image.open("rb") as file:
            file.seek(self._count * _BLOCK)
            while len(block := file.read(_BLOCK)) == _BLOCK:
                words = struct.unpack(f"<{_BLOCK // 8}Q", block)
                if words[0] != _MARK:
                    break
                count = self._count
                _expect(words[1] == count, f"block {count} says that it is {words[1]}")
                _expect(words[2] == self._before, f"block {count} does not follow the one before")
                _expect(words[-1] == _sum(words), f"block {count} is damaged")
                self._before = words[-1]
                self._count += 1
            _expect(not any(block), f"there is something behind the last of {self._count} blocks")
            behind = _next_data(file.fileno(), (self._count + 1) * _BLOCK)
            if behind is not None:
                file.seek(behind)
                _expect(not any(file.read(_BLOCK)), f"there is something at {behind}")
        return self._count

    def read_growing(self, deadline: Deadline) -> int:
        """Read it while it is written: its last block may be half there at the first look."""
        while not deadline.has_passed():
            with contextlib.suppress(PromiseBroken):
                return self.read()
            _pause.wait(_LOOK_S)
        return self.read()


def read_log(image: Path) -> int:
    """Return how many blocks a disk's log has, all of it read anew. Raises: PromiseBroken."""
    return GuestLog(image).read()


def read_growing_log(image: Path, deadline: Deadline) -> int:
    """Read all of a log while it is written. Raises: PromiseBroken."""
    return GuestLog(image).read_growing(deadline)


def _expect(is_so: bool, otherwise: str) -> None:
    if not is_so:
        raise PromiseBroken(_PROMISE, otherwise)


def _next_data(descriptor: int, offset: int) -> int | None:
    """Return where the next bytes of a sparse file are that were ever written."""
    try:
        return os.lseek(descriptor, offset, os.SEEK_DATA)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return None


def _sum(words: tuple[int, ...]) -> int:
    found = _MARK
    for word in words[:-1]:
        found ^= word
        found = found * _PRIME & _ALL
        found ^= found >> 29
    return found
