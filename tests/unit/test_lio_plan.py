"""What is done to a target of LIO, decided from what was seen; nothing is touched here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lunport.core.chap import Chap, ChapCredentials
from lunport.core.errors import InvalidInput
from lunport.core.identity import LuIdentity, derive_identity
from lunport.core.iqn import Iqn
from lunport.core.secret import Secret
from lunport.host.lio import LioAcl, LioAuth, LioTarget, LioTree
from lunport.targets.helper import Admission, Export, Unit
from lunport.targets.lio_plan import ATTRIBUTES, Shape, Step, plan_export
from lunport.targets.lio_units import LioUnits, digits_of

A = Iqn("iqn.2026-11.io.lunport.test:Host-A")
B = Iqn("iqn.2026-11.io.lunport.test:host-b")
CHAP = Chap(ChapCredentials("user", Secret("FirstSecret12345")))
MUTUAL = Chap(CHAP.initiator, ChapCredentials("target", Secret("MutualSecret1234")))
TREE = LioTree(Path("/nowhere"))
UNITS = LioUnits(TREE, direct_io=True, timeout_s=1)
SHAPE = Shape(("10.0.1.2:3260", "[fd00::2]:3260"), "prefix@fast#1")
ONE, TWO = (Unit(lun, Path(f"/images/{lun}"), derive_identity(f"volume-{lun}")) for lun in (1, 300))
EXPORT = Export(
    Iqn("iqn.2026-11.io.lunport:volume-x"),
    1,
    (ONE, TWO),
    (Admission(A, CHAP), Admission(B, None, frozenset({1}))),
)
WHOLE = LioTarget(
    has_group=True,
    is_enabled=True,
    alias=SHAPE.alias,
    attributes=ATTRIBUTES,
    portals=frozenset(SHAPE.portals),
    luns={unit.lun: UNITS.place_of(unit) for unit in (ONE, TWO)},
    acls={
        A.lower(): LioAcl(LioAuth.of(CHAP), "-1", {1: 1, 300: 300}),
        B: LioAcl(LioAuth(), "0", {1: 1}),
    },
)


def plan(
    seen: LioTarget | None, export: Export = EXPORT, faults: dict[int, str] | None = None
) -> tuple[Step, ...]:
    """Plan with the shape of all targets here."""
    return plan_export(TREE, UNITS, export, seen, faults or {}, SHAPE)


def sentences(seen: LioTarget | None, faults: dict[int, str] | None = None) -> list[str]:
    """Say what differs."""
    return [step.sentence for step in plan(seen, faults=faults)]


def with_acl(name: str, acl: LioAcl | None) -> LioTarget:
    """Have another ACL, or none."""
    others = {key: value for key, value in WHOLE.acls.items() if key != name}
    return replace(WHOLE, acls=others if acl is None else {**others, name: acl})


def test_a_whole_target_is_left_alone() -> None:
    """Nothing differs, nothing is done; capitals of an initiator make no difference."""
    assert plan(WHOLE) == ()


def test_a_new_target_is_shut_until_it_is_whole() -> None:
    """The target comes first and is enabled last; who gets in has credentials before units."""
    names = [step.name for step in plan(None)]
    assert names[0] == "target"
    assert names[-1] == "enabling"
    assert names.index("attribute generate_node_acls") < names.index("unit 1")
    mine = [name for name in names if A in name]
    assert mine == [
        f"initiator {A}",
        f"credentials of initiator {A}",
        f"unit 1 for initiator {A}",
        f"unit 300 for initiator {A}",
    ]
    assert names.index("device of unit 300") < names.index("unit 300") < names.index(mine[0])


@pytest.mark.parametrize(
    "seen, said",
    [
        (replace(WHOLE, is_enabled=False), "it is not enabled"),
        (replace(WHOLE, alias="LIO Target"), f"its alias is not {SHAPE.alias}"),
        (replace(WHOLE, portals=frozenset(SHAPE.portals[:1])), "it does not listen on [fd00::2]"),
        (
            replace(WHOLE, portals=frozenset({*SHAPE.portals, "10.9.9.9:3260"})),
            "it listens on 10.9.9.9:3260",
        ),
        (
            replace(WHOLE, attributes={**ATTRIBUTES, "generate_node_acls": "1"}),
            "its attribute generate_node_acls is not 0",
        ),
        (
            with_acl(B, LioAcl(LioAuth(), "-1", {1: 1})),
            f"initiator {B} cannot log in without credentials",
        ),
        (
            with_acl(A.lower(), LioAcl(LioAuth.of(CHAP), "0", {1: 1, 300: 300})),
            f"initiator {A} may log in without credentials",
        ),
        (
            with_acl(A.lower(), LioAcl(LioAuth.of(MUTUAL), "-1", {1: 1, 300: 300})),
            f"initiator {A} has other credentials",
        ),
        (
            with_acl(A.lower(), LioAcl(LioAuth.of(CHAP), "-1", {1: 1, 300: None})),
            f"initiator {A} does not see unit 300",
        ),
        (
            with_acl(A.lower(), LioAcl(LioAuth.of(CHAP), "-1", {1: 300, 300: 300})),
            f"initiator {A} does not see unit 1",
        ),
        (
            with_acl(A.lower(), LioAcl(LioAuth.of(CHAP), "-1", {1: 1, 300: 300}, frozenset({300}))),
            f"initiator {A} cannot write to unit 300",
        ),
        (with_acl(B, LioAcl(LioAuth(), "0", {1: 1, 300: 300})), f"initiator {B} sees unit 300"),
        (with_acl("iqn.2026-11.c:c", LioAcl(LioAuth(), "0", {})), "iqn.2026-11.c:c is admitted"),
    ],
)
def test_one_difference_is_one_sentence(seen: LioTarget, said: str) -> None:
    """Each thing that is missing, too much or other is told by itself, and nothing else is."""
    (sentence,) = sentences(seen)
    assert said in sentence
    assert not any(step.needs_idle for step in plan(seen))


def test_an_initiator_that_is_missing_is_told_with_all_that_it_lacks() -> None:
    """It is admitted, then may log in, and last sees its units."""
    assert sentences(with_acl(B, None)) == [
        f"initiator {B} is not admitted",
        f"initiator {B} cannot log in without credentials",
        f"initiator {B} does not see unit 1",
    ]


def test_a_lost_unit_takes_its_mappings_along() -> None:
    """A LUN without its device is made anew, and shown again to those that shall see it."""
    seen = replace(WHOLE, luns={**WHOLE.luns, 1: None})
    assert list(dict.fromkeys(sentences(seen))) == [
        "unit 1 is missing",
        f"initiator {A} does not see unit 1",
        f"initiator {B} does not see unit 1",
    ]


def test_a_wrong_device_needs_everybody_out() -> None:
    """It is hidden from all, taken away and made anew; only that cannot be done under a session."""
    steps = plan(WHOLE, faults={300: "it is not /images/300"})
    assert [(step.name, step.needs_idle) for step in steps] == [
        (f"unit 300 for initiator {A.lower()}", True),
        ("unit 300", True),
        ("device of unit 300", True),
        ("device of unit 300", False),
        ("unit 300", False),
        (f"unit 300 for initiator {A}", False),
    ]


def test_who_is_not_wanted_goes_before_anything_else_changes() -> None:
    """An initiator too many is refused before units are touched; a unit too many is hidden."""
    alone = replace(EXPORT, units=(ONE,), admissions=(Admission(B, None),))
    assert [step.name for step in plan(WHOLE, alone)] == [
        f"initiator {A.lower()}",
        "unit 300",
        "device of unit 300",
    ]


def test_no_sentence_and_no_step_shows_a_secret() -> None:
    """Steps may be printed."""
    assert "FirstSecret12345" not in repr(plan(None))


def test_what_lio_takes_for_none_is_known() -> None:
    """NULL in front of a name or secret, of either side."""
    assert not LioAuth.of(MUTUAL).is_misread()
    for name, secret in (("NULLuser", "x"), ("user", "NULL")):
        wrong = ChapCredentials(name, Secret(secret))
        assert LioAuth.of(Chap(wrong)).is_misread()
        assert LioAuth.of(Chap(CHAP.initiator, wrong)).is_misread()


def test_the_serial_is_what_the_identity_ends_in() -> None:
    """25 digits behind LIO's own prefix; another identity cannot be shown and is refused."""
    identity = derive_identity("volume-1")
    assert identity.wwid == f"naa.6001405{digits_of(identity)}"
    assert len(digits_of(identity)) == 25
    for wwid in ("naa.6001405" + "a" * 24, "naa.6001406" + "a" * 25, "eui.0123456789abcdef"):
        with pytest.raises(InvalidInput):
            digits_of(LuIdentity(wwid, "serial"))
