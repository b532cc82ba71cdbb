"""``lunport agent``: run the host's agent in the foreground."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import IO

import click

from lunport.agent.path_wish import PathWish
from lunport.cli.exit_codes import exit_code_of
from lunport.cli.host_options import TOKEN_VARIABLE, read_token
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
@click.option(
    "--libvirt",
    metavar="URI",
    default="qemu:///system",
    show_default=True,
    help="Which libvirt has the guests whose volumes are kept here.",
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
    libvirt: str,
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

    access = AgentAccess(
        host=parse_host_name(host_name or socket.gethostname()),
        tls=None if tls_folder is None else TlsFolder(tls_folder),
        listen=listen,
        token=read_token(token_file),
        libvirt=libvirt,
    )
    serve_agent(policy, exit_code_of, _announce, access)


def _announce(address: str) -> None:
    click.echo(f"lunport: the host's agent listens on {address}")
