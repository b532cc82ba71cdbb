"""``lunport enrol``: which hosts' agents the volume service listens to; for administrators."""

from __future__ import annotations

from typing import IO

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

_ASKED = all_of(SERVICE, TIMEOUT, OUTPUT)


@click.group()
@click.pass_context
def enrol(context: click.Context) -> None:
    """Say which hosts' agents may ask the volume service for their own exports."""
    context.obj = context.obj or ExportParts()


@enrol.command()
@click.argument("host")
@click.option("--initiator", required=True, help="The host's initiator name.")
@_ASKED
@click.pass_obj
def add(
    parts: ExportParts,
    host: str,
    initiator: str,
    endpoint: str | None,
    token_file: IO[str] | None,
    timeout_s: float,
    as_json: bool,
) -> None:
    """Enrol HOST: its agent's certificate names it, its volumes go to that initiator.

    Both are shown on the host by `lunport host connector`. Repeating it changes nothing; another
    initiator for the same host needs `lunport enrol remove` first.
    """
    from lunport.client.block_storage import as_document  # noqa: PLC0415 - only now needed
    from lunport.client.guest_migrations import Enrolments  # noqa: PLC0415 - only now needed

    api = parts.api(address(endpoint or DEFAULT_ENDPOINT), read_token(token_file))
    done = Enrolments(api).add(host, initiator, deadline(timeout_s))
    if as_json:
        print_json(as_document(done))
        return
    one = done.enrolment
    first = "Enrolled" if done.change == "changed" else "It is enrolled"
    click.echo(f"{first}: host {one.host} with {one.initiator}.")


@enrol.command("list")
@_ASKED
@click.pass_obj
def list_(
    parts: ExportParts,
    endpoint: str | None,
    token_file: IO[str] | None,
    timeout_s: float,
    as_json: bool,
) -> None:
    """Show who is enrolled."""
    from lunport.client.block_storage import as_document  # noqa: PLC0415 - only now needed
    from lunport.client.guest_migrations import Enrolments  # noqa: PLC0415 - only now needed

    api = parts.api(address(endpoint or DEFAULT_ENDPOINT), read_token(token_file))
    found = Enrolments(api).list(deadline(timeout_s))
    if as_json:
        print_json(as_document(found))
        return
    for one in found:
        since = f"since {one.enrolled_at} UTC by {one.enrolled_by}"
        click.echo(f"{one.host}  {one.initiator}  {since}")
    if not found:
        click.echo("No host is enrolled.")


@enrol.command()
@click.argument("host")
@_ASKED
@click.pass_obj
def show(
    parts: ExportParts,
    host: str,
    endpoint: str | None,
    token_file: IO[str] | None,
    timeout_s: float,
    as_json: bool,
) -> None:
    """Show what the agent of HOST has told of its guests and connections, and when."""
    from lunport.client.block_storage import as_document  # noqa: PLC0415 - only now needed
    from lunport.client.guest_migrations import Enrolments  # noqa: PLC0415 - only now needed

    api = parts.api(address(endpoint or DEFAULT_ENDPOINT), read_token(token_file))
    told = Enrolments(api).reported(host, deadline(timeout_s))
    if as_json:
        print_json(None if told is None else as_document(told))
        return
    if told is None:
        click.echo(f"The agent of {host} has told nothing since the service was started.")
        return
    click.echo(f"{host}, as of {told.at} UTC")
    if told.error is not None:
        click.echo(f"  it does not know its guests: {told.error}")
    for guest in told.guests:
        click.echo(f"  guest       {guest.name}  {guest.state}")
        for volume in guest.volumes:
            where = volume.portal or "this host's kernel"
            problem = "" if volume.problem is None else f": {volume.problem}"
            click.echo(f"    {volume.target or '-':<6}{volume.volume_id}  {where}{problem}")
    for one in told.connections:
        name = one.volume_id or one.wwid or "unknown"
        click.echo(f"  connection  {name}  {one.phase}, {one.portal or 'no portal'}")


@enrol.command()
@click.argument("host")
@SERVICE
@TIMEOUT
@click.pass_obj
def remove(
    parts: ExportParts,
    host: str,
    endpoint: str | None,
    token_file: IO[str] | None,
    timeout_s: float,
) -> None:
    """Listen to the agent of HOST no more; what it has it keeps (`lunport export revoke`)."""
    from lunport.client.guest_migrations import Enrolments  # noqa: PLC0415 - only now needed

    api = parts.api(address(endpoint or DEFAULT_ENDPOINT), read_token(token_file))
    Enrolments(api).remove(host, deadline(timeout_s))
    click.echo(f"Host {host} is enrolled no more.")
