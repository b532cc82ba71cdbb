"""What exceeds a helper's limits, or contradicts itself, is refused with the number."""

from __future__ import annotations

from pathlib import Path

import pytest

from lunport.core.chap import Chap, ChapCredentials
from lunport.core.errors import InvalidInput, InvalidLun, PortalUnavailable
from lunport.core.identity import derive_identity
from lunport.core.iqn import Iqn
from lunport.core.portal import Portal
from lunport.core.secret import Secret
from lunport.targets.export_checks import check_export, check_target_count
from lunport.targets.helper import Admission, Export, HelperLimits, Unit
from tests.fakes.fake_helper import FakeHelper

NARROW = HelperLimits(max_lun=9, max_units=2, max_targets=3)
WIDE = HelperLimits(
    max_lun=9, max_units=9, max_targets=9, min_lun=0, masks_units=True, own_credentials=True
)
A, B = Iqn("iqn.2026-11.a:a"), Iqn("iqn.2026-11.a:b")
ONE, OTHER = (Chap(ChapCredentials(name, Secret(f"{name}Secret123456"))) for name in ("a", "b"))


def an_export(*luns: int, admissions: tuple[Admission, ...] = ()) -> Export:
    """Describe an export with these LUNs."""
    identity = derive_identity("0f0e0d0c-0b0a-4908-8706-050403020100")
    units = tuple(Unit(lun, Path("/image"), identity) for lun in luns)
    return Export(Iqn("iqn.2026-11.a:target"), 1, units, admissions)


@pytest.mark.parametrize(
    ("export", "words"),
    [
        (an_export(0), "1 to 9"),
        (an_export(10), "1 to 9"),
        (an_export(1, 2, 3), "at most 2"),
        (an_export(2, 1), "in order"),
        (an_export(1, 1), "in order"),
        (an_export(1, admissions=(Admission(B, None), Admission(A, None))), "in order"),
        (an_export(1, admissions=(Admission(A, ONE), Admission(B, OTHER))), "one pair"),
        (an_export(1, admissions=(Admission(A, ONE), Admission(B, None))), "one pair"),
        (an_export(1, admissions=(Admission(A, ONE, frozenset({1})),)), "sees all"),
    ],
)
def test_what_cannot_be_is_refused_in_words(export: Export, words: str) -> None:
    """Each limit has its sentence, and no sentence has a secret."""
    with pytest.raises(InvalidInput, match=words) as caught:
        check_export(export, NARROW)
    assert "Secret" not in str(caught.value)


def test_what_a_helper_can_is_accepted() -> None:
    """Masks, own credentials and LUN 0 pass where the limits allow them."""
    admissions = (Admission(A, ONE, frozenset({0})), Admission(B, OTHER))
    check_export(an_export(0, 1, 2, admissions=admissions), WIDE)
    with pytest.raises(InvalidLun):
        check_export(an_export(10), WIDE)
    with pytest.raises(InvalidInput, match="no such units"):
        check_export(an_export(1, admissions=admissions), WIDE)


def test_the_number_of_targets_is_bounded() -> None:
    """As many as the limit fit, and one more is refused with the number."""
    check_target_count(3, NARROW)
    with pytest.raises(InvalidInput, match="at most 3"):
        check_target_count(4, NARROW)


def test_the_fake_misses_portals_as_a_helper_does() -> None:
    """An absent portal is missing until a start finds it; without any there is no start."""
    portals = (Portal("192.0.2.1"), Portal("192.0.2.2"))
    fake = FakeHelper(portals)
    fake.absent = set(portals)
    with pytest.raises(PortalUnavailable):
        fake.start()
    fake.absent = {portals[0]}
    fake.start()
    missing = fake.missing_portals
    fake.absent.clear()
    fake.start()
    assert (missing, fake.missing_portals) == (portals[:1], ())
