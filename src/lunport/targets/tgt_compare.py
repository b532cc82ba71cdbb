"""Say in sentences how a tgt target differs from the export that it shall be."""

from __future__ import annotations

from collections.abc import Iterator

from lunport.core.iqn import Iqn
from lunport.host.tgt_show import ShownTarget
from lunport.targets.helper import Export
from lunport.targets.tgt_accounts import bound_users, chap_of, has_fingerprint, users_of
from lunport.targets.tgt_target import OneTarget
from lunport.targets.tgt_units import describe_difference, is_the_unit


def differences(
    target: OneTarget, found: tuple[ShownTarget, ...], export: Export
) -> tuple[str, ...]:
    """List what differs; ``found`` are the targets of that name and of that number."""
    by_name = next((one for one in found if one.name == export.iqn), None)
    other = next((one for one in found if one.name != export.iqn), None)
    said = []
    if other is not None:
        said.append(f"target {export.tid} is {other.name}")
    if by_name is None:
        said.append("there is no such target")
    elif by_name.tid != export.tid:
        said.append(f"it is target {by_name.tid}, not {export.tid}")
    else:
        said += _units(by_name, export)
        said += _credentials(target, by_name, export)
        said += _initiators(by_name, export)
    return tuple(said)


def _units(shown: ShownTarget, export: Export) -> Iterator[str]:
    present = {lun.lun: lun for lun in shown.luns}
    for unit in export.units:
        if unit.lun not in present:
            yield f"LUN {unit.lun} is missing"
        elif not is_the_unit(present[unit.lun], unit):
            yield describe_difference(present[unit.lun], unit)
    for lun in sorted(present.keys() - {unit.lun for unit in export.units}):
        yield f"LUN {lun} is there and shall not be"


def _credentials(target: OneTarget, shown: ShownTarget, export: Export) -> Iterator[str]:
    chap = chap_of(export)
    wanted, bound = users_of(chap), bound_users(shown)
    if wanted != bound:
        missing = sorted(set(wanted) - set(bound))
        surplus = sorted(set(bound) - set(wanted))
        for user in missing:
            yield f"account {user} is missing"
        for user in surplus:
            yield f"account {user} is there and shall not be"
        if not missing and not surplus:
            yield "its accounts are bound in the wrong direction"
    elif not has_fingerprint(target, chap):
        yield "its credentials are others"


def _initiators(shown: ShownTarget, export: Export) -> Iterator[str]:
    present = frozenset(map(Iqn, shown.initiators))
    for initiator in sorted(export.initiators - present):
        yield f"initiator {initiator} is not admitted"
    for initiator in sorted(present - export.initiators):
        yield f"initiator {initiator} is admitted and shall not be"
