"""``lunport host``: volumes as disks of this host.

``connect`` and ``disconnect`` take a volume of the service, or a connection info from
wherever it came. Goes through the host's agent where one runs, and else does the same in this
process, which needs root and open-iscsi's daemon. Secrets come from files or the environment,
and are never shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import IO

import click

from lunport.agent.path_wish import PathWish
from lunport.agent.recovery_line import RecoveryLine
from lunport.bootstrap.host_volumes import HostVolumes, known_connection
from lunport.cli.host_options import (
    MULTIPATH,
    OUTPUT,
    PLAN,
    SERVICE,
    TIMEOUT,
    Asked,
    about_volume,
    address,
    deadline,
    read_token,
)
from lunport.cli.host_output import (
    forecast_line,
    print_json,
    show_connections,
    show_recovery,
    show_steps,
    show_volume,
)
from lunport.cli.host_parts import HostParts
from lunport.cli.path_options import all_of, path_wish_options
from lunport.cli.paths import paths
from lunport.core.change import Change
from lunport.core.connection_info import ConnectionInfo
from lunport.core.connector import format_connector
from lunport.core.errors import LunportError
from lunport.core.iqn import Iqn
from lunport.core.recovery_actions import Leftover
from lunport.host.attachment_notes import AttachmentNote
from lunport.host.clock import Deadline

_RECOVERY_S = 900.0


@click.group()
@click.pass_context
def host(context: click.Context) -> None:
    """Make volumes disks of this host, and unmake them."""
    context.obj = context.obj or HostParts()


@host.command()
@about_volume
@path_wish_options
@all_of(MULTIPATH, PLAN)
@click.pass_obj
def connect(
    parts: HostParts,
    asked: Asked,
    wish: PathWish,
    multipath: bool | None,
    enforce_multipath: bool,
    plan: bool,
    as_json: bool,
) -> None:
    """Make VOLUME a disk, through the first of its portals that works, or over all of them.

    The disk's path is the first line. The volume's identity is verified before the path is
    handed out. Repeating it changes nothing; a volume that is connected already is shown.
    """
    if enforce_multipath:
        if multipath is False:
            raise click.UsageError("--no-multipath and --enforce-multipath contradict each other.")
        multipath = True
    if asked.info is not None:
        info = asked.info
        if enforce_multipath:
            info = replace(info, enforce_multipath=True)
        if plan:
            show_steps(_foresee_connect(parts, info, multipath, wish), as_json=as_json)
            return
        connected = parts.verbs().connect(
            info, multipath=multipath, wish=wish, deadline=asked.deadline
        )
        show_volume(connected, info.volume_id, as_json=as_json)
        return
    volumes = asked.volumes(parts)
    connector = parts.connector(multipath=multipath, enforce_multipath=enforce_multipath)
    if plan:
        known = volumes.known(asked.volume, asked.deadline)
        if known is None:
            steps = _foresee_attachment(volumes, asked.volume, connector.initiator)
        else:
            wants_all = connector.multipath if multipath is None else multipath
            steps = _foresee_connect(parts, known, wants_all, wish)
        show_steps(steps, as_json=as_json)
        return
    connected = volumes.connect(
        asked.volume,
        connector,
        asked.deadline,
        multipath=multipath,
        wish=wish,
    )
    show_volume(connected, asked.volume, as_json=as_json)


@host.command()
@about_volume
@PLAN
@click.option("--force", is_flag=True, help="Also when what was written can't be brought over.")
@click.pass_obj
def disconnect(parts: HostParts, asked: Asked, plan: bool, force: bool, as_json: bool) -> None:
    """Take the disk of VOLUME away, and what only it needed.

    A disk that somebody has open is left alone (exit status 4). Repeating it changes nothing.
    """
    if asked.info is not None:
        if plan:
            show_steps(parts.initiator().foresee_disconnect(asked.info), as_json=as_json)
            return
        change = parts.verbs().disconnect(asked.info, force=force, deadline=asked.deadline)
    else:
        volumes = asked.volumes(parts)
        if plan:
            show_steps(_foresee_disconnect(parts, volumes, asked.volume), as_json=as_json)
            return
        change = volumes.disconnect(asked.volume, force=force, deadline=asked.deadline)
    _show_change(change, "Disconnected.", "It was not connected.", as_json=as_json)


@host.command()
@about_volume
@click.pass_obj
def extend(parts: HostParts, asked: Asked, as_json: bool) -> None:
    """Make the disk of VOLUME as large as the volume is now."""
    if asked.info is not None:
        size_bytes = parts.verbs().extend(asked.info, deadline=asked.deadline)
    else:
        size_bytes = asked.volumes(parts).extend(asked.volume, asked.deadline)
    if as_json:
        print_json({"size_bytes": size_bytes})
    else:
        click.echo(f"{size_bytes} bytes")


@host.command("list")
@OUTPUT
@click.pass_obj
def list_(parts: HostParts, as_json: bool) -> None:
    """Show what is connected, and leftovers that nobody's journal knows."""
    planned = parts.initiator().foresee_recover()
    show_connections(
        parts.verbs().connections(),
        parts.notes().all(),
        [str(action) for action in planned if isinstance(action, Leftover)],
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
@all_of(SERVICE, TIMEOUT, OUTPUT)
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

    The host's agent, where one runs, also connects again what was connected before a reboot.
    Disks that somebody has open are left alone. The exit status is 1 when something that was
    to be done could not be done.
    """
    if dry_run:
        lines = _foresee_recovery(parts, remove_leftovers=remove_leftovers)
        show_recovery(lines, as_json=as_json)
        return
    verbs = parts.verbs()
    # As long as it takes; the time given is for the service.
    within = Deadline.after(_RECOVERY_S)
    lines = [*verbs.recover(remove_leftovers=remove_leftovers, deadline=within)]
    until, token = deadline(timeout_s), read_token(token_file)
    for note in parts.notes().all():
        volumes = parts.volumes(address(endpoint or note.endpoint), token)
        try:
            if volumes.settle(note, until):
                lines.append(RecoveryLine("done", _settling(note)))
        except LunportError as error:
            lines.append(RecoveryLine("failed", _settling(note), str(error)))
    show_recovery(lines, as_json=as_json)
    context.exit(1 if any(line.outcome == "failed" for line in lines) else 0)


@host.command()
@all_of(MULTIPATH, OUTPUT)
@click.pass_obj
def connector(
    parts: HostParts, multipath: bool | None, enforce_multipath: bool, as_json: bool
) -> None:
    """Show what this host says of itself to the storage side."""
    found = parts.connector(multipath=multipath, enforce_multipath=enforce_multipath)
    fields = format_connector(found)
    if as_json:
        print_json(fields)
        return
    for key, value in fields.items():
        click.echo(f"{key:<20}{str(value).lower() if isinstance(value, bool) else value}")


host.add_command(paths)


# -- parts -------------------------------------------------------------------------------------


def _foresee_recovery(parts: HostParts, *, remove_leftovers: bool) -> list[RecoveryLine]:
    returning = parts.returning()
    lines = [
        RecoveryLine("would", again)
        if (again := returning.get(getattr(action, "key", ""))) is not None
        else forecast_line(action, remove_leftovers=remove_leftovers)
        for action in parts.initiator().foresee_recover()
    ]
    known = {entry.volume_id for entry in parts.verbs().connections()}
    return lines + [
        RecoveryLine("would", _settling(note))
        for note in parts.notes().all()
        if note.volume_id not in known
    ]


def _settling(note: AttachmentNote) -> str:
    return f"Delete attachment {note.attachment_id} of volume {note.volume_id}: it has no disk."


def _foresee_connect(
    parts: HostParts, info: ConnectionInfo, multipath: bool | None, wish: PathWish
) -> Sequence[str]:
    wants_all, policy = parts.here().intent(info, multipath, wish)
    return parts.initiator().foresee_connect(info, multipath=wants_all, policy=policy)


def _foresee_attachment(volumes: HostVolumes, volume: str, who: Iqn) -> Sequence[str]:
    endpoint = volumes.api.endpoint
    return [
        f"Ask {endpoint} for an attachment of volume {volume}, and keep its id.",
        f"Have the volume offered to {who}; the answer names the paths.",
        "Connect it through the first path that works, and verify its identity.",
        f"Tell {endpoint} that the volume is in use here.",
    ]


def _foresee_disconnect(parts: HostParts, volumes: HostVolumes, volume: str) -> list[str]:
    steps: list[str] = []
    for entry in parts.verbs().connections():
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
