"""What can go wrong with the lab itself, apart from what the command in it does."""

from __future__ import annotations


class LabError(Exception):
    """The command's own end is not known; ``exit_status`` is what the lab ends with."""

    exit_status = 125


class LabCannot(LabError):
    """Something that the lab needs is not there."""

    exit_status = 126


class TimeIsUp(LabError):
    """The command and its machine took longer than they may."""

    exit_status = 124


class GuestDied(LabError):
    """The machine ended and the command had not: a panic, a crash, no way to start."""
