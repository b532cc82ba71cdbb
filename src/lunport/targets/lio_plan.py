"""What is to be done so that a target of LIO is as it shall be: one list, in order.

Decides from what was seen and does nothing itself. The sentences of the list say how the target
differs, its actions mend that: :meth:`LioHelper.compare` and :meth:`LioHelper.export` cannot
disagree. The order keeps a target shut until it is whole: a new one is enabled last, an ACL lets
nobody in before it has its credentials, and who is not wanted goes first.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lunport.core.iqn import fold_iqn
from lunport.host.lio import INHERITED_AUTH, NO_AUTH, LioAcl, LioAuth, LioTarget, LioTree
from lunport.targets.helper import Admission, Export, Unit
from lunport.targets.lio_units import LioUnits

# Every target demands CHAP; an ACL without credentials is exempt by its own attribute, so that what
# is half made lets nobody in.
# Demo mode never: besides letting everybody in, its ACLs race with LUN changes and can crash the
# kernel (6.1, core_tpg_add_node_to_devs).
ATTRIBUTES = {
    "generate_node_acls": "0",
    "cache_dynamic_acls": "0",
    "demo_mode_discovery": "0",
    "prod_mode_write_protect": "0",
    "authentication": "1",
}


@dataclass(frozen=True, slots=True)
class Step:
    """One difference: what is done, how it is told, and whether nobody may be logged in then."""

    name: str
    sentence: str
    act: Callable[[], object]
    needs_idle: bool = False


@dataclass(frozen=True, slots=True)
class Shape:
    """What all targets of a helper have alike: portals, and what a target's alias is."""

    portals: tuple[str, ...]
    alias: str


def plan_export(
    tree: LioTree,
    units: LioUnits,
    export: Export,
    seen: LioTarget | None,
    faults: Mapping[int, str],
    shape: Shape,
    *,
    lacking_discard: Collection[int] = (),
) -> tuple[Step, ...]:
    """List what makes a target so. ``faults`` are the wanted LUNs whose device is a wrong one."""
    target = seen or LioTarget()
    remade = {
        unit.lun for unit in export.units if unit.lun in faults or target.luns.get(unit.lun) is None
    }
    return (
        *_target_steps(tree, export.iqn, target, shape),
        *_leaving_steps(tree, units, export, target),
        *_unit_steps(tree, units, export, target, faults, lacking_discard),
        *(
            step
            for admission in export.admissions
            for step in plan_admission(
                tree,
                export.iqn,
                admission,
                target.acls.get(fold_iqn(admission.initiator)),
                frozenset(unit.lun for unit in export.units),
                remade,
            )
        ),
        *plan_portals(tree, export.iqn, target.portals, shape.portals),
        *(() if target.is_enabled else (_enabling(tree, export.iqn),)),
    )


def plan_admission(
    tree: LioTree,
    iqn: str,
    admission: Admission,
    acl: LioAcl | None,
    luns: Collection[int],
    remade: Collection[int] = (),
) -> Iterator[Step]:
    """List what makes an initiator's ACL so. ``luns`` are the target's, ``remade`` new ones."""
    name = fold_iqn(admission.initiator)
    what = f"initiator {admission.initiator}"
    if acl is None:
        yield Step(what, f"{what} is not admitted", partial(tree.add_acl, iqn, name))
        acl = LioAcl(LioAuth(), INHERITED_AUTH, {})
    auth = LioAuth.of(admission.chap)
    if admission.chap is None and acl.demands != NO_AUTH:
        sentence = f"{what} cannot log in without credentials"
        yield Step(what, sentence, partial(tree.set_demands, iqn, name, NO_AUTH))
    elif admission.chap is not None and acl.demands == NO_AUTH:
        sentence = f"{what} may log in without credentials"
        yield Step(what, sentence, partial(tree.set_demands, iqn, name, INHERITED_AUTH))
    if acl.auth != auth:
        act = partial(tree.set_auth, iqn, name, auth)
        yield Step(f"credentials of {what}", f"{what} has other credentials", act)
    wanted = set(luns) if admission.luns is None else set(admission.luns) & set(luns)
    for lun in sorted(acl.mapped.keys() - wanted):
        yield plan_hiding(tree, iqn, admission.initiator, lun)
    for lun in sorted(wanted):
        if lun in remade or acl.mapped.get(lun) != lun:
            act = partial(tree.map_lun, iqn, name, lun)
            yield Step(f"unit {lun} for {what}", f"{what} does not see unit {lun}", act)
        elif lun in acl.protected:
            act = partial(tree.unprotect, iqn, name, lun)
            yield Step(f"unit {lun} for {what}", f"{what} cannot write to unit {lun}", act)


def plan_hiding(tree: LioTree, iqn: str, initiator: str, lun: int) -> Step:
    """Hide a unit from an initiator."""
    what = f"initiator {initiator}"
    act = partial(tree.unmap_lun, iqn, fold_iqn(initiator), lun)
    return Step(f"unit {lun} for {what}", f"{what} sees unit {lun}", act)


def plan_unit_going(
    tree: LioTree, units: LioUnits, iqn: str, target: LioTarget, lun: int, why: str
) -> Iterator[Step]:
    """List what takes a unit off a target: hidden from all, then the LUN, then its device."""
    what = f"unit {lun}"
    for initiator, acl in target.acls.items():
        if lun in acl.mapped:
            yield plan_hiding(tree, iqn, initiator, lun)
    if lun in target.luns:
        yield Step(what, why, partial(tree.remove_lun, iqn, lun))
        device = target.luns[lun]
        if device is not None:
            yield Step(f"device of {what}", why, partial(units.drop, device))


def plan_unit_coming(
    tree: LioTree, units: LioUnits, iqn: str, unit: Unit, why: str
) -> Iterator[Step]:
    """List what puts a unit on a target; nobody sees it yet."""
    what = f"unit {unit.lun}"
    place = units.place_of(unit)
    yield Step(f"device of {what}", why, partial(units.make, iqn, unit))
    yield Step(what, why, partial(tree.add_lun, iqn, unit.lun, place))


def plan_portals(
    tree: LioTree, iqn: str, present: Collection[str], wanted: Collection[str]
) -> Iterator[Step]:
    """List what makes a target listen on exactly these portals."""
    for portal in sorted(set(present) - set(wanted)):
        act = partial(tree.remove_portal, iqn, portal)
        yield Step(f"portal {portal}", f"it listens on {portal}", act)
    for portal in wanted:
        if portal not in present:
            act = partial(tree.add_portal, iqn, portal)
            yield Step(f"portal {portal}", f"it does not listen on {portal}", act)


def _target_steps(
    tree: LioTree,
    iqn: str,
    target: LioTarget,
    shape: Shape,
) -> Iterator[Step]:
    if not target.has_group:
        yield Step("target", "it is not there", partial(tree.add_target, iqn))
    if target.alias != shape.alias:
        act = partial(tree.set_alias, iqn, shape.alias)
        yield Step("alias", f"its alias is not {shape.alias}", act)
    for name, value in ATTRIBUTES.items():
        if target.attributes.get(name, "") != value:
            act = partial(tree.set_attribute, iqn, name, value)
            yield Step(f"attribute {name}", f"its attribute {name} is not {value}", act)


def _leaving_steps(
    tree: LioTree, units: LioUnits, export: Export, target: LioTarget
) -> Iterator[Step]:
    wanted = {fold_iqn(one.initiator) for one in export.admissions}
    for initiator in sorted(target.acls.keys() - wanted):
        act = partial(tree.remove_acl, export.iqn, initiator)
        yield Step(f"initiator {initiator}", f"initiator {initiator} is admitted", act)
    staying = LioTarget(
        luns=target.luns,
        acls={name: acl for name, acl in target.acls.items() if name in wanted},
    )
    for lun in sorted(target.luns.keys() - {unit.lun for unit in export.units}):
        why = f"unit {lun} is there"
        yield from plan_unit_going(tree, units, export.iqn, staying, lun, why)


def _unit_steps(
    tree: LioTree,
    units: LioUnits,
    export: Export,
    target: LioTarget,
    faults: Mapping[int, str],
    lacking_discard: Collection[int],
) -> Iterator[Step]:
    for unit in export.units:
        what = f"unit {unit.lun}"
        if unit.lun in faults:
            why = f"{what}: {faults[unit.lun]}"
            for step in plan_unit_going(tree, units, export.iqn, target, unit.lun, why):
                yield Step(step.name, step.sentence, step.act, needs_idle=True)
            yield from plan_unit_coming(tree, units, export.iqn, unit, why)
        elif target.luns.get(unit.lun) is None:
            why = f"{what} is missing"
            yield from plan_unit_coming(tree, units, export.iqn, unit, why)
        elif unit.lun in lacking_discard:
            act = partial(_offer_discard, tree, target.luns[unit.lun])
            yield Step(f"discard of {what}", f"{what} does not offer discard", act)


def _offer_discard(tree: LioTree, place: Path | None) -> None:
    if place is not None:
        tree.set_unmap(place)


def _enabling(tree: LioTree, iqn: str) -> Step:
    return Step("enabling", "it is not enabled", partial(tree.set_enabled, iqn, enabled=True))
