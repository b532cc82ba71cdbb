"""Which installed kernel is booted, and which of its modules."""

from __future__ import annotations

import lzma
from pathlib import Path

import pytest

from lunport.core.errors import HostLacks
from lunport.host.linux_kernel import (
    Kernel,
    find_kernel,
    module_files,
    plain_name,
    read_module,
)

NEEDED = ("iscsi_tcp", "overlay", "virtio_pci")
ALL = "kernel/iscsi_tcp.ko:\nkernel/overlay.ko.xz: kernel/iscsi_tcp.ko\n"
INDEX = """\
kernel/fs/9p/9p.ko.xz: kernel/net/9p/9pnet.ko.xz
kernel/net/9p/9pnet.ko.xz:
kernel/net/9p/9pnet_virtio.ko.xz: kernel/net/9p/9pnet.ko.xz
"""


def install(root: Path, version: str, index: str) -> Kernel:
    """Install a kernel of no content."""
    (root / "boot").mkdir(exist_ok=True)
    (root / f"boot/vmlinuz-{version}").touch()
    modules = root / "modules" / version
    modules.mkdir(parents=True)
    (modules / "modules.dep").write_text(index)
    (modules / "modules.builtin").write_text("kernel/drivers/virtio/virtio-pci.ko\n")
    return Kernel(version, root / f"boot/vmlinuz-{version}", modules)


def test_the_newest_kernel_with_all_modules_is_taken(tmp_path: Path) -> None:
    """Versions are compared by number, and one without all modules does not count."""
    install(tmp_path, "6.1.0-9-amd64", ALL)
    newest = install(tmp_path, "6.1.0-56-amd64", ALL)
    install(tmp_path, "6.12.0-1-cloud-amd64", INDEX)
    assert find_kernel(NEEDED, boot=tmp_path / "boot", modules=tmp_path / "modules") == newest


def test_no_kernel_is_said_so_with_the_package(tmp_path: Path) -> None:
    """Without one the error names what brings it."""
    with pytest.raises(HostLacks, match="linux-image-amd64"):
        find_kernel(NEEDED, boot=tmp_path, modules=tmp_path)


def test_modules_come_with_what_they_depend_on(tmp_path: Path) -> None:
    """What is part of the kernel itself is left out; what it has not is refused."""
    kernel = install(tmp_path, "6.1", INDEX)
    assert module_files(kernel, ["virtio_pci", "9p"]) == {
        "kernel/fs/9p/9p.ko.xz": ("kernel/net/9p/9pnet.ko.xz",),
        "kernel/net/9p/9pnet.ko.xz": (),
    }
    with pytest.raises(HostLacks, match="has no overlay"):
        module_files(kernel, ["overlay"])


def test_a_module_is_read_as_it_is_loaded(tmp_path: Path) -> None:
    """A packed module is unpacked, and named accordingly."""
    kernel = install(tmp_path, "6.1", INDEX)
    (kernel.modules / "a.ko.xz").write_bytes(lzma.compress(b"ELF"))
    assert read_module(kernel, "a.ko.xz") == b"ELF"
    assert plain_name("a.ko.xz") == plain_name("a.ko") == "a.ko"
