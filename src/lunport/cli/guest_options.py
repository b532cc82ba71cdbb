"""The options that several commands of ``lunport guest`` take."""

from __future__ import annotations

from typing import IO

import click

from lunport.cli.host_options import SERVICE_TOKEN_VARIABLE, read_token
from lunport.core.secret import Secret

LIBVIRT = click.option(
    "--libvirt",
    "uri",
    metavar="URI",
    envvar="LUNPORT_LIBVIRT",
    default="qemu:///system",
    show_default=True,
    help="Which libvirt has the guests.",
)


def tokens(
    token_file: IO[str] | None, service_token_file: IO[str] | None
) -> tuple[Secret | None, Secret | None]:
    """Read the caller's token, and the service's own."""
    return read_token(token_file), read_token(service_token_file, SERVICE_TOKEN_VARIABLE)
