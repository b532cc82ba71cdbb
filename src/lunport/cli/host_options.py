"""The options that several commands of ``lunport host`` take, and what they come to."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any

import click

from lunport.bootstrap.host_volumes import HostVolumes
from lunport.cli.connection_file import read_connection_info
from lunport.cli.host_parts import HostParts
from lunport.cli.path_options import all_of
from lunport.core.connection_info import ConnectionInfo
from lunport.core.secret import Secret
from lunport.host.clock import Deadline

DEFAULT_ENDPOINT = "http://127.0.0.1:8776"
TOKEN_VARIABLE = "OS_TOKEN"  # noqa: S105 - a variable's name
SERVICE_TOKEN_VARIABLE = "LUNPORT_SERVICE_TOKEN"  # noqa: S105 - a variable's name
_MAX_TOKEN = 16384

OUTPUT = click.option(
    "-o",
    "--output",
    "as_json",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    callback=lambda _context, _parameter, value: value == "json",
)
TIMEOUT = click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0.01, max=3600),
    default=60.0,
    show_default=True,
    help="Seconds for all of it.",
)
TOKEN = click.option(
    "--token-file",
    type=click.File(),
    help=f"Holds the token for the service [default: {TOKEN_VARIABLE}, or none].",
)
SERVICE = all_of(
    click.option(
        "--endpoint",
        metavar="URL",
        envvar="OS_ENDPOINT",
        help=f"Where the volume service is [default: OS_ENDPOINT, or {DEFAULT_ENDPOINT}].",
    ),
    TOKEN,
)
SERVICE_TOKEN = click.option(
    "--service-token-file",
    "service_token_file",
    type=click.File(),
    help=f"Holds the service's own token, which a guest's volume is given back with "
    f"[default: {SERVICE_TOKEN_VARIABLE}, or none].",
)
PLAN = click.option("--plan", is_flag=True, help="Print the steps without doing them.")
MULTIPATH = all_of(
    click.option(
        "--multipath/--no-multipath",
        default=None,
        help="Over all paths at once, or over one [default: all, where multipathd runs].",
    ),
    click.option(
        "--enforce-multipath",
        is_flag=True,
        help="Over all paths at once, or not at all.",
    ),
)
_WHICH = all_of(
    click.argument("volume", required=False),
    click.option(
        "--connection-info",
        "info_file",
        type=click.File(),
        help="How to reach it (JSON), instead of VOLUME; - is stdin.",
    ),
)


@dataclass(frozen=True, slots=True)
class Asked:
    """Which volume a command is about, whom to ask for it, and by when all must be done.

    Either ``info`` says how the volume is reached, or ``volume`` names one of the service.
    """

    volume: str
    info: ConnectionInfo | None
    endpoint: str | None
    token_file: IO[str] | None
    deadline: Deadline

    def volumes(self, parts: HostParts) -> HostVolumes:
        """Join this host with the service asked for, or else the one that made the attachment."""
        endpoint = self.endpoint
        if endpoint is None:
            notes = parts.notes().of(self.volume)
            endpoint = next((note.endpoint for note in notes), DEFAULT_ENDPOINT)
        return parts.volumes(address(endpoint), read_token(self.token_file))


def about_volume(command: Callable[..., Any]) -> Callable[..., Any]:
    """Take the options that say which volume is meant, and pass the command one ``asked``."""

    @functools.wraps(command)
    def gathered(
        *arguments: object,
        volume: str | None,
        info_file: IO[str] | None,
        endpoint: str | None,
        token_file: IO[str] | None,
        timeout_s: float,
        **options: object,
    ) -> object:
        if (volume is None) == (info_file is None):
            raise click.UsageError("Give a VOLUME or --connection-info, one of them.")
        within = deadline(timeout_s)
        info = None if info_file is None else read_connection_info(info_file)
        asked = Asked(volume or "", info, endpoint, token_file, within)
        return command(*arguments, asked=asked, **options)

    return all_of(_WHICH, SERVICE, TIMEOUT, OUTPUT)(gathered)


def deadline(seconds: float) -> Deadline:
    """Begin to count."""
    if math.isnan(seconds):  # it passes every range
        raise click.UsageError("--timeout is a number of seconds.")
    return Deadline.after(seconds)


def address(endpoint: str) -> str:
    """Return a service's address without the version that some write behind it."""
    return endpoint.rstrip("/").removesuffix("/v3")


def read_token(file: IO[str] | None, variable: str = TOKEN_VARIABLE) -> Secret | None:
    """Read the token for the service, if there is one."""
    text = os.environ.get(variable, "") if file is None else file.read(_MAX_TOKEN)
    return Secret(text.strip()) if text.strip() else None
