"""Loop devices over image files: attached for as long as somebody uses them, and grown.

A loop device is attached with ``LO_FLAGS_AUTOCLEAR``: it goes by itself when the last user has
closed it, so that whoever attaches one and is killed leaves nothing. What is behind one is asked
of the kernel, by device number. loop(4); no program is started.

Quirk(loop): the device emits a change event, and udev's rules may have LVM look for physical
volumes of a guest inside it. Its user claims it at once; a claimed device is not activated.
Quirk(loop): direct I/O is switched on for a file of overlayfs whose lower file system cannot do
it (tmpfs; 6.1), and every request fails. So it is tried on the file first.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

from lunport.host.clock import Deadline

_CONFIGURE = 0x4C0A
_GET_FREE = 0x4C82
_SET_CAPACITY = 0x4C07
_AUTOCLEAR = 4
_DIRECT_IO = 16
# struct loop_config: fd, block size, struct loop_info64, 64 bytes reserved (linux/loop.h)
_FLAGS_AT = 8 + 5 * 8 + 3 * 4
_CONFIG_BYTES = 8 + 232 + 64
_BLOCKS = Path("/sys/dev/block")
_DELETED = " (deleted)"


@contextlib.contextmanager
def attached(file: Path, deadline: Deadline, *, direct_io: bool = True) -> Iterator[Path]:
    """Attach a file to a loop device and give the device; it stays while somebody has it open.

    With ``direct_io`` the page cache is passed by where the file system allows that; elsewhere
    the kernel goes through it all the same. Raises: OSError.
    """
    image = os.open(file, os.O_RDWR | os.O_CLOEXEC)
    try:
        device, path = _attach(image, deadline, direct_io=direct_io and _reads_directly(file))
    finally:
        os.close(image)
    try:
        yield path
    finally:
        os.close(device)


def backing_file(number: int) -> Path | None:
    """Return the file behind a device number; None when that is no attached loop device.

    A file that was removed or replaced meanwhile is none either.
    """
    try:
        text = (_BLOCKS / _name(number) / "loop/backing_file").read_text().rstrip("\n")
    except OSError:
        return None
    return None if text.endswith(_DELETED) else Path(text)


def is_loop(number: int) -> bool:
    """Tell whether a device number is that of a loop device with a file, gone or not."""
    return (_BLOCKS / _name(number) / "loop/backing_file").exists()


def goes_by_itself(number: int) -> bool:
    """Tell whether a device number is that of a loop device that its last user takes along."""
    try:
        return (_BLOCKS / _name(number) / "loop/autoclear").read_text().strip() == "1"
    except OSError:
        return False


def is_backed_by(number: int, file: Path) -> bool:
    """Tell whether the loop device stands for that very file, whatever its name."""
    backing = backing_file(number)
    try:
        return backing is not None and backing.samefile(file)
    except OSError:
        return False


def device_number(path: Path) -> int | None:
    """Return the number of a block device; None for anything else. Raises: OSError."""
    status = path.stat()
    return status.st_rdev if stat.S_ISBLK(status.st_mode) else None


def size_of(number: int) -> int:
    """Return the size of a block device in bytes. Raises: OSError."""
    return int((_BLOCKS / _name(number) / "size").read_text()) * 512


def can_discard(number: int) -> bool:
    """Tell whether discards reach what is behind a block device."""
    try:
        return int((_BLOCKS / _name(number) / "queue/discard_max_bytes").read_text()) > 0
    except OSError:
        return False


def grow(number: int) -> None:
    """Have a loop device take the size that its file has now. Raises: OSError."""
    uevent = (_BLOCKS / _name(number) / "uevent").read_text()
    name = dict(line.split("=", 1) for line in uevent.splitlines())["DEVNAME"]
    descriptor = os.open(Path("/dev") / name, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if os.fstat(descriptor).st_rdev != number:
            raise OSError(errno.ENODEV, f"/dev/{name} is another device")
        fcntl.ioctl(descriptor, _SET_CAPACITY)
    finally:
        os.close(descriptor)


def _reads_directly(file: Path) -> bool:
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        with mmap.mmap(-1, mmap.PAGESIZE) as page:  # aligned, as direct I/O wants it
            os.preadv(descriptor, [page], 0)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def _attach(image: int, deadline: Deadline, *, direct_io: bool) -> tuple[int, Path]:
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        while not deadline.has_passed():
            path = Path(f"/dev/loop{fcntl.ioctl(control, _GET_FREE)}")
            device = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.ioctl(device, _CONFIGURE, _config(image, direct_io=direct_io))
            except OSError as error:
                os.close(device)
                if error.errno != errno.EBUSY:  # somebody else took the free one
                    raise
            else:
                return device, path
    finally:
        os.close(control)
    raise OSError(errno.EBUSY, f"no loop device could be had in {deadline.budget_s:.0f} s")


def _config(image: int, *, direct_io: bool) -> bytes:
    config = bytearray(_CONFIG_BYTES)
    struct.pack_into("=II", config, 0, image, 0)
    struct.pack_into("=I", config, _FLAGS_AT, _AUTOCLEAR | (_DIRECT_IO if direct_io else 0))
    return bytes(config)


def _name(number: int) -> str:
    return f"{os.major(number)}:{os.minor(number)}"
