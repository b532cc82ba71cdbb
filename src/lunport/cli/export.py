"""``lunport export``: what the volume service exports to whom, cutting hosts off, checking.

Everything is asked of the service, as administrator; nothing is done on this machine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, TypeVar

import click

from lunport.cli.exit_codes import ExitCode
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
from lunport.cli.tls_of_host import tls_of_host
from lunport.core.secret import Secret

if TYPE_CHECKING:
    from lunport.client.block_storage import BlockStorage, Checked, ExportList, Fenced

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ExportParts:
    """What the commands work with; a test replaces it."""

    def api(self, endpoint: str, token: Secret | None) -> BlockStorage:
        """Make a client of the volume service."""
        from lunport.client.block_storage import BlockStorage  # noqa: PLC0415 - only now needed

        return BlockStorage(endpoint, token=token, tls=tls_of_host())


_ASKED = all_of(SERVICE, TIMEOUT, OUTPUT)
_HOST = all_of(
    click.option("--host", "-H", help="The host's name, as its connector says it."),
    click.option("--initiator", help="Or the name of its initiator."),
    click.option("--volume", "volume_id", help="This volume alone [default: all]."),
)


@click.group()
@click.pass_context
def export(context: click.Context) -> None:
    """See and check what is exported to whom, and cut hosts off."""
    context.obj = context.obj or ExportParts()


@export.command("list")
@_ASKED
@click.pass_obj
def list_(
    parts: ExportParts,
    endpoint: str | None,
    token_file: IO[str] | None,
    timeout_s: float,
    as_json: bool,
) -> None:
    """Show each volume and the host that it is exported to, and who is cut off."""
    api = parts.api(address(endpoint or DEFAULT_ENDPOINT), read_token(token_file))
    found = api.list_exports(deadline(timeout_s))
    _show(found, _list_lines, as_json=as_json)


@export.command()
@_HOST
@click.option("--reason", default="", help="Kept, and told to who asks for the host.")
@_ASKED
@click.pass_obj
def revoke(
    parts: ExportParts,
    host: str | None,
    initiator: str | None,
    volume_id: str | None,
    reason: str,
    endpoint: str | None,
    token_file: IO[str] | None,
    timeout_s: float,
    as_json: bool,
) -> None:
    """Cut a host off: its sessions are dropped, and it can't log in or be connected.

    When this succeeds no write of the host arrives any more. Repeating it changes nothing.
    `lunport export restore` lets it in again.
    """
    _require_host(host, initiator)
    api = parts.api(address(endpoint or DEFAULT_ENDPOINT), read_token(token_file))
    done = api.revoke_host(
        deadline(timeout_s), host=host, initiator=initiator, volume_id=volume_id, reason=reason
    )
    _show(done, lambda one: _fenced_lines(one, "Cut off", "It was cut off."), as_json=as_json)


@export.command()
@_HOST
@_ASKED
@click.pass_obj
def restore(
    parts: ExportParts,
    host: str | None,
    initiator: str | None,
    volume_id: str | None,
    endpoint: str | None,
    token_file: IO[str] | None,
    timeout_s: float,
    as_json: bool,
) -> None:
    """Let a host in again: what it was connected to is exported exactly as it was.

    Without --volume whatever it was cut off from. Repeating it changes nothing.
    """
    _require_host(host, initiator)
    api = parts.api(address(endpoint or DEFAULT_ENDPOINT), read_token(token_file))
    done = api.restore_host(
        deadline(timeout_s), host=host, initiator=initiator, volume_id=volume_id
    )
    _show(done, lambda one: _fenced_lines(one, "Restored", "It was not cut off."), as_json=as_json)


@export.command()
@click.option("--repair", is_flag=True, help="Also mend what differs, one by one.")
@_ASKED
@click.pass_obj
@click.pass_context
def check(
    context: click.Context,
    parts: ExportParts,
    repair: bool,
    endpoint: str | None,
    token_file: IO[str] | None,
    timeout_s: float,
    as_json: bool,
) -> None:
    """Compare every target with what the service's database implies.

    The exit status is 8 when differences remain.
    """
    api = parts.api(address(endpoint or DEFAULT_ENDPOINT), read_token(token_file))
    found = api.check_exports(deadline(timeout_s), repair=repair)
    _show(found, _check_lines, as_json=as_json)
    context.exit(ExitCode.OK if found.whole else ExitCode.DEGRADED)


def _require_host(host: str | None, initiator: str | None) -> None:
    if not host and not initiator:
        raise click.UsageError("Give --host or --initiator.")


def _show(value: T, lines: Callable[[T], list[str]], *, as_json: bool) -> None:
    if as_json:
        from lunport.client.block_storage import as_document  # noqa: PLC0415 - only now needed

        print_json(as_document(value))
        return
    for line in lines(value):
        click.echo(line)


def _list_lines(found: ExportList) -> list[str]:
    lines = [
        f"{one.volume_id}  {one.state:<8}  {one.host or '-'}  {one.initiator}  "
        f"{one.iqn} LUN {one.lun}  {','.join(one.portals)}"
        for one in found.exports
    ]
    for gone in found.revocations:
        who = " ".join(filter(None, (gone.host, gone.initiator)))
        reason = f": {gone.reason}" if gone.reason else ""
        what = f"volume {gone.volume_id}" if gone.volume_id else "all volumes"
        since = f"since {gone.created_at} UTC by {gone.created_by}"
        lines.append(f"cut off  {who}  from {what} {since}{reason}")
    return lines or ["Nothing is exported."]


def _fenced_lines(done: Fenced, did: str, otherwise: str) -> list[str]:
    first = f"{did}." if done.change == "changed" else otherwise
    return [first, *(f"  volume    {one}" for one in done.volume_ids)]


def _check_lines(found: Checked) -> list[str]:
    lines: list[str] = []
    for backend in found.backends:
        left = sum(not one.mended for one in backend.differences)
        lines.append(f"{backend.name}  {backend.targets} targets  {left} differences")
        lines += [
            f"  {'mended' if one.mended else 'differs'}  {one.where}: {one.what}"
            for one in backend.differences
        ]
    return lines
