"""``lunport migration``: the volume service's record of guests' moves; for administrators."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING

import click

from lunport.cli.export import ExportParts
from lunport.cli.host_options import (
    DEFAULT_ENDPOINT,
    OUTPUT,
    SERVICE,
    TIMEOUT,
    address,
    deadline,
    read_token,
)
from lunport.cli.host_output import print_json
from lunport.cli.path_options import all_of
from lunport.core.migration_plan import Side, State

if TYPE_CHECKING:
    from lunport.client.guest_migrations import GuestMigrations, Migration

_ASKED = all_of(SERVICE, TIMEOUT, OUTPUT)
_CONFIRM = "The other side is cut off from the volumes. Its guest, if it runs, loses them. Go on?"


@click.group()
@click.pass_context
def migration(context: click.Context) -> None:
    """See guests' moves between hosts, and end one that its agents cannot end."""
    context.obj = context.obj or ExportParts()


@migration.command("list")
@click.option("--all", "with_done", is_flag=True, help="Also those that are done.")
@_ASKED
@click.pass_obj
def list_(
    parts: ExportParts,
    with_done: bool,
    endpoint: str | None,
    token_file: IO[str] | None,
    timeout_s: float,
    as_json: bool,
) -> None:
    """Show the moves that are open: guest, hosts, how far it is."""
    found = _moves(parts, endpoint, token_file).list(deadline(timeout_s), with_done=with_done)
    if as_json:
        _print(found)
        return
    for one in found:
        click.echo(f"{one.id}  {one.guest}  {one.source} -> {one.destination}  {_state(one)}")
    if not found:
        click.echo("No migration is open." if not with_done else "There was no migration.")


@migration.command()
@click.argument("migration_id", metavar="ID")
@_ASKED
@click.pass_obj
def show(
    parts: ExportParts,
    migration_id: str,
    endpoint: str | None,
    token_file: IO[str] | None,
    timeout_s: float,
    as_json: bool,
) -> None:
    """Show one, with what happened to it."""
    one = _moves(parts, endpoint, token_file).get(migration_id, deadline(timeout_s))
    _show(one, as_json=as_json)


@migration.command()
@click.argument("migration_id", metavar="ID")
@click.option(
    "--keep",
    type=click.Choice([side.value for side in Side]),
    help="Where the guest shall live; the other side is fenced.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@_ASKED
@click.pass_obj
def abort(
    parts: ExportParts,
    migration_id: str,
    keep: str | None,
    yes: bool,
    endpoint: str | None,
    token_file: IO[str] | None,
    timeout_s: float,
    as_json: bool,
) -> None:
    """Give up a move that has not begun; or end one, by keeping one side.

    Without --keep only what has not moved yet is given up. With it the other side is cut off
    from the guest's volumes before this returns, whatever runs there.
    """
    if keep is not None and not yes:
        click.confirm(_CONFIRM, abort=True, err=True)
    moves = _moves(parts, endpoint, token_file)
    side = None if keep is None else Side(keep)
    _show(moves.abort(migration_id, deadline(timeout_s), keep=side), as_json=as_json)


def _moves(parts: ExportParts, endpoint: str | None, token_file: IO[str] | None) -> GuestMigrations:
    from lunport.client.guest_migrations import GuestMigrations  # noqa: PLC0415 - only now needed

    return GuestMigrations(parts.api(address(endpoint or DEFAULT_ENDPOINT), read_token(token_file)))


def _show(one: Migration, *, as_json: bool) -> None:
    if as_json:
        _print(one)
        return
    click.echo(f"{one.id}  {_state(one)}")
    click.echo(f"  guest        {one.guest}")
    for side in Side:
        said = one.told[side]
        whose = "" if said.word == "unknown" else " (itself)" if said.first_hand else " (hearsay)"
        host = one.source if side is Side.SOURCE else one.destination
        click.echo(f"  {side.value:<11}  {host}: {said.word}{whose}")
    for volume in one.volumes:
        ends = f"{volume.source_attachment} -> {volume.destination_attachment or 'none yet'}"
        click.echo(f"  volume       {volume.volume_id}: {ends}")
    for event in one.events:
        click.echo(f"  {event.at}  {event.what}, by {event.who}")


def _state(one: Migration) -> str:
    reason = f": {one.reason}" if one.reason else ""
    if one.winner is None:
        return f"{one.state}{reason}"
    ended = "lives" if one.state is State.DONE else "shall live"
    fence = ", the other side was fenced" if one.fenced else ""
    host = one.source if one.winner is Side.SOURCE else one.destination
    return f"{one.state}, the guest {ended} at {host}{fence}{reason}"


def _print(value: object) -> None:
    from lunport.client.block_storage import as_document  # noqa: PLC0415 - only now needed

    print_json(as_document(value))
