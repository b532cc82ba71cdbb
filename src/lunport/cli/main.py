"""The command line: ``lunport``.

Commands are imported when they are called, so that ``lunport --help`` and a service's start
pay only for what they use. Every error of ours becomes one line on stderr and an exit code
of ``cli/exit_codes.py``.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

import click

from lunport.cli.exit_codes import exit_code_of
from lunport.core.errors import LunportError

_COMMANDS = {
    "agent": ("lunport.cli.agent", "agent", "Run the host's agent: recovery, healing, metrics."),
    "demo": ("lunport.cli.demo", "demo", "Show the whole job on this machine, on real components."),
    "enrol": ("lunport.cli.enrol", "enrol", "Say which hosts' agents the service listens to."),
    "export": ("lunport.cli.export", "export", "See and check exports, and cut hosts off."),
    "guest": ("lunport.cli.guest", "guest", "Give guests volumes as disks, and take them away."),
    "host": ("lunport.cli.host", "host", "Make volumes disks of this host, and unmake them."),
    "iface": ("lunport.cli.iface", "iface", "See and check the ways out of this host, make more."),
    "migration": ("lunport.cli.migration", "migration", "See guests' moves, and end a stuck one."),
    "pki": ("lunport.cli.pki", "pki", "Make certificates for the service and for hosts."),
    "probe": ("lunport.cli.probe", "probe", "Ask one portal, or choose among several."),
    "serve": ("lunport.cli.serve", "serve", "Run the volume service: API, storage, SQLite."),
    "token": ("lunport.cli.token", "token", "Make a token for the API and its entry."),
}


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, name, _ = _COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in sorted(_COMMANDS.items())])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="lunport")
def cli() -> None:
    """Lunport: iSCSI volumes that survive a dead portal."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit."""
    try:
        status = cli.main(args=arguments, prog_name="lunport", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(2 if isinstance(error, click.UsageError) else 1)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except LunportError as error:
        click.echo(f"lunport: {' '.join(str(error).split())}", err=True)
        sys.exit(exit_code_of(error))
    sys.exit(status if isinstance(status, int) else 0)
