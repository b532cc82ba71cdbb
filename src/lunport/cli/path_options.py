"""The options that say how several paths are used, for a connect and for the agent."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, TypeVar

import click

from lunport.agent.path_wish import PathWish, Ready
from lunport.core.multipath_use import StallProfile
from lunport.initiator.multipath_policy import MAX_QUEUE_S

Command = TypeVar("Command", bound=Callable[..., Any])
_MAX_READY = 256


def all_of(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Join decorators into one."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


class _Ready(click.ParamType[Ready]):
    name = "first|all|N"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> Ready:
        if value == "all":
            return "all"
        if value == "first":
            return 1
        digits = value[:9] if isinstance(value, str) and value.isascii() else ""
        if not digits.isdigit() or not 1 <= int(digits) <= _MAX_READY:
            self.fail(f"expected first, all, or 1 to {_MAX_READY}", param, ctx)
        return int(digits)


_PATH_OPTIONS = all_of(
    click.option(
        "--ready",
        type=_Ready(),
        help="How many paths must carry the disk before it is handed out [default: first].",
    ),
    click.option(
        "--queue-s",
        type=click.FloatRange(min=0, max=MAX_QUEUE_S),
        help="Seconds that I/O waits when all paths are gone, before it fails [default: 60].",
    ),
    click.option(
        "--stall",
        type=click.Choice([one.value for one in StallProfile]),
        help="How soon a silent path is given up [default: default].",
    ),
    click.option(
        "--resilient",
        is_flag=True,
        default=None,
        help="Let a disk with one path at a time move to another portal when its own dies.",
    ),
)


def path_wish_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Take these options, and pass the command one ``wish``."""

    @functools.wraps(command)
    def wished(
        *arguments: object,
        ready: Ready | None,
        queue_s: float | None,
        stall: str | None,
        resilient: bool | None,
        **options: object,
    ) -> object:
        if queue_s is not None and math.isnan(queue_s):  # it passes every range
            raise click.UsageError("--queue-s is a number of seconds.")
        profile = None if stall is None else StallProfile(stall)
        wish = PathWish(ready, queue_s, profile, resilient)
        return command(*arguments, wish=wish, **options)

    return _PATH_OPTIONS(wished)
