"""What the call that moves a guest takes, and how far it is; when it will be over, if ever.

A guest writes while its memory is sent, so what is left does not only shrink: pages come back,
in passes. What has been reached is therefore shown as the best so far, and an estimate is made
of the rate less the guest's own; where the guest is faster, none is.
"""

from __future__ import annotations

from dataclasses import dataclass, field

_PAGE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Definitions:
    """A guest's XML: as it runs, and as it will start, if that is kept."""

    live: str = field(repr=False)
    persistent: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class MoveProgress:
    """One look. Bytes, and bytes a second; ``dirty_pages_s``: pages the guest writes a second."""

    elapsed_s: float
    total_bytes: int
    processed_bytes: int
    remaining_bytes: int
    rate_bytes_s: int
    dirty_pages_s: int
    passes: int

    @property
    def fraction(self) -> float:
        """What is done of what is known, from 0 to 1."""
        known = self.processed_bytes + self.remaining_bytes
        return 0.0 if known <= 0 else min(1.0, self.processed_bytes / known)

    @property
    def dirty_bytes_s(self) -> int:
        """How fast the guest writes to its memory."""
        return self.dirty_pages_s * _PAGE_BYTES

    @property
    def estimate_s(self) -> float | None:
        """The seconds that are left, or None where it does not converge or is not known."""
        gain = self.rate_bytes_s - self.dirty_bytes_s
        if self.rate_bytes_s <= 0 or gain <= 0:
            return None
        return self.remaining_bytes / gain


@dataclass(frozen=True, slots=True)
class MoveOptions:
    """How the memory is moved. None: as the hypervisor does it by itself.

    ``bandwidth_mib_s``: at most. ``downtime_ms``: how long the guest may stand still at the end.
    ``auto_converge``: slow the guest down if it writes too fast. ``postcopy``: run it at the
    destination before all memory is there; then it is lost with either host. ``tls``: by the
    hypervisors' own certificates. ``parallel``: over so many connections.
    """

    bandwidth_mib_s: int | None = None
    downtime_ms: int | None = None
    auto_converge: bool = False
    postcopy: bool = False
    tls: bool = False
    parallel: int | None = None
