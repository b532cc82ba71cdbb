"""Load, read and drop tables of nftables, by nft(8), in this network namespace."""

from __future__ import annotations

from lunport.core.errors import CommandError, HostLacks
from lunport.host.clock import Deadline
from lunport.host.runner import run

PROGRAM = "nft"
PACKAGE = "nftables"


def replace_table(family: str, name: str, chains: str, deadline: Deadline) -> None:
    """Put a table in place of the one of that name, in one step of the kernel.

    Raises: HostLacks (this kernel has no such thing), CommandMissing, CommandTimedOut.
    """
    table = f"{family} {name}"
    _feed(f"table {table}\ndelete table {table}\ntable {table} {{\n{chains}\n}}\n", deadline)


def drop_table(family: str, name: str, deadline: Deadline) -> None:
    """Take a table away; one that is not there is fine. Raises: as above."""
    _feed(f"table {family} {name}\ndelete table {family} {name}\n", deadline)


def read_ruleset(deadline: Deadline) -> str:
    """Return all tables as nft writes them; empty when there is none."""
    return run([PROGRAM, "list", "ruleset"], deadline, package=PACKAGE).stdout.strip()


def _feed(script: str, deadline: Deadline) -> None:
    try:
        run([PROGRAM, "--file", "-"], deadline, stdin=script, package=PACKAGE)
    except CommandError as error:
        # netlink: Error: cache initialization failed: Protocol not supported
        first = (error.stderr.strip().splitlines() or ["it said nothing"])[0]
        raise HostLacks(
            "nft cannot filter packets here",
            first,
            "it needs a kernel with nf_tables and nft_reject_inet; try modprobe",
        ) from error
