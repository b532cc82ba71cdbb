"""``lunport host paths``: the paths of this host's volumes, wanted and achieved.

Shows, and changes nothing: what is missing is the business of whoever heals it. Exit status 8
when a volume has fewer live paths than are wanted, so that a script can ask.
"""

from __future__ import annotations

import click

from lunport.cli.exit_codes import ExitCode
from lunport.cli.host_parts import HostParts
from lunport.core.errors import AgentUnavailable, DeviceMissing
from lunport.core.path_status import VolumePaths, VolumeState
from lunport.core.wwid import same_wwid


@click.command()
@click.argument("which", metavar="[VOLUME|KEY]", required=False)
@click.option("--watch", is_flag=True, help="Go on, and show each change; Ctrl-C ends it.")
@click.option(
    "--interval",
    "interval_s",
    type=click.FloatRange(min=0.1, max=3600),
    default=1.0,
    show_default=True,
    help="Seconds between two looks of --watch.",
)
@click.option(
    "-o",
    "--output",
    "as_json",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    callback=lambda _context, _parameter, value: value == "json",
)
@click.pass_obj
@click.pass_context
def paths(
    context: click.Context,
    parts: HostParts,
    which: str | None,
    watch: bool,
    interval_s: float,
    as_json: bool,
) -> None:
    """Show the paths of VOLUME, or of all volumes of this host.

    VOLUME is the service's id, KEY what `lunport host list -o json` names it by; its WWID and
    its device do as well. The exit status is 8 when paths that are wanted are not live.
    """
    # Imported here: the other commands of a host need nothing of it.
    from lunport.cli import path_output  # noqa: PLC0415

    if interval_s != interval_s:  # noqa: PLR0124 - "nan" passes every range
        raise click.UsageError("--interval is a number of seconds.")
    host = parts.host_name()

    def look() -> tuple[VolumePaths, ...]:
        try:
            found = parts.verbs().paths()
        except AgentUnavailable:  # it ended between two questions, or is of another release
            found = parts.here().paths()
        return found if which is None else select(found, which)

    if watch:
        path_output.watch_paths(look, host, parts.pause(interval_s), as_json=as_json)
        return
    found = look()
    if which is not None and not found:
        raise DeviceMissing(f"Volume {which}", "it is not connected on this host")
    path_output.show_paths(found, host, as_json=as_json)
    whole = all(volume.state is VolumeState.OK for volume in found)
    context.exit(ExitCode.OK if whole else ExitCode.DEGRADED)


def select(volumes: tuple[VolumePaths, ...], which: str) -> tuple[VolumePaths, ...]:
    """Find what a person names: by volume id, key, WWID, or device."""
    device = which.removeprefix("/dev/")
    return tuple(
        volume
        for volume in volumes
        if which in {volume.volume_id, volume.key}
        or device in {volume.device, volume.map_name}
        or (volume.wwid is not None and same_wwid(volume.wwid, which))
    )
