"""Refuse exports that no helper could offer, or that exceed what this one can.

Pure checks of values against a helper's limits, before anything is done. What only one
daemon would misread (its names, its paths) is that helper's to check.
"""

from __future__ import annotations

from collections.abc import Sequence

from lunport.core.errors import InvalidInput, InvalidLun
from lunport.targets.helper import Admission, Export, HelperLimits, Unit


def check_export(export: Export, limits: HelperLimits) -> None:
    """Refuse an export that is contradictory or too much. Raises: InvalidInput."""
    luns = [unit.lun for unit in export.units]
    for unit in export.units:
        check_unit(unit, limits)
    _check_order("units", luns)
    _check_order("admissions", [one.initiator for one in export.admissions])
    check_unit_count(len(luns), limits)
    for admission in export.admissions:
        check_admission(admission, limits)
        unknown = sorted((admission.luns or frozenset()) - set(luns))
        if unknown:
            raise InvalidInput("units seen", unknown, "the target has no such units")
    if not limits.own_credentials and len({one.chap for one in export.admissions}) > 1:
        names = ", ".join(one.initiator for one in export.admissions)
        raise InvalidInput("admissions", names, "the target has one pair of credentials for all")


def check_unit(unit: Unit, limits: HelperLimits) -> None:
    """Refuse a unit whose number the helper does not have. Raises: InvalidLun."""
    if not limits.min_lun <= unit.lun <= limits.max_lun:
        raise InvalidLun("LUN", unit.lun, f"the helper offers {limits.min_lun} to {limits.max_lun}")


def check_unit_count(count: int, limits: HelperLimits) -> None:
    """Refuse more units behind one target than it can have. Raises: InvalidInput."""
    if count > limits.max_units:
        raise InvalidInput("number of units", count, f"a target has at most {limits.max_units}")


def check_target_count(count: int, limits: HelperLimits) -> None:
    """Refuse more targets than the helper can have. Raises: InvalidInput."""
    if count > limits.max_targets:
        raise InvalidInput("number of targets", count, f"at most {limits.max_targets} fit")


def check_admission(admission: Admission, limits: HelperLimits) -> None:
    """Refuse a mask where every initiator sees every unit. Raises: InvalidInput."""
    if admission.luns is not None and not limits.masks_units:
        seen = ", ".join(map(str, sorted(admission.luns)))
        reason = "every initiator of this helper's targets sees all of their units"
        raise InvalidInput(f"units seen by {admission.initiator}", seen, reason)


def _check_order(what: str, keys: Sequence[int] | Sequence[str]) -> None:
    if list(keys) != sorted(set(keys)):  # type: ignore[type-var]
        raise InvalidInput(what, keys, "expected them in order, each once")
