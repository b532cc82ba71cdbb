"""``lunport serve``: run the volume service in the foreground."""

from __future__ import annotations

from pathlib import Path

import click

from lunport.config import DEFAULT_DATA_DIR, load_config
from lunport.telemetry.logs import start_logging


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
@click.option("--debug", is_flag=True, help="Log everything.")
@click.option("--json-logs", is_flag=True, help="Log as JSON, a line an event.")
def serve(
    config_file: Path | None, data_dir: Path, listen: str | None, debug: bool, json_logs: bool
) -> None:
    """Run the volume service until SIGTERM: API, storage worker, SQLite, target daemon."""
    start_logging(debug=debug, as_json=json_logs)
    config = load_config(config_file)
    from lunport.bootstrap.serve import serve as run  # noqa: PLC0415 - after the cheap checks

    run(config, data_dir.absolute(), listen, _announce)


def _announce(address: str) -> None:
    click.echo(f"lunport: serving Block Storage v3 on {address}")
