"""Find an installed kernel and the files of its modules.

Reads ``/boot/vmlinuz-*`` and ``/lib/modules/VERSION/modules.dep`` (depmod(8)); loads nothing.
The image's format: ``Documentation/arch/x86/boot.rst`` of the kernel.
"""

from __future__ import annotations

import gzip
import hashlib
import lzma
import os
import re
import struct
import zlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from lunport.core.errors import HostLacks

PACKAGE = "linux-image-amd64"
_HOW = f"apt-get install {PACKAGE}"
# an ELF note by Xen: name size 4, type 18 (PHYS32_ENTRY), "Xen"
_PVH_NOTE = struct.pack("<I", 18) + b"Xen\0"


@dataclass(frozen=True, slots=True)
class Kernel:
    """An image to boot, and where its modules are."""

    version: str
    image: Path
    modules: Path


def find_kernel(
    needed: Collection[str],
    *,
    boot: Path = Path("/boot"),
    modules: Path = Path("/lib/modules"),
) -> Kernel:
    """Return the newest installed kernel that has these modules, beside it or within.

    A kernel for clouds or for a board may lack some. Raises: HostLacks.
    """
    found = [
        Kernel(version, image, modules / version)
        for image in boot.glob("vmlinuz-*")
        if (version := image.name.removeprefix("vmlinuz-")) and _has_all(modules / version, needed)
    ]
    if not found:
        raise HostLacks("There is no kernel to boot", f"none in {boot} has all modules", _HOW)
    return max(found, key=lambda kernel: _by_number(kernel.version))


def unpacked_image(kernel: Kernel, cache: Path) -> Path:
    """Return the kernel as a plain ELF file, made now unless it is in ``cache``.

    QEMU enters that directly (PVH), and the emulated machine need not unpack it: 2 seconds. What
    cannot be read here is returned as it is, packed.
    """
    status = kernel.image.stat()
    mark = f"{kernel.image} {status.st_mtime_ns} {status.st_size}".encode()
    kept = cache / f"vmlinux-{hashlib.sha256(mark).hexdigest()[:16]}"
    if not kept.exists():
        content = _unpack(kernel.image.read_bytes())
        if content is None:
            return kernel.image
        cache.mkdir(parents=True, exist_ok=True)
        new = cache / f".{kept.name}.{os.getpid()}"
        new.write_bytes(content)
        new.replace(kept)
    return kept


def _unpack(image: bytes) -> bytes | None:
    if image[0x202:0x206] != b"HdrS":
        return None
    sectors = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)  # payload_offset, payload_length
    payload = image[(sectors + 1) * 512 + offset :][:length]
    try:
        if payload.startswith(b"\xfd7zXZ"):
            content = lzma.LZMADecompressor().decompress(payload)
        elif payload.startswith(b"\x1f\x8b"):
            content = zlib.decompressobj(wbits=31).decompress(payload)
        else:
            return None
    except (lzma.LZMAError, zlib.error):
        return None
    return content if content.startswith(b"\x7fELF") and _PVH_NOTE in content else None


def module_files(kernel: Kernel, names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Map each named module and all it depends on to the files that it depends on.

    Keys and values are paths relative to the kernel's modules folder; a module that is part
    of the kernel itself is left out. Raises: HostLacks for one that the kernel does not have.
    """
    depends: dict[str, tuple[str, ...]] = {}
    by_name: dict[str, str] = {}
    # kernel/fs/9p/9p.ko: kernel/net/9p/9pnet.ko kernel/fs/netfs/netfs.ko
    for line in (kernel.modules / "modules.dep").read_text().splitlines():
        path, _, rest = line.partition(":")
        depends[path] = tuple(rest.split())
        by_name[_module_name(path)] = path
    builtin = kernel.modules / "modules.builtin"
    inside = {_module_name(path) for path in builtin.read_text().split()}
    wanted: dict[str, tuple[str, ...]] = {}
    for name in names:
        if name in inside:
            continue
        if name not in by_name:
            raise HostLacks("A kernel lacks a module", f"{kernel.version} has no {name}", _HOW)
        path = by_name[name]
        for each in (path, *depends[path]):
            wanted[each] = depends[each]
    return wanted


def read_module(kernel: Kernel, path: str) -> bytes:
    """Read a module, uncompressed."""
    content = (kernel.modules / path).read_bytes()
    if path.endswith(".xz"):
        return lzma.decompress(content)
    if path.endswith(".gz"):
        return gzip.decompress(content)
    if path.endswith(".ko"):
        return content
    raise HostLacks("A kernel's module cannot be read", f"{path} is packed strangely", _HOW)


def plain_name(path: str) -> str:
    """Return a module's path without its compression: ``kernel/fs/9p/9p.ko``."""
    return re.sub(r"\.ko(\.\w+)?$", ".ko", path)


def _has_all(folder: Path, needed: Collection[str]) -> bool:
    try:
        index = (folder / "modules.dep").read_text() + (folder / "modules.builtin").read_text()
    except OSError:
        return False
    present = {_module_name(line.partition(":")[0]) for line in index.splitlines()}
    return present.issuperset(needed)


def _module_name(path: str) -> str:
    return plain_name(path).rpartition("/")[2].removesuffix(".ko").replace("-", "_")


def _by_number(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)]
