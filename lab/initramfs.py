"""Build the small initramfs that mounts the machine's root in the guest, and keep it.

Static busybox, the few modules that the shares need, and ``guest/initramfs-init``: about 4 MiB,
not compressed, as unpacking costs an emulated machine more than reading. Kept under a name made
from all it consists of, so that a new kernel or a changed script gets a new one.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from lab.errors import LabCannot
from lunport.host.cpio import Entry, cpio_archive
from lunport.host.linux_kernel import Kernel, module_files, plain_name, read_module

_SCRIPT = Path(__file__).parent / "guest" / "initramfs-init"
_MODULES = ("virtio_pci", "virtio_console", "virtio_rng", "9pnet_virtio", "9p", "overlay")
_FOLDERS = ("bin", "proc", "sys", "dev", "lower", "upper", "root", "lib", "lib/modules")


def initramfs_for(kernel: Kernel, cache: Path) -> Path:
    """Return the initramfs of this kernel, made now unless it is in ``cache``."""
    busybox = shutil.which("busybox", path=f"{os.environ.get('PATH', '')}:/bin:/usr/bin")
    if busybox is None:
        raise LabCannot("no busybox (Debian: busybox-static)")
    kept = cache / f"initramfs-{_digest(kernel, Path(busybox))}.cpio"
    if not kept.exists():
        cache.mkdir(parents=True, exist_ok=True)
        new = cache / f".{kept.name}.{os.getpid()}"
        new.write_bytes(cpio_archive(_entries(kernel, Path(busybox))))
        new.replace(kept)
    return kept


def _digest(kernel: Kernel, busybox: Path) -> str:
    index = (kernel.modules / "modules.dep").stat()
    program = busybox.stat()
    parts = (
        kernel.version,
        f"{index.st_mtime_ns} {program.st_mtime_ns} {program.st_size}",
        " ".join(_MODULES),
        _SCRIPT.read_text(),
        Path(__file__).read_text(),
    )
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _entries(kernel: Kernel, busybox: Path) -> Iterator[Entry]:
    program = busybox.read_bytes()
    if b"/ld-linux" in program[:4096]:
        raise LabCannot(f"{busybox} is not static (Debian: busybox-static)")
    for folder in _FOLDERS:
        yield folder, stat.S_IFDIR | 0o755, b""
    yield "bin/busybox", stat.S_IFREG | 0o755, program
    yield "init", stat.S_IFREG | 0o755, _SCRIPT.read_bytes()
    files = module_files(kernel, _MODULES)
    here = f"lib/modules/{kernel.version}"
    yield here, stat.S_IFDIR | 0o755, b""
    flat = {path: plain_name(path).rpartition("/")[2] for path in files}
    for path, name in flat.items():
        yield f"{here}/{name}", stat.S_IFREG | 0o644, read_module(kernel, path)
    index = "".join(
        f"{flat[path]}:{''.join(f' {flat[each]}' for each in needs)}\n"
        for path, needs in files.items()
    )
    yield f"{here}/modules.dep", stat.S_IFREG | 0o644, index.encode()
    present = {name.removesuffix(".ko").replace("-", "_") for name in flat.values()}
    wanted = " ".join(name for name in _MODULES if name in present)
    yield "modules", stat.S_IFREG | 0o644, f"{wanted}\n".encode()
