"""Exports of one unit with one pair of credentials for all: made, read and changed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from lunport.core.chap import Chap
from lunport.core.identity import LuIdentity
from lunport.core.iqn import Iqn
from lunport.targets.helper import Admission, Export, Unit


def single_export(
    iqn: Iqn,
    tid: int,
    path: Path,
    identity: LuIdentity,
    *,
    chap: Chap | None = None,
    initiators: Iterable[Iqn] = (),
    lun: int = 1,
) -> Export:
    """Describe a target with one unit."""
    return Export(iqn, tid, (Unit(lun, path, identity),), admissions(initiators, chap))


def admissions(initiators: Iterable[Iqn], chap: Chap | None) -> tuple[Admission, ...]:
    """Admit these with the same credentials, to all units."""
    return tuple(Admission(one, chap) for one in sorted(initiators))


def unit_of(export: Export) -> Unit:
    """Return the only unit."""
    (unit,) = export.units
    return unit


def chap_of(export: Export) -> Chap | None:
    """Return the credentials of all initiators."""
    (chap,) = {one.chap for one in export.admissions} or {None}
    return chap


def with_chap(export: Export, chap: Chap | None) -> Export:
    """Change the credentials of all initiators."""
    return replace(export, admissions=admissions(export.initiators, chap))


def admitting(export: Export, *initiators: Iqn) -> Export:
    """Change who may log in, with the same credentials."""
    return replace(export, admissions=admissions(initiators, chap_of(export)))


def with_image(export: Export, path: Path) -> Export:
    """Change where the unit's bytes are."""
    return replace(export, units=(replace(unit_of(export), path=path),))
