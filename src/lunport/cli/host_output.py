"""How ``lunport host`` shows what it did and what there is: for people, or as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime

import click

from lunport.agent.recovery_line import RecoveryLine
from lunport.core.host_connection import HostConnection
from lunport.core.path_status import PathStatus
from lunport.core.recovery_actions import Leftover, RecoveryAction
from lunport.core.target_path import TargetPath
from lunport.host.attachment_notes import AttachmentNote
from lunport.initiator.connected_volume import ConnectedVolume


def print_json(value: object) -> None:
    """Print a document."""
    click.echo(json.dumps(value, indent=2))


def show_steps(steps: Sequence[str], *, as_json: bool) -> None:
    """Show what would be done, in order."""
    if as_json:
        print_json({"steps": list(steps)})
        return
    for number, step in enumerate(steps, 1):
        click.echo(f"{number:>2}  {step}")


def show_volume(volume: ConnectedVolume, volume_id: str | None, *, as_json: bool) -> None:
    """Show a connected volume, and why each other path is not used."""
    if as_json:
        print_json(
            {
                "path": volume.path,
                "change": volume.change.value,
                "volume_id": volume_id,
                "wwid": volume.wwid,
                "size_bytes": volume.size_bytes,
                "scsi_address": str(volume.unit),
                "used": _path_fields(volume.used),
                "unused": [
                    {"path": _path_fields(one.path), "reason": one.reason} for one in volume.unused
                ],
                "map_name": volume.map_name,
                "paths": [_status_fields(one) for one in volume.paths],
                "note": volume.note,
                "choice_s": round(volume.choice_s, 6),
                "elapsed_s": round(volume.elapsed_s, 6),
            }
        )
        return
    click.echo(volume.path)
    _show_rows(
        [
            ("volume", volume_id or "-"),
            ("identity", volume.wwid or "none"),
            ("size", f"{volume.size_bytes} bytes"),
            *_way_rows(volume),
            *([] if volume.note is None else [("note", volume.note)]),
            ("took", f"{volume.elapsed_s:.2f} s, {volume.choice_s:.2f} s of it for the choice"),
        ]
    )


def show_connections(
    connections: Sequence[HostConnection],
    notes: Sequence[AttachmentNote],
    leftovers: Sequence[str],
    damaged: Sequence[str],
    *,
    as_json: bool,
) -> None:
    """Show what the journal says is connected, and what nobody's journal knows.

    An attachment whose volume has no connection is shown as one without a disk.
    """
    attachments = {note.volume_id: note.attachment_id for note in notes}
    known = {one.volume_id for one in connections}
    bare = [note for note in notes if note.volume_id not in known]
    if as_json:
        print_json(
            {
                "connections": [_connection_fields(one, attachments) for one in connections],
                "attachments_without_disk": [
                    {"volume_id": note.volume_id, "attachment_id": note.attachment_id}
                    for note in bare
                ],
                "leftovers": list(leftovers),
                "damaged": list(damaged),
            }
        )
        return
    if not (connections or bare or leftovers or damaged):
        click.echo("Nothing is connected.")
    for one in connections:
        disk = "-" if one.disk_name is None else f"/dev/{one.disk_name}"
        click.echo(f"{disk}  {one.phase.value}")
        _show_rows(
            [
                ("volume", one.volume_id or "-"),
                ("identity", one.expected_wwid or "none"),
                ("size", "unknown" if one.size_bytes is None else f"{one.size_bytes} bytes"),
                ("used", str(one.used or "-")),
                ("paths", str(len(one.paths))),
                ("since", _moment(one.since)),
            ]
        )
    for note in bare:
        words = f"attachment {note.attachment_id} of volume {note.volume_id} has no disk here"
        click.echo(f"{words}: lunport host disconnect {note.volume_id}")
    for words in leftovers:
        click.echo(f"not ours  {words}")
    for words in damaged:
        click.echo(f"damaged   {words}")


def forecast_line(action: RecoveryAction, *, remove_leftovers: bool) -> RecoveryLine:
    """Say what would become of an action."""
    is_due = action.changes
    if isinstance(action, Leftover):
        is_due = remove_leftovers and action.is_removable
    return RecoveryLine("would" if is_due else "seen", str(action))


def show_recovery(lines: Sequence[RecoveryLine], *, as_json: bool) -> None:
    """Show what was done, what failed and why, and what was only seen."""
    if as_json:
        print_json({"actions": [asdict(line) for line in lines]})
        return
    if not lines:
        click.echo("Nothing to do.")
    for line in lines:
        click.echo(f"{line.outcome:<7} {line.sentence}")
        if line.error is not None:
            click.echo(f"{'':<7} {line.error}")


def _connection_fields(one: HostConnection, attachments: dict[str, str]) -> dict[str, object]:
    ours = None if one.volume_id is None else attachments.get(one.volume_id)
    return {
        "key": one.key,
        "phase": one.phase.value,
        "path": None if one.disk_name is None else f"/dev/{one.disk_name}",
        "volume_id": one.volume_id,
        "attachment_id": ours,
        "holders": list(one.holders),
        "wwid": one.wwid,
        "seen_wwid": one.seen_wwid,
        "size_bytes": one.size_bytes,
        "scsi_address": None if one.unit is None else str(one.unit),
        "used": None if one.used is None else _path_fields(one.used),
        "paths": [_path_fields(path) for path in one.paths],
        "since": _moment(one.since),
    }


def _way_rows(volume: ConnectedVolume) -> list[tuple[str, str]]:
    """Say which ways there are to the unit: those of its map, or the one that is used."""
    known = {one.path for one in volume.paths}
    if volume.map_name is None:
        rows, known = [("used", str(volume.used))], set()
    else:
        rows = [
            (one.state.value, f"{one.path}: {one.why}" if one.why else str(one.path))
            for one in volume.paths
        ]
    return rows + [
        ("not used", f"{one.path}: {one.reason}") for one in volume.unused if one.path not in known
    ]


def _status_fields(one: PathStatus) -> dict[str, object]:
    return {
        **_path_fields(one.path),
        "iface": one.iface,
        "state": one.state.value,
        "sid": one.sid,
        "device": one.device,
        "since": one.since,
        "why": one.why,
    }


def _path_fields(path: TargetPath) -> dict[str, object]:
    return {"portal": str(path.portal), "iqn": str(path.iqn), "lun": path.lun}


def _moment(since: float) -> str:
    return datetime.fromtimestamp(since, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _show_rows(rows: list[tuple[str, str]]) -> None:
    for name, value in rows:
        click.echo(f"  {name:<10}{value}")
