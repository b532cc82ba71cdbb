"""What tgt can offer at most, and what it would misread: refused before anything is done.

Source: tgt 1.0.85, ``usr/target.c``, ``usr/mgmt.c``, ``usr/iscsi/iscsid.c``.

Quirk(tgt): an initiator name is searched for ``initiator-address=`` (``usr/mgmt.c``), so a
name holding that text could admit every address: ``=`` is refused.
Quirk(tgt): only one byte of a flat LUN is read: 257 would reach LUN 1. LUN 0 is its own
controller. So a target has at most 255 units, 1 to 255.
Quirk(tgt): accounts are bound to a target, not to an initiator, and every initiator of a
target sees all of its units: neither can differ within one target.
Quirk(tgt): targets have no limit of their own, but for each command of an initiator the list
of them is walked (``it_nexus_lookup``), and each unit has threads of its own.
"""

from __future__ import annotations

import re

from lunport.core.chap import Chap
from lunport.core.errors import InvalidInput, InvalidIqn
from lunport.targets import export_checks
from lunport.targets.helper import Admission, Export, HelperLimits, Unit
from lunport.targets.tgt_accounts import chap_of, users_of

LIMITS = HelperLimits(max_lun=255, max_units=255, max_targets=4096)
_TARGET_NAME = re.compile(r"[A-Za-z0-9:.-]+")
_INITIATOR_NAME = re.compile(r"[^\s,=\x00]+")
_WWID = re.compile(r"naa\.6[0-9a-f]{31}")


def check_export(export: Export) -> None:
    """Refuse what tgtd would misread or does not have. Raises: InvalidInput."""
    export_checks.check_export(export, LIMITS)
    if not 1 <= export.tid < 2**31:
        raise InvalidInput("target id", export.tid, "expected a positive 31-bit number")
    if not _TARGET_NAME.fullmatch(export.iqn):
        raise InvalidIqn("target name", export.iqn, "tgtd takes letters, digits, : . and -")
    for unit in export.units:
        check_unit(unit)
    for initiator in export.initiators:
        check_initiator(initiator)
    _check_chap(chap_of(export))


def check_unit(unit: Unit) -> None:
    """Refuse a number or an identity that tgtd would change. Raises: InvalidInput."""
    export_checks.check_unit(unit, LIMITS)
    if not _WWID.fullmatch(unit.identity.wwid):
        raise InvalidInput("identity", unit.identity.wwid, "expected naa.6 and 31 hex digits")


def check_admission(admission: Admission) -> None:
    """Refuse a mask, a misreadable name, the same account both ways. Raises: InvalidInput."""
    export_checks.check_admission(admission, LIMITS)
    check_initiator(admission.initiator)
    _check_chap(admission.chap)


def check_initiator(initiator: str) -> None:
    """Refuse a name that tgtd would take for something else. Raises: InvalidIqn."""
    if not _INITIATOR_NAME.fullmatch(initiator) or initiator == "ALL":
        raise InvalidIqn("initiator", initiator, "tgtd cannot tell spaces, commas or = apart")


def _check_chap(chap: Chap | None) -> None:
    users = users_of(chap)
    if len(set(users)) != len(users):
        raise InvalidInput("mutual username", users[0], "it must differ from the initiator's")
