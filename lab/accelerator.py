"""Choose how QEMU runs the guest: KVM only where a boot has proved that it works.

A ``/dev/kvm`` that exists may still hang or fail, as inside of another virtual machine. So the
kernel is booted once with it, up to the first process, within a deadline. The answer is kept
until this machine boots again. Without proof: TCG, QEMU's own translation.
"""

from __future__ import annotations

import os
import secrets
import subprocess
from dataclasses import dataclass
from pathlib import Path

from lab.initramfs import initramfs_for
from lunport.host.linux_kernel import Kernel, unpacked_image

_PROBE_S = 8.0


@dataclass(frozen=True, slots=True)
class Accelerator:
    """A way to run the guest, and QEMU's options for it."""

    name: str
    options: str


TCG = Accelerator("tcg", "-accel tcg,thread=multi,tb-size=512 -cpu max")
KVM = Accelerator("kvm", "-accel kvm -cpu host")


def choose_accelerator(qemu: Path, kernel: Kernel, cache: Path) -> Accelerator:
    """Return KVM if it is proved to work here, else TCG."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return TCG
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    question = f"{boot} {kernel.version} {qemu}"
    kept = cache / "kvm"
    known = kept.read_text().rpartition(" ") if kept.exists() else ("", "", "")
    if known[0] != question:
        works = _boots(qemu, kernel, cache)
        known = (question, " ", "yes" if works else "no")
        new = cache / f".kvm.{os.getpid()}"
        new.write_text("".join(known))
        new.replace(kept)
    return KVM if known[2] == "yes" else TCG


def _boots(qemu: Path, kernel: Kernel, cache: Path) -> bool:
    word = secrets.token_hex(8)
    argv = [
        str(qemu), *KVM.options.split(), "-m", "256", "-M", "q35", "-nodefaults",
        "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio",
        "-kernel", str(unpacked_image(kernel, cache)), "-initrd", str(initramfs_for(kernel, cache)),
        "-append", f"console=ttyS0 quiet panic=-1 lab.probe={word}",
    ]  # fmt: skip
    with subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as child:
        try:
            said, _ = child.communicate(timeout=_PROBE_S)
        except subprocess.TimeoutExpired:
            child.kill()
            return False
    return child.returncode == 0 and f"lab probe: {word}".encode() in said
