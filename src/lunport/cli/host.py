"""``lunport host``: volumes as disks of this host.

``connect`` and ``disconnect`` take a volume of the service, or a connection info from
wherever it came. Needs root and open-iscsi's daemon, no agent. Secrets come from files or
the environment, and are never shown.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import IO, Any, TypeVar

import click

from lunport.bootstrap.host_volumes import HostVolumes, known_connection
from lunport.cli.connection_file import read_connection_info
from lunport.cli.host_output import (
    RecoveryLine,
    forecast_line,
    print_json,
    show_connections,
    show_recovery,
    show_steps,
    show_volume,
    step_line,
)
from lunport.cli.host_parts import HostParts
from lunport.cli.paths import paths
from lunport.core.change import Change
from lunport.core.connector import format_connector
from lunport.core.errors import LunportError
from lunport.core.recovery_actions import Leftover
from lunport.core.secret import Secret
from lunport.host.attachment_notes import AttachmentNote
from lunport.host.clock import Deadline

DEFAULT_ENDPOINT = "http://127.0.0.1:8776"
TOKEN_VARIABLE = "OS_TOKEN"  # noqa: S105 - a variable's name
_MAX_TOKEN = 16384

Command = TypeVar("Command", bound=Callable[..., Any])


def _all_of(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


_OUTPUT = click.option(
    "-o",
    "--output",
    "as_json",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    callback=lambda _context, _parameter, value: value == "json",
)
_TIMEOUT = click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0.01, max=3600),
    default=60.0,
    show_default=True,
    help="Seconds for all of it.",
)
_SERVICE = _all_of(
    click.option(
        "--endpoint",
        metavar="URL",
        envvar="OS_ENDPOINT",
        help=f"Where the volume service is [default: OS_ENDPOINT, or {DEFAULT_ENDPOINT}].",
    ),
    click.option(
        "--token-file",
        type=click.File(),
        help=f"Holds the token for the service [default: {TOKEN_VARIABLE}, or none].",
    ),
)
_WHICH = _all_of(
    click.argument("volume", required=False),
    click.option(
        "--connection-info",
        "info_file",
        type=click.File(),
        help="How to reach it (JSON), instead of VOLUME; - is stdin.",
    ),
)
_PLAN = click.option("--plan", is_flag=True, help="Print the steps without doing them.")


@click.group()
@click.pass_context
def host(context: click.Context) -> None:
    """Make volumes disks of this host, and unmake them."""
    context.obj = context.obj or HostParts()


@host.command()
@_all_of(_WHICH, _SERVICE, _PLAN, _TIMEOUT, _OUTPUT)
@click.pass_obj
def connect(
    parts: HostParts,
    volume: str | None,
    info_file: IO[str] | None,
    endpoint: str | None,
    token_file: IO[str] | None,
    plan: bool,
    timeout_s: float,
    as_json: bool,
) -> None:
    """Make VOLUME a disk, through the first of its portals that works.

    The disk's path is the first line. The volume's identity is verified before the path is
    handed out. Repeating it changes nothing; a volume that is connected already is shown.
    """
    _require_one(volume, info_file)
    deadline = _deadline(timeout_s)
    if info_file is not None:
        info = read_connection_info(info_file)
        if plan:
            show_steps(parts.initiator().foresee_connect(info), as_json=as_json)
            return
        connected = parts.initiator().connect(info, deadline=deadline)
        show_volume(connected, info.volume_id, as_json=as_json)
        return
    assert volume is not None
    volumes = _volumes(parts, volume, endpoint, token_file)
    if plan:
        show_steps(_foresee_connect(parts, volumes, volume, deadline), as_json=as_json)
        return
    connected = volumes.connect(volume, parts.connector(), deadline)
    show_volume(connected, volume, as_json=as_json)


@host.command()
@_all_of(_WHICH, _SERVICE, _PLAN)
@click.option("--force", is_flag=True, help="Also when what was written can't be brought over.")
@_all_of(_TIMEOUT, _OUTPUT)
@click.pass_obj
def disconnect(
    parts: HostParts,
    volume: str | None,
    info_file: IO[str] | None,
    endpoint: str | None,
    token_file: IO[str] | None,
    plan: bool,
    force: bool,
    timeout_s: float,
    as_json: bool,
) -> None:
    """Take the disk of VOLUME away, and what only it needed.

    A disk that somebody has open is left alone (exit status 4). Repeating it changes nothing.
    """
    _require_one(volume, info_file)
    deadline = _deadline(timeout_s)
    if info_file is not None:
        info = read_connection_info(info_file)
        if plan:
            show_steps(parts.initiator().foresee_disconnect(info), as_json=as_json)
            return
        change = parts.initiator().disconnect(info, force=force, deadline=deadline)
    else:
        assert volume is not None
        volumes = _volumes(parts, volume, endpoint, token_file)
        if plan:
            show_steps(_foresee_disconnect(parts, volumes, volume), as_json=as_json)
            return
        change = volumes.disconnect(volume, force=force, deadline=deadline)
    _show_change(change, "Disconnected.", "It was not connected.", as_json=as_json)


@host.command()
@_all_of(_WHICH, _SERVICE, _TIMEOUT, _OUTPUT)
@click.pass_obj
def extend(
    parts: HostParts,
    volume: str | None,
    info_file: IO[str] | None,
    endpoint: str | None,
    token_file: IO[str] | None,
    timeout_s: float,
    as_json: bool,
) -> None:
    """Make the disk of VOLUME as large as the volume is now."""
    _require_one(volume, info_file)
    deadline = _deadline(timeout_s)
    if info_file is not None:
        info = read_connection_info(info_file)
        size_bytes = parts.initiator().extend(info, deadline=deadline)
    else:
        assert volume is not None
        size_bytes = _volumes(parts, volume, endpoint, token_file).extend(volume, deadline)
    if as_json:
        print_json({"size_bytes": size_bytes})
    else:
        click.echo(f"{size_bytes} bytes")


@host.command("list")
@_OUTPUT
@click.pass_obj
def list_(parts: HostParts, as_json: bool) -> None:
    """Show what is connected, and leftovers that nobody's journal knows."""
    initiator = parts.initiator()
    show_connections(
        initiator.connections(),
        parts.notes().all(),
        [str(action) for action in initiator.foresee_recover() if isinstance(action, Leftover)],
        [str(one) for one in parts.damages()],
        as_json=as_json,
    )


@host.command()
@click.option("--dry-run", is_flag=True, help="Print what would be done without doing it.")
@click.option(
    "--remove-leftovers",
    is_flag=True,
    help="Also remove what nobody's journal knows, unless somebody has it open.",
)
@_all_of(_SERVICE, _TIMEOUT, _OUTPUT)
@click.pass_obj
@click.pass_context
def recover(
    context: click.Context,
    parts: HostParts,
    dry_run: bool,
    remove_leftovers: bool,
    endpoint: str | None,
    token_file: IO[str] | None,
    timeout_s: float,
    as_json: bool,
) -> None:
    """Finish or undo what a killed command, a crash or a reboot left.

    Disks that somebody has open are left alone. The exit status is 1 when something that was
    to be done could not be done.
    """
    initiator = parts.initiator()
    if dry_run:
        planned = [
            forecast_line(action, remove_leftovers=remove_leftovers)
            for action in initiator.foresee_recover()
        ]
        known = {entry.volume_id for entry in initiator.connections()}
        planned += [
            RecoveryLine("would", _settling(note))
            for note in parts.notes().all()
            if note.volume_id not in known
        ]
        show_recovery(planned, as_json=as_json)
        return
    lines = [step_line(step) for step in initiator.recover(remove_leftovers=remove_leftovers)]
    deadline, token = _deadline(timeout_s), _token(token_file)
    for note in parts.notes().all():
        volumes = parts.volumes(_address(endpoint or note.endpoint), token)
        try:
            if volumes.settle(note, deadline):
                lines.append(RecoveryLine("done", _settling(note)))
        except LunportError as error:
            lines.append(RecoveryLine("failed", _settling(note), str(error)))
    show_recovery(lines, as_json=as_json)
    context.exit(1 if any(line.outcome == "failed" for line in lines) else 0)


@host.command()
@_OUTPUT
@click.pass_obj
def connector(parts: HostParts, as_json: bool) -> None:
    """Show what this host says of itself to the storage side."""
    fields = format_connector(parts.connector())
    if as_json:
        print_json(fields)
        return
    for key, value in fields.items():
        click.echo(f"{key:<20}{str(value).lower() if isinstance(value, bool) else value}")


host.add_command(paths)


# -- parts -------------------------------------------------------------------------------------


def _require_one(volume: str | None, info_file: IO[str] | None) -> None:
    if (volume is None) == (info_file is None):
        raise click.UsageError("Give a VOLUME or --connection-info, one of them.")


def _deadline(seconds: float) -> Deadline:
    if seconds != seconds:  # noqa: PLR0124 - "nan" passes every range
        raise click.UsageError("--timeout is a number of seconds.")
    return Deadline.after(seconds)


def _volumes(
    parts: HostParts, volume: str, endpoint: str | None, token_file: IO[str] | None
) -> HostVolumes:
    """Join this host with the service asked for, or else the one that made the attachment."""
    if endpoint is None:
        endpoint = next((note.endpoint for note in parts.notes().of(volume)), DEFAULT_ENDPOINT)
    return parts.volumes(_address(endpoint), _token(token_file))


def _address(endpoint: str) -> str:
    return endpoint.rstrip("/").removesuffix("/v3")


def _settling(note: AttachmentNote) -> str:
    return f"Delete attachment {note.attachment_id} of volume {note.volume_id}: it has no disk."


def _token(file: IO[str] | None) -> Secret | None:
    text = os.environ.get(TOKEN_VARIABLE, "") if file is None else file.read(_MAX_TOKEN)
    return Secret(text.strip()) if text.strip() else None


def _foresee_connect(
    parts: HostParts, volumes: HostVolumes, volume: str, deadline: Deadline
) -> list[str]:
    info = volumes.known(volume, deadline)
    endpoint = volumes.api.endpoint
    if info is None:
        who = parts.connector().initiator
        return [
            f"Ask {endpoint} for an attachment of volume {volume}, and keep its id.",
            f"Have the volume offered to {who}; the answer names the paths.",
            "Connect it through the first path that works, and verify its identity.",
            f"Tell {endpoint} that the volume is in use here.",
        ]
    return [*parts.initiator().foresee_connect(info)]


def _foresee_disconnect(parts: HostParts, volumes: HostVolumes, volume: str) -> list[str]:
    steps: list[str] = []
    for entry in parts.initiator().connections():
        if entry.volume_id == volume:
            steps += parts.initiator().foresee_disconnect(known_connection(entry, None))
    for note in parts.notes().of(volume):
        steps.append(f"Have {volumes.api.endpoint} delete attachment {note.attachment_id}.")
    return steps or ["Nothing: the volume is not connected on this host."]


def _show_change(change: Change, done: str, otherwise: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"change": change.value})
    else:
        click.echo(done if change is Change.CHANGED else otherwise)
