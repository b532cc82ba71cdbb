"""LUN numbers of a target of several volumes: each once, and back as late as can be."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from lunport.core.lun_allocation import LunUse, allocate_lun

FIRST, LAST, AT_MOST = 1, 6, 4


@given(
    st.dictionaries(st.integers(0, 12), st.none() | st.integers(0, 99).map("{:02}".format)),
    st.integers(0, 3),
    st.integers(0, 12),
    st.integers(0, 12),
)
def test_a_number_is_free_and_allowed(
    known: dict[int, str | None], first: int, last: int, at_most: int
) -> None:
    """What is given is in the range and held by nobody; none is given only if none can be."""
    uses = [LunUse(lun, freed_at) for lun, freed_at in known.items()]
    held = {lun for lun, freed_at in known.items() if freed_at is None}
    lun = allocate_lun(uses, first=first, last=last, at_most=at_most)
    possible = set(range(first, last + 1)) - held
    if lun is None:
        assert not possible or len(held) >= at_most
        return
    assert lun in possible
    assert len(held) < at_most
    never_used = possible - known.keys()
    if never_used:
        assert lun == min(never_used)
    else:
        assert known[lun] == min(str(known[one]) for one in possible)


class Target(RuleBasedStateMachine):
    """A target whose units come and go."""

    def __init__(self) -> None:
        super().__init__()
        self.time = 0
        self.held: list[int] = []
        self.freed: dict[int, str] = {}

    def uses(self) -> list[LunUse]:
        """List what has been used."""
        free = [LunUse(lun, at) for lun, at in self.freed.items()]
        return [LunUse(lun, None) for lun in self.held] + free

    @precondition(lambda self: len(self.held) < AT_MOST)
    @rule()
    def attach(self) -> None:
        """Any number that was free is given after all that were never used, oldest first."""
        lun = allocate_lun(self.uses(), first=FIRST, last=LAST, at_most=AT_MOST)
        assert lun is not None
        assert lun not in self.held
        used = {*self.held, *self.freed}
        if len(used) < LAST - FIRST + 1:
            assert lun == FIRST + len(used)
        else:
            assert lun == min(self.freed, key=lambda one: self.freed[one])
        self.freed.pop(lun, None)
        self.held.append(lun)

    @precondition(lambda self: bool(self.held))
    @rule(which=st.integers(0, AT_MOST))
    def detach(self, which: int) -> None:
        """A number becomes free."""
        self.time += 1
        self.freed[self.held.pop(which % len(self.held))] = f"{self.time:05}"

    @invariant()
    def full_is_full(self) -> None:
        """A target that has all the units it may have gets none."""
        if len(self.held) == AT_MOST:
            assert allocate_lun(self.uses(), first=FIRST, last=LAST, at_most=AT_MOST) is None


TestTarget = Target.TestCase
