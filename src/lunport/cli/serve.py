"""``lunport serve``: run the volume service in the foreground."""

from __future__ import annotations

import socket
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import click

from lunport.cli.exit_codes import exit_code_of
from lunport.cli.host_options import read_token
from lunport.config import DEFAULT_DATA_DIR, load_config
from lunport.core.secret import Secret
from lunport.telemetry.logs import start_logging

BesideService = AbstractContextManager[str]


@click.command()
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Configuration file [default: /etc/lunport/lunport.toml, if it is there].",
)
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=DEFAULT_DATA_DIR,
    show_default=True,
    help="Where the database, images and secrets are kept.",
)
@click.option(
    "--listen",
    metavar="HOST:PORT",
    help="Where to answer [default: 127.0.0.1:8776]; unix:/PATH for a socket.",
)
@click.option(
    "--agent",
    "with_agent",
    is_flag=True,
    help="Be this host's agent as well, for one machine that is all.",
)
@click.option(
    "--libvirt",
    metavar="URI",
    default="qemu:///system",
    show_default=True,
    help="With --agent: which libvirt has this host's guests.",
)
@click.option("--debug", is_flag=True, help="Log everything.")
@click.option("--json-logs", is_flag=True, help="Log as JSON, a line an event.")
def serve(
    config_file: Path | None,
    data_dir: Path,
    listen: str | None,
    with_agent: bool,
    libvirt: str,
    debug: bool,
    json_logs: bool,
) -> None:
    """Run the volume service until SIGTERM: API, storage worker, SQLite, target daemon.

    With --agent it recovers and keeps this host's connections and guests too, as `lunport agent`
    does with its defaults, on the agent's unix socket.
    """
    start_logging(debug=debug, as_json=json_logs)
    config = load_config(config_file)
    from lunport.bootstrap.serve import serve as run  # noqa: PLC0415 - after the cheap checks

    beside = partial(_agent_beside, libvirt) if with_agent else None
    run(config, data_dir.absolute(), listen, _announce, beside=beside)


def _agent_beside(libvirt: str, token: Secret, endpoint: str | None) -> BesideService:
    from lunport.bootstrap.agent import AgentAccess, agent_beside  # noqa: PLC0415 - only now
    from lunport.initiator.multipath_policy import MultipathPolicy  # noqa: PLC0415 - only now

    access = AgentAccess(
        host=socket.gethostname(),
        token=read_token(None),
        service_token=token,
        libvirt=libvirt,
        endpoint=endpoint,
    )
    return agent_beside(MultipathPolicy(), exit_code_of, access)


def _announce(address: str) -> None:
    click.echo(f"lunport: serving Block Storage v3 on {address}")
