"""Printing the paths of volumes: once, or again whenever something changed.

On a terminal the view is redrawn in its place; elsewhere each change is a line, as JSON one
document a line. What the view looks like is :mod:`lunport.cli.path_view`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import click
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from lunport.cli.path_view import PathView, volume_name
from lunport.core.path_changes import PathChange, path_changes
from lunport.core.path_report import format_path_report
from lunport.core.path_status import VolumePaths

Look = Callable[[], tuple[VolumePaths, ...]]
# Waits for the next look; tells whether to end.
Pause = Callable[[], bool]

_GONE = "gone"
_NOTHING = "Nothing is connected."


def make_console() -> Console:
    """Make what the view is printed on."""
    return Console(highlight=False, emoji=False, markup=False, soft_wrap=True)


def show_paths(volumes: Sequence[VolumePaths], host: str, *, as_json: bool) -> None:
    """Print what there is now."""
    if as_json:
        documents = [format_path_report(volume) for volume in volumes]
        click.echo(json.dumps({"host": host, "volumes": documents}, indent=2))
        return
    console = make_console()
    for line in draw_paths(volumes, console, host):
        console.print(line)


def watch_paths(look: Look, host: str, pause: Pause, *, as_json: bool) -> None:
    """Show what there is, and again what changed, until the pause ends it."""
    console = make_console()
    if console.is_terminal and not console.is_dumb_terminal and not as_json:
        watch_on_terminal(look, console, host, pause)
    else:
        watch_in_lines(look, host, pause, encoding=console.encoding, as_json=as_json)


def watch_on_terminal(look: Look, console: Console, host: str, pause: Pause) -> None:
    """Keep the view in its place on the terminal."""
    with Live(console=console, auto_refresh=False, vertical_overflow="ellipsis") as live:
        shown: list[Text] = []
        is_over = False
        while not is_over:
            lines = draw_paths(look(), console, host)
            if lines != shown:
                live.update(Group(*lines), refresh=True)
                shown = lines
            is_over = pause()


def watch_in_lines(
    look: Look, host: str, pause: Pause, *, encoding: str = "utf-8", as_json: bool
) -> None:
    """Print a line for each path at first, and then for each change.

    As JSON: a line for each volume at first, and then for each that has changed or is gone.
    """
    seen: tuple[VolumePaths, ...] = ()
    is_over = False
    while not is_over:
        now = look()
        changes = path_changes(seen, now)
        lines = _documents(changes, now, host) if as_json else _sentences(changes, encoding)
        for line in lines:
            click.echo(line)
        seen = now
        is_over = pause()


def draw_paths(volumes: Sequence[VolumePaths], console: Console, host: str) -> list[Text]:
    """Draw the volumes as a console can show them now."""
    if not volumes:
        return [Text(_NOTHING)]
    width = console.width if console.is_terminal else None
    return PathView(host, time.time(), width, console.encoding).lines(volumes)


def _sentences(changes: Sequence[PathChange], encoding: str) -> list[str]:
    at, view = _moment(), PathView("", 0.0, encoding=encoding)
    return [view.clean(f"{at}  {_sentence(change)}") for change in changes]


def _sentence(change: PathChange) -> str:
    status = change.status
    states = [_GONE if change.after is None else change.after.value]
    if change.before is not None:
        states.insert(0, change.before.value)
    words = [volume_name(change.volume), str(status.path.portal), " -> ".join(states)]
    if change.after is not None and status.why:
        words.append(" ".join(status.why.split()))
    return "  ".join(words)


def _documents(changes: Sequence[PathChange], now: Sequence[VolumePaths], host: str) -> list[str]:
    present = {volume.key: volume for volume in now}
    at = _moment()
    return [
        json.dumps(
            {
                "at": at,
                "host": host,
                "key": key,
                "volume": format_path_report(present[key]) if key in present else None,
            }
        )
        for key in dict.fromkeys(change.volume.key for change in changes)
    ]


def _moment() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
