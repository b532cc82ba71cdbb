"""``lunport agent``: run the host's agent in the foreground."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import IO

import click

from lunport.agent.path_wish import PathWish
from lunport.cli.exit_codes import exit_code_of
from lunport.cli.host_options import (
    SERVICE_TOKEN,
    SERVICE_TOKEN_VARIABLE,
    TOKEN_VARIABLE,
    address,
    read_token,
)
from lunport.cli.path_options import path_wish_options
from lunport.core.host_name import parse_host_name
from lunport.initiator.multipath_policy import MultipathPolicy
from lunport.telemetry.logs import start_logging


@click.command(context_settings={"auto_envvar_prefix": "LUNPORT_AGENT"})
@path_wish_options
@click.option(
    "--token-file",
    type=click.File(),
    help=f"Holds the token to report paths with [default: {TOKEN_VARIABLE}, or none].",
)
@SERVICE_TOKEN
@click.option(
    "--libvirt",
    metavar="URI",
    default="qemu:///system",
    show_default=True,
    help="Which libvirt has the guests whose volumes are kept here.",
)
@click.option(
    "--migration-uri",
    metavar="URI",
    help="Where other hosts' libvirts reach this one's [default: qemu+tls://HOST/system].",
)
@click.option(
    "--graphics-listen",
    metavar="ADDRESS",
    help="Where the graphics of guests that come listen [default: as they did].",
)
@click.option(
    "--endpoint",
    metavar="URL",
    help="The volume service that is believed when guests come, and told of the paths of "
    "attachments that others made [default: as the other host says, and none is told].",
)
@click.option(
    "--listen",
    metavar="HOST:PORT",
    help="Also answer agents of other hosts there, by TLS [default port: 8778].",
)
@click.option(
    "--tls",
    "tls_folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="The folder with ca.pem, certificate.pem and key.pem of this host.",
)
@click.option("--host-name", help="What this host is called [default: as the system says].")
@click.option("--debug", is_flag=True, help="Log everything.")
@click.option("--json-logs", is_flag=True, help="Log as JSON, a line an event.")
def agent(
    wish: PathWish,
    token_file: IO[str] | None,
    service_token_file: IO[str] | None,
    libvirt: str,
    migration_uri: str | None,
    graphics_listen: str | None,
    endpoint: str | None,
    listen: str | None,
    tls_folder: Path | None,
    host_name: str | None,
    debug: bool,
    json_logs: bool,
) -> None:
    """Run the host's agent until SIGTERM: recovery after a reboot, healing, and its socket.

    The first options are the host's policy for several paths, where a connect asks for nothing
    else. With --listen and --tls the agents of other hosts are answered as well.
    """
    start_logging(debug=debug, as_json=json_logs)
    policy = wish.on(MultipathPolicy())
    from lunport.bootstrap.agent import AgentAccess, serve_agent  # noqa: PLC0415 - slow to load
    from lunport.host.tls import TlsFolder  # noqa: PLC0415 - slow to load

    name = host_name or socket.gethostname()
    access = AgentAccess(
        # Only other hosts need it to be a good one: some machines have none.
        host=name if tls_folder is None and host_name is None else parse_host_name(name),
        tls=None if tls_folder is None else TlsFolder(tls_folder),
        listen=listen,
        token=read_token(token_file),
        service_token=read_token(service_token_file, SERVICE_TOKEN_VARIABLE),
        libvirt=libvirt,
        migration_uri=migration_uri,
        graphics_listen=graphics_listen,
        endpoint=None if endpoint is None else address(endpoint),
    )
    serve_agent(policy, exit_code_of, _announce, access)


def _announce(address: str) -> None:
    click.echo(f"lunport: the host's agent listens on {address}")
