"""A tiny real guest: Debian's kernel, busybox, and a process that writes a log to each disk.

The log is of numbered, chained, checksummed blocks (``tiny_guest/log_writer.c``); :func:`read_log`
says how far one goes, and fails where it is damaged. Built once for all tests, in ``.cache``.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

from lab.initramfs import cpio_archive
from lab.kernels import find_kernel, module_files, plain_name, read_module, unpacked_image

_HERE = Path(__file__).parent / "tiny_guest"
_CACHE = Path(__file__).parents[2] / ".cache" / "tiny-guest"
_MODULES = ("virtio_pci", "virtio_blk", "virtio_scsi", "sd_mod")
_FOLDERS = ("bin", "dev", "proc", "sys", "modules")
_BLOCK = 4096
_MARK = 0x474F4C54524F504E
_PRIME = 0x100000001B3
_ALL = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class TinyGuest:
    """What a hypervisor boots."""

    kernel: Path
    initrd: Path

    def domain_xml(self, name: str, uuid: str, console: Path, *, pause_us: int = 20000) -> str:
        """Define a guest without a disk; its console goes to a file."""
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
    <emulator>{shutil.which("qemu-system-x86_64")}</emulator>
    <controller type='usb' model='none'/>
    <controller type='scsi' model='virtio-scsi'/>
    <serial type='file'><source path='{console}'/><target port='0'/></serial>
    <memballoon model='none'/>
  </devices>
</domain>
"""


def build_tiny_guest() -> TinyGuest:
    """Return kernel and initramfs, made now unless they are kept."""
    kernel = find_kernel()
    busybox = Path(shutil.which("busybox") or "/bin/busybox").read_bytes()
    sources = b"".join((_HERE / name).read_bytes() for name in ("init", "log_writer.c"))
    mark = hashlib.sha256(kernel.version.encode() + busybox + sources).hexdigest()[:16]
    initrd = _CACHE / f"initrd-{mark}.cpio"
    if not initrd.exists():
        _CACHE.mkdir(parents=True, exist_ok=True)
        files = module_files(kernel, _MODULES)
        names = [plain_name(path).rpartition("/")[2] for path in _in_order(files)]
        entries = [(folder, stat.S_IFDIR | 0o755, b"") for folder in _FOLDERS]
        entries += [
            ("bin/busybox", stat.S_IFREG | 0o755, busybox),
            ("init", stat.S_IFREG | 0o755, (_HERE / "init").read_bytes()),
            ("log_writer", stat.S_IFREG | 0o755, _compile()),
            ("modules/order", stat.S_IFREG | 0o644, "".join(f"{n}\n" for n in names).encode()),
        ]
        for path, name in zip(_in_order(files), names, strict=True):
            entries.append((f"modules/{name}", stat.S_IFREG | 0o644, read_module(kernel, path)))
        new = _CACHE / f".{initrd.name}.{os.getpid()}"
        new.write_bytes(cpio_archive(entries))
        new.replace(initrd)
    return TinyGuest(unpacked_image(kernel, _CACHE), initrd)


def _compile() -> bytes:
    program = _CACHE / f".log_writer.{os.getpid()}"
    argv = ["gcc", "-O2", "-static", "-o", str(program), str(_HERE / "log_writer.c")]
    subprocess.run(argv, check=True, capture_output=True)
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


def read_log(image: Path) -> int:
    """Return how many blocks a disk's log has. Fails where one is damaged, lost or out of order."""
    count, before = 0, 0
    with image.open("rb") as file:
        while len(block := file.read(_BLOCK)) == _BLOCK:
            words = struct.unpack(f"<{_BLOCK // 8}Q", block)
            if words[0] != _MARK:
                break
            assert words[1] == count, f"block {count} says that it is {words[1]}"
            assert words[2] == before, f"block {count} does not follow the one before"
            assert words[-1] == _sum(words), f"block {count} is damaged"
            before = words[-1]
            count += 1
        assert not any(block), f"there is something behind the last of {count} blocks"
        behind = _next_data(file.fileno(), (count + 1) * _BLOCK)
        if behind is not None:
            file.seek(behind)
            assert not any(file.read(_BLOCK)), f"there is something at {behind}"
    return count


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
