"""``lunport guest migrate``: a running guest goes to another host, its volumes with it.

Works in this process, on the source, as ``lunport guest attach`` does; the other host's agent is
asked by TLS with this host's certificate (``LUNPORT_TLS``). Ctrl-C stops it and rolls it back.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import IO

import click

from lunport.agent.migrate_source import Moved, MoveWish, check, migrate, stop
from lunport.cli.exit_codes import ExitCode
from lunport.cli.guest_options import LIBVIRT, tokens
from lunport.cli.guest_parts import GuestCommandParts
from lunport.cli.host_options import (
    DEFAULT_ENDPOINT,
    OUTPUT,
    SERVICE,
    SERVICE_TOKEN,
    TIMEOUT,
    address,
    deadline,
)
from lunport.cli.host_output import print_json
from lunport.cli.path_options import all_of
from lunport.core.change import Change
from lunport.core.guest_disk import InitiatorKind
from lunport.core.host_name import parse_host_name
from lunport.core.migration_preflight import Finding, failures
from lunport.core.move_call import MoveOptions, MoveProgress

_MIB = 1 << 20
_BAR = 24

_HOW = all_of(
    click.option(
        "--bandwidth", type=click.IntRange(min=1), metavar="MIB", help="At most, a second."
    ),
    click.option(
        "--downtime",
        type=click.IntRange(min=1),
        metavar="MS",
        help="How long the guest may stand still at the end.",
    ),
    click.option(
        "--auto-converge", is_flag=True, help="Slow the guest down if it writes too fast."
    ),
    click.option(
        "--post-copy",
        is_flag=True,
        help="Run it there before all memory is; then it is lost with either host.",
    ),
    click.option(
        "--tls-memory", is_flag=True, help="Send the memory by TLS, of libvirt's certificates."
    ),
    click.option("--parallel", type=click.IntRange(1, 255), help="Over so many connections."),
    click.option(
        "--limit",
        "limit_s",
        type=click.FloatRange(min=1),
        metavar="SECONDS",
        help="Stop it, and roll it back, when the memory takes longer [default: no limit].",
    ),
)


@click.command("migrate")
@click.argument("guest")
@click.option("--to", "destination", metavar="HOST", help="Where it goes.")
@click.option(
    "--at",
    metavar="HOST[:PORT]",
    help="Where the agent of that host answers [default: by its name, port 8778].",
)
@click.option("--check", "only_checks", is_flag=True, help="Say whether it may go; change nothing.")
@click.option("--abort", is_flag=True, help="Stop a move of this guest that is under way.")
@click.option(
    "--shared",
    multiple=True,
    metavar="DISK",
    help="A disk (vdc) that both hosts reach alike and that is no volume of ours; may be repeated.",
)
@click.option(
    "--initiator",
    type=click.Choice([kind.value for kind in InitiatorKind]),
    help="Who reaches its volumes there [default: whoever does here].",
)
@click.option(
    "--migration-uri",
    metavar="URI",
    help="Where this libvirt reaches the other one [default: as the other agent says].",
)
@all_of(_HOW, LIBVIRT, SERVICE, SERVICE_TOKEN, TIMEOUT, OUTPUT)
@click.pass_obj
@click.pass_context
def migrate_(
    context: click.Context,
    parts: GuestCommandParts,
    guest: str,
    destination: str | None,
    at: str | None,
    only_checks: bool,
    abort: bool,
    shared: Sequence[str],
    initiator: str | None,
    migration_uri: str | None,
    bandwidth: int | None,
    downtime: int | None,
    auto_converge: bool,
    post_copy: bool,
    tls_memory: bool,
    parallel: int | None,
    limit_s: float | None,
    uri: str,
    endpoint: str | None,
    token_file: IO[str] | None,
    service_token_file: IO[str] | None,
    timeout_s: float,
    as_json: bool,
) -> None:
    """Move GUEST, which runs here, to another host while it runs.

    Everything is looked at first (--check stops there). What fails before the memory moves is
    undone; after that both hosts are asked where the guest lives, and one that cannot say is cut
    off from the volumes before the other is trusted. --timeout is for each part but the memory.
    Exit status 4: it may not go, or it is not known yet where it lives.
    """
    within = deadline(timeout_s)
    host = parts.migration_parts(uri, *tokens(token_file, service_token_file))
    if abort:
        change = stop(host, guest, within)
        _say_change(change, as_json=as_json)
        return
    if destination is None:
        raise click.UsageError("Say where it goes: --to HOST.")
    wish = MoveWish(
        guest=guest,
        destination=parse_host_name(destination, what="--to"),
        endpoint=address(endpoint or DEFAULT_ENDPOINT),
        at=at,
        shared=frozenset(shared),
        options=MoveOptions(
            bandwidth_mib_s=bandwidth,
            downtime_ms=downtime,
            auto_converge=auto_converge,
            postcopy=post_copy,
            tls=tls_memory,
            parallel=parallel,
        ),
        migration_uri=migration_uri,
        limit_s=limit_s,
        initiator=None if initiator is None else InitiatorKind(initiator),
    )
    if only_checks:
        findings = check(host, wish, within)
        _show_findings(findings, as_json=as_json)
        context.exit(ExitCode.CONFLICT if failures(findings) else ExitCode.OK)
    bar = _Bar(is_shown=sys.stderr.isatty() and not as_json)
    try:
        moved = migrate(host, wish, within, on_progress=bar.show)
    finally:
        bar.end()
    _show_moved(moved, wish.destination, as_json=as_json)


class _Bar:
    """One line on the terminal that is written over; the best that has been reached so far."""

    def __init__(self, *, is_shown: bool) -> None:
        self._is_shown = is_shown
        self._best = 0.0
        self._has_written = False

    def show(self, progress: MoveProgress) -> None:
        """Show one look."""
        self._best = max(self._best, progress.fraction)
        if self._is_shown:
            self._has_written = True
            click.echo(f"\r{progress_line(progress, self._best)}\x1b[K", nl=False, err=True)

    def end(self) -> None:
        """Leave the line."""
        if self._has_written:
            click.echo(err=True)


def progress_line(progress: MoveProgress, best: float) -> str:
    """Write how far it is: ``[######------]  52%  118 MiB/s, 96 MiB left, ...``."""
    full = round(best * _BAR)
    left = progress.remaining_bytes / _MIB
    estimate = progress.estimate_s
    ends = "does not converge" if estimate is None else f"about {estimate:.0f} s"
    return (
        f"[{'#' * full}{'-' * (_BAR - full)}] {best:4.0%}  "
        f"{progress.rate_bytes_s / _MIB:.0f} MiB/s, {left:.0f} MiB left, "
        f"guest writes {progress.dirty_bytes_s / _MIB:.0f} MiB/s, pass {progress.passes}, {ends}"
    )


def _show_findings(findings: Sequence[Finding], *, as_json: bool) -> None:
    if as_json:
        print_json(
            [
                {"subject": one.subject, "outcome": one.outcome.value, "detail": one.detail}
                for one in findings
            ]
        )
        return
    width = max(len(one.subject) for one in findings)
    for one in findings:
        click.echo(f"{one.outcome.value:<8} {one.subject:<{width}}  {one.detail}")


def _show_moved(moved: Moved, destination: str, *, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "migration_id": moved.migration_id,
                "guest_id": moved.guest.id,
                "guest": moved.guest.name,
                "host": destination,
                "fenced": moved.was_fenced,
                "volumes": [
                    {
                        "volume_id": one.volume_id,
                        "attachment_id": one.attachment_id,
                        "device_path": one.device_path,
                        "portal": one.portal,
                    }
                    for one in moved.volumes
                ],
                "left": list(moved.left),
            }
        )
        return
    click.echo(f"Guest {moved.guest.name} runs at {destination} (migration {moved.migration_id}).")
    for volume in moved.volumes:
        where = volume.device_path or f"{volume.portal}, by QEMU"
        click.echo(f"  {volume.volume_id}  {where}")
    if moved.was_fenced:
        click.echo("  This host was cut off from them before that was trusted.")
    for one in moved.left:
        click.echo(f"  left: {one}")


def _say_change(change: Change, *, as_json: bool) -> None:
    if as_json:
        print_json({"change": change.value})
    elif change is Change.CHANGED:
        click.echo("It is being stopped; whoever drives it rolls it back.")
    else:
        click.echo("No move of it is under way here.")
