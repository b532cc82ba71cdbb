"""``lunport guest``: volumes as disks of guests.

Works in this process on the guests of one libvirt, which ``--libvirt`` names; what a volume needs
of the host's kernel goes through the host's agent where one runs. Needs root, as ``lunport host``.
"""

from __future__ import annotations

from typing import IO

import click

from lunport.agent.attach import AttachWish, attach
from lunport.agent.detach import detach, extend
from lunport.agent.guest_keeper import GuestKeeper
from lunport.agent.guest_view import view_guests
from lunport.agent.migration_keeper import MigrationKeeper
from lunport.cli.guest_migrate import migrate_
from lunport.cli.guest_options import LIBVIRT, tokens
from lunport.cli.guest_output import show_attached, show_guest, show_guests
from lunport.cli.guest_parts import GuestCommandParts
from lunport.cli.host_options import (
    DEFAULT_ENDPOINT,
    OUTPUT,
    SERVICE,
    SERVICE_TOKEN,
    TIMEOUT,
    TOKEN,
    address,
    deadline,
)
from lunport.cli.host_output import print_json, show_recovery
from lunport.cli.path_options import all_of
from lunport.core.attachment import AttachMode
from lunport.core.change import Change
from lunport.core.errors import GuestNotFound
from lunport.core.guest_disk import DiskBus, InitiatorKind

_GUEST = click.argument("guest")
_VOLUME = click.argument("volume")


@click.group()
@click.pass_context
def guest(context: click.Context) -> None:
    """Give guests volumes as disks, and take them away."""
    context.obj = context.obj or GuestCommandParts()


@guest.command("attach")
@_GUEST
@_VOLUME
@click.option(
    "--initiator",
    type=click.Choice([kind.value for kind in InitiatorKind]),
    default=InitiatorKind.KERNEL.value,
    show_default=True,
    help="Who reaches the volume: the host's kernel, or QEMU itself.",
)
@click.option(
    "--multipath/--no-multipath",
    default=None,
    help="Over all paths at once, or over one [default: all, where multipathd runs].",
)
@click.option("--read-only", is_flag=True, help="The guest may not write.")
@click.option(
    "--bus",
    type=click.Choice([bus.value for bus in DiskBus]),
    default=DiskBus.VIRTIO.value,
    show_default=True,
    help="On which bus the guest sees the disk.",
)
@click.option("--target", metavar="NAME", help="The disk's name, as vdb [default: the next free].")
@all_of(LIBVIRT, SERVICE, SERVICE_TOKEN, TIMEOUT, OUTPUT)
@click.pass_obj
def attach_(
    parts: GuestCommandParts,
    guest: str,
    volume: str,
    initiator: str,
    multipath: bool | None,
    read_only: bool,
    bus: str,
    target: str | None,
    uri: str,
    endpoint: str | None,
    token_file: IO[str] | None,
    service_token_file: IO[str] | None,
    timeout_s: float,
    as_json: bool,
) -> None:
    """Give GUEST the VOLUME as a disk, now and at its next start.

    A step that fails undoes those before it. Repeating it changes nothing, and finishes what
    was cut off.
    """
    if multipath and initiator == InitiatorKind.QEMU.value:
        raise click.UsageError("QEMU's initiator uses one path: --multipath is the kernel's.")
    wish = AttachWish(
        initiator=InitiatorKind(initiator),
        multipath=multipath,
        mode=AttachMode.READ_ONLY if read_only else AttachMode.READ_WRITE,
        bus=DiskBus(bus),
        target=target,
    )
    within = deadline(timeout_s)
    done = attach(
        parts.guest_parts(uri, *tokens(token_file, service_token_file)),
        guest,
        volume,
        address(endpoint or DEFAULT_ENDPOINT),
        wish,
        within,
    )
    show_attached(done, as_json=as_json)


@guest.command("detach")
@_GUEST
@_VOLUME
@all_of(LIBVIRT, TOKEN, SERVICE_TOKEN, TIMEOUT, OUTPUT)
@click.pass_obj
def detach_(
    parts: GuestCommandParts,
    guest: str,
    volume: str,
    uri: str,
    token_file: IO[str] | None,
    service_token_file: IO[str] | None,
    timeout_s: float,
    as_json: bool,
) -> None:
    """Take the disk of VOLUME from GUEST, once the guest has let go of it.

    Exit status 4: the guest refuses; 7: it did not answer. In both cases it has the disk as
    before. Repeating it changes nothing. The service asked is the one that made the attachment.
    """
    within = deadline(timeout_s)
    change = detach(
        parts.guest_parts(uri, *tokens(token_file, service_token_file)), guest, volume, within
    )
    if as_json:
        print_json({"change": change.value})
    else:
        click.echo("Detached." if change is Change.CHANGED else "It was not attached.")


@guest.command("extend")
@_GUEST
@_VOLUME
@all_of(LIBVIRT, TOKEN, SERVICE_TOKEN, TIMEOUT, OUTPUT)
@click.pass_obj
def extend_(
    parts: GuestCommandParts,
    guest: str,
    volume: str,
    uri: str,
    token_file: IO[str] | None,
    service_token_file: IO[str] | None,
    timeout_s: float,
    as_json: bool,
) -> None:
    """Let GUEST see how large VOLUME is now, while it runs."""
    within = deadline(timeout_s)
    size_bytes = extend(
        parts.guest_parts(uri, *tokens(token_file, service_token_file)), guest, volume, within
    )
    if as_json:
        print_json({"size_bytes": size_bytes})
    else:
        click.echo(f"{size_bytes} bytes")


@guest.command("list")
@all_of(LIBVIRT, TIMEOUT, OUTPUT)
@click.pass_obj
def list_(parts: GuestCommandParts, uri: str, timeout_s: float, as_json: bool) -> None:
    """Show the guests and their volumes."""
    within = deadline(timeout_s)
    show_guests(view_guests(parts.guest_parts(uri, None, None), within), as_json=as_json)


@guest.command("show")
@_GUEST
@all_of(LIBVIRT, TIMEOUT, OUTPUT)
@click.pass_obj
def show(parts: GuestCommandParts, guest: str, uri: str, timeout_s: float, as_json: bool) -> None:
    """Show one guest: each volume, how it is reached, and what is not as it shall be."""
    within = deadline(timeout_s)
    for one in view_guests(parts.guest_parts(uri, None, None), within, asks_portals=guest):
        if guest in (one.id, one.name):
            show_guest(one, as_json=as_json)
            return
    raise GuestNotFound(guest)


@guest.command("recover")
@all_of(LIBVIRT, TOKEN, SERVICE_TOKEN, TIMEOUT, OUTPUT)
@click.pass_obj
@click.pass_context
def recover(
    context: click.Context,
    parts: GuestCommandParts,
    uri: str,
    token_file: IO[str] | None,
    service_token_file: IO[str] | None,
    timeout_s: float,
    as_json: bool,
) -> None:
    """Finish or undo what killed commands left, and give libvirt its secrets again.

    The host's agent does it by itself, and starts guests after a reboot. The exit status is 1
    when something that was to be done could not be done.
    """
    given = tokens(token_file, service_token_file)
    keeper = GuestKeeper(parts.guest_parts(uri, *given))
    within = deadline(timeout_s)
    moves = MigrationKeeper(parts.migration_parts(uri, *given)).round(within)
    lines = [*moves, *keeper.finish(within), *keeper.keep_secrets(within)]
    show_recovery(lines, as_json=as_json)
    context.exit(1 if any(line.outcome == "failed" for line in lines) else 0)


guest.add_command(migrate_)
