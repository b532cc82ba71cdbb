"""Lunport behind os-brick's names: code written for os-brick runs by changing its imports.

    from lunport.compat.os_brick.initiator import connector
    from lunport.compat.os_brick import exception

What is here has os-brick's names, signatures, result keys and meanings of exceptions (read in
os-brick 7.1.1), for iSCSI alone; what it does is :mod:`lunport.initiator`'s. Where the two differ
on purpose is in ``docs/reference/os-brick.md``. Needs nothing but the standard library, and root.
"""

from __future__ import annotations

import logging

_LOG = logging.getLogger(__name__)


def setup(conf: object, **kwargs: object) -> None:
    """Do nothing: os-brick is told here where its locks are; Lunport's have one place a host."""
    _LOG.debug("setup_ignored conf=%s arguments=%s", type(conf).__name__, sorted(kwargs))
