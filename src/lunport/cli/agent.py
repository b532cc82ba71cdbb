"""``lunport agent``: run the host's agent in the foreground."""

from __future__ import annotations

from typing import IO

import click

from lunport.agent.path_wish import PathWish
from lunport.cli.exit_codes import exit_code_of
from lunport.cli.host_options import TOKEN_VARIABLE, address, read_token
from lunport.cli.path_options import path_wish_options
from lunport.initiator.multipath_policy import MultipathPolicy
from lunport.telemetry.logs import start_logging


@click.command(context_settings={"auto_envvar_prefix": "LUNPORT_AGENT"})
@path_wish_options
@click.option(
    "--endpoint",
    metavar="URL",
    help="The volume service that is told of the paths of attachments that others made "
    "[default: none is].",
)
@click.option(
    "--token-file",
    type=click.File(),
    help=f"Holds the token to report paths with [default: {TOKEN_VARIABLE}, or none].",
)
@click.option("--debug", is_flag=True, help="Log everything.")
@click.option("--json-logs", is_flag=True, help="Log as JSON, a line an event.")
def agent(
    wish: PathWish,
    endpoint: str | None,
    token_file: IO[str] | None,
    debug: bool,
    json_logs: bool,
) -> None:
    """Run the host's agent until SIGTERM: recovery after a reboot, healing, and its socket.

    The options are the host's policy for several paths, where a connect asks for nothing else.
    """
    start_logging(debug=debug, as_json=json_logs)
    policy = wish.on(MultipathPolicy())
    from lunport.bootstrap.agent import serve_agent  # noqa: PLC0415 - after the cheap checks

    serve_agent(
        policy,
        exit_code_of,
        _announce,
        read_token(token_file),
        None if endpoint is None else address(endpoint),
    )


def _announce(address: str) -> None:
    click.echo(f"lunport: the host's agent listens on {address}")
