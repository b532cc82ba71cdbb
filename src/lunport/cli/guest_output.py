"""How ``lunport guest`` shows what it did and what there is: for people, or as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import click

from lunport.agent.attach import Attached
from lunport.agent.guest_view import GuestView, GuestVolume
from lunport.cli.host_output import print_json
from lunport.core.guest_attachment import GuestAttachment
from lunport.core.guest_disk import GuestDisk


def show_attached(done: Attached, *, as_json: bool) -> None:
    """Show a volume that a guest has now."""
    if as_json:
        print_json({"change": done.change.value, **_entry_fields(done.entry, done.disk)})
        return
    click.echo(done.disk.target)
    _show_rows(_rows(done.entry, done.disk))


def show_guests(guests: Sequence[GuestView], *, as_json: bool) -> None:
    """Show guests, a line each and one for each of their volumes."""
    if as_json:
        print_json([_guest_fields(one) for one in guests])
        return
    if not guests:
        click.echo("There are no guests.")
    for one in guests:
        click.echo(f"{one.name}  {one.state}")
        for volume in one.volumes:
            problem = "" if volume.problem is None else f"  {volume.problem}"
            entry = volume.entry
            target = _target(entry, volume.disk)
            click.echo(f"  {target:<6}{entry.volume_id}  {entry.initiator.value}{problem}")


def show_guest(one: GuestView, *, as_json: bool) -> None:
    """Show one guest and all that is known of its volumes."""
    if as_json:
        print_json(_guest_fields(one))
        return
    click.echo(one.name)
    _show_rows(
        [
            ("id", one.id),
            ("state", f"{one.state} ({one.reason})"),
            ("starts", "with the host" if one.starts_with_host else "when somebody starts it"),
        ]
    )
    for volume in one.volumes:
        click.echo(_target(volume.entry, volume.disk))
        rows = _rows(volume.entry, volume.disk)
        rows.append(("has it", _where(volume)))
        if volume.problem is not None:
            rows.append(("problem", volume.problem))
        _show_rows(rows)


def _guest_fields(one: GuestView) -> dict[str, object]:
    return {
        "id": one.id,
        "name": one.name,
        "state": one.state,
        "reason": one.reason,
        "starts_with_host": one.starts_with_host,
        "volumes": [
            {
                **_entry_fields(volume.entry, volume.disk),
                "live": volume.is_live,
                "persistent": volume.is_persistent,
                "problem": volume.problem,
            }
            for volume in one.volumes
        ],
    }


def _entry_fields(entry: GuestAttachment, disk: GuestDisk | None) -> dict[str, object]:
    return {
        "guest_id": entry.guest_id,
        "guest": entry.guest_name,
        "volume_id": entry.volume_id,
        "attachment_id": entry.attachment_id,
        "phase": entry.phase.value,
        "initiator": entry.initiator.value,
        "target": entry.target,
        "bus": None if disk is None else disk.bus,
        "source": None if disk is None else disk.source,
        "portal": None if disk is None else disk.portal,
        "read_only": None if disk is None else disk.is_readonly,
        "shareable": None if disk is None else disk.is_shareable,
        "endpoint": entry.endpoint,
        "since": datetime.fromtimestamp(entry.since, UTC).isoformat(),
    }


def _rows(entry: GuestAttachment, disk: GuestDisk | None) -> list[tuple[str, str]]:
    rows = [("volume", entry.volume_id), ("initiator", entry.initiator.value)]
    if disk is not None:
        portal = "" if disk.portal is None else f" at {disk.portal}"
        rows.append(("source", f"{disk.source}{portal}"))
        marks = [
            word
            for word, is_so in (("read-only", disk.is_readonly), ("shared", disk.is_shareable))
            if is_so
        ]
        if marks:
            rows.append(("disk", ", ".join(marks)))
    rows.append(("attachment", entry.attachment_id or "none yet"))
    return rows


def _where(volume: GuestVolume) -> str:
    places = [
        word
        for word, is_so in (("now", volume.is_live), ("at its next start", volume.is_persistent))
        if is_so
    ]
    return " and ".join(places) or "not at all"


def _target(entry: GuestAttachment, disk: GuestDisk | None) -> str:
    return disk.target if disk is not None else entry.target or "-"


def _show_rows(rows: Sequence[tuple[str, str]]) -> None:
    for name, value in rows:
        click.echo(f"  {name:<12}{value}")
