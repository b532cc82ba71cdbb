"""The demo's tiny guest, as tests have it: built once for all of them, in ``.cache``."""

from __future__ import annotations

from pathlib import Path

from lunport.bootstrap.demo import guest_image
from lunport.bootstrap.demo.guest_image import GuestLog as GuestLog
from lunport.bootstrap.demo.guest_image import TinyGuest as TinyGuest
from lunport.bootstrap.demo.guest_image import read_growing_log as read_growing_log
from lunport.bootstrap.demo.guest_image import read_log as read_log
from lunport.host.clock import Deadline

_CACHE = Path(__file__).parents[2] / ".cache" / "tiny-guest"


def build_tiny_guest() -> TinyGuest:
    """Return kernel and initramfs, made now unless they are kept."""
    return guest_image.build_tiny_guest(_CACHE, Deadline.after(60))
