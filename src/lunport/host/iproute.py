"""Give this network namespace addresses, by ip(8). Never looks at or changes another's."""

from __future__ import annotations

from collections.abc import Sequence

from lunport.core.errors import CommandError, HostLacks
from lunport.host.clock import Deadline
from lunport.host.runner import run

PROGRAM = "ip"
PACKAGE = "iproute2"


def set_up_loopback(addresses: Sequence[str], deadline: Deadline) -> None:
    """Bring the loopback up with these addresses beside its own.

    Raises: HostLacks, CommandMissing, CommandTimedOut.
    """
    lines = ["link set lo up"]
    for address in addresses:
        length = 128 if ":" in address else 32
        nodad = " nodad" if ":" in address else ""
        lines.append(f"address replace {address}/{length} dev lo{nodad}")
    script = "\n".join(lines) + "\n"
    try:
        run([PROGRAM, "-batch", "-"], deadline, stdin=script, package=PACKAGE)
    except CommandError as error:
        # RTNETLINK answers: Operation not permitted
        first = (error.stderr.strip().splitlines() or ["it said nothing"])[0]
        how = "it needs the capability CAP_NET_ADMIN"
        raise HostLacks("ip cannot set the loopback up here", first, how) from error
