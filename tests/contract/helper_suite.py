"""What every target helper keeps: the tests, for a helper and initiators that a ``bench`` brings.

A test file makes it its own by a ``bench`` fixture and a subclass whose name begins with
``Test``: ``test_helper_contract.py`` for the fake and tgt, one of the lab for LIO.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lunport.core.change import Change
from lunport.core.chap import Chap, ChapCredentials
from lunport.core.errors import (
    ExportFailed,
    InvalidInput,
    InvalidIqn,
    InvalidLun,
    InvalidState,
    TargetDaemonDown,
)
from lunport.core.identity import derive_identity
from lunport.core.iqn import Iqn
from lunport.core.secret import Secret
from lunport.host.clock import Deadline
from lunport.host.tasks import Stop
from lunport.targets.helper import Admission, Export, Unit
from tests.contract.helper_bench import MIB, A, B, Bench, RefusedError, seen, volume_id_of
from tests.single_exports import (
    admitting,
    chap_of,
    with_chap,
    with_image,
)


def _grow(path: Path, size_bytes: int) -> None:
    with path.open("ab") as file:
        file.truncate(size_bytes)


def _another_identity(bench: Bench, export: Export) -> None:
    other = replace(export.units[1], identity=derive_identity(volume_id_of(999)))
    bench.helper.export(replace(export, units=(export.units[0], other)))


def _another_image(bench: Bench, export: Export) -> None:
    other = replace(export.units[1], path=bench.image("another"))
    bench.helper.export(replace(export, units=(export.units[0], other)))


def _another_secret(bench: Bench, export: Export) -> None:
    other = ChapCredentials("user1", Secret("SecondSecret1234"))
    bench.helper.export(with_chap(export, Chap(other)))


Difference = Callable[[Bench, Export], object]
DIFFERENCES: dict[str, Difference] = {
    "no target": lambda bench, export: bench.helper.unexport(export.iqn, export.tid),
    "no unit": lambda bench, export: bench.helper.unmap_unit(export.iqn, export.tid, 2),
    "a unit too many": lambda bench, export: bench.helper.map_unit(
        export.iqn, export.tid, bench.unit(3), frozenset({A})
    ),
    "another image": _another_image,
    "another identity": _another_identity,
    "another secret": _another_secret,
    "an initiator too many": lambda bench, export: bench.helper.allow(
        export.iqn, export.tid, Admission(B, chap_of(export))
    ),
}


class HelperContract:
    """The suite."""

    def test_an_export_is_shown_as_it_was_made(self, bench: Bench) -> None:
        """What was exported is listed, several beside each other, and nothing else."""
        one, two = bench.export(1), bench.export(2, initiators=frozenset({A, B}), chap=None)
        assert bench.helper.export(one) is Change.CHANGED
        assert bench.helper.export(two) is Change.CHANGED
        assert bench.helper.exports() == (seen(one), seen(two))

    def test_exporting_twice_disturbs_nobody(self, bench: Bench) -> None:
        """A repeated export changes nothing, and the sessions stay."""
        export = bench.export()
        bench.helper.export(export)
        assert bench.can_log_in(export, A, chap_of(export))
        assert bench.helper.export(export) is Change.UNCHANGED
        assert bench.helper.export(export) is Change.UNCHANGED
        assert bench.helper.exports() == (seen(export, sessions=1),)
        assert bench.helper.export(export) is Change.UNCHANGED

    def test_unexporting_leaves_nothing_and_may_be_repeated(self, bench: Bench) -> None:
        """After an unexport the target is gone; doing it again changes nothing."""
        export = bench.export()
        bench.helper.export(export)
        assert bench.helper.unexport(export.iqn, export.tid) is Change.CHANGED
        assert bench.helper.unexport(export.iqn, export.tid) is Change.UNCHANGED
        assert bench.helper.exports() == ()
        assert bench.helper.export(export) is Change.CHANGED

    def test_unexporting_ends_live_sessions(self, bench: Bench) -> None:
        """A target is taken away although an initiator is logged in."""
        export = bench.export()
        bench.helper.export(export)
        assert bench.can_log_in(export, A, chap_of(export))
        assert bench.helper.unexport(export.iqn, export.tid) is Change.CHANGED
        assert bench.helper.exports() == ()

    def test_only_the_admitted_log_in_and_only_with_the_secret(self, bench: Bench) -> None:
        """Another initiator, a wrong secret and no secret are refused."""
        export = bench.export()
        bench.helper.export(export)
        wrong = Chap(ChapCredentials("user1", Secret("WrongSecret12345")))
        assert not bench.can_log_in(export, B, chap_of(export))
        assert not bench.can_log_in(export, A, wrong)
        assert not bench.can_log_in(export, A, None)
        assert bench.can_log_in(export, A, chap_of(export))

    def test_nobody_is_admitted_by_an_empty_set(self, bench: Bench) -> None:
        """An export without initiators shows itself to none."""
        export = bench.export(initiators=frozenset(), chap=None)
        bench.helper.export(export)
        assert not bench.can_log_in(export, A, None)

    def test_allowing_and_disallowing_say_what_they_changed(self, bench: Bench) -> None:
        """Each is done once and then changes nothing, and the list shows it."""
        export = bench.export()
        bench.helper.export(export)
        assert (
            bench.helper.allow(export.iqn, export.tid, Admission(B, chap_of(export)))
            is Change.CHANGED
        )
        assert (
            bench.helper.allow(export.iqn, export.tid, Admission(B, chap_of(export)))
            is Change.UNCHANGED
        )
        assert bench.can_log_in(export, B, chap_of(export))
        assert bench.helper.disallow(export.iqn, export.tid, B) is Change.CHANGED
        assert bench.helper.disallow(export.iqn, export.tid, B) is Change.UNCHANGED
        assert not bench.can_log_in(export, B, chap_of(export))
        assert bench.helper.exports() == (seen(export),)

    def test_disallowing_drops_that_initiator_alone(self, bench: Bench) -> None:
        """The sessions of the refused initiator end before the verb returns; the others stay."""
        export = bench.export(initiators=frozenset({A, B}))
        bench.helper.export(export)
        assert bench.can_log_in(export, A, chap_of(export))
        assert bench.can_log_in(export, B, chap_of(export))
        assert bench.helper.exports() == (seen(export, sessions=2),)
        assert bench.helper.disallow(export.iqn, export.tid, A) is Change.CHANGED
        assert bench.helper.exports() == (seen(admitting(export, B), sessions=1),)

    def test_exporting_again_makes_the_initiators_exactly_so(self, bench: Bench) -> None:
        """Initiators that are not wanted any more lose their sessions, new ones come in."""
        export = bench.export()
        bench.helper.export(export)
        assert bench.can_log_in(export, A, chap_of(export))
        other = admitting(export, B)
        assert bench.helper.export(other) is Change.CHANGED
        assert bench.helper.exports() == (seen(other),)
        assert bench.helper.export(other) is Change.UNCHANGED

    def test_an_absent_target_is_told_apart(self, bench: Bench) -> None:
        """Nobody can be allowed at a target that is not there; refusing there changes nothing."""
        export = bench.export()
        with pytest.raises(ExportFailed):
            bench.helper.allow(export.iqn, export.tid, Admission(A, chap_of(export)))
        assert bench.helper.disallow(export.iqn, export.tid, A) is Change.UNCHANGED

    def test_new_credentials_take_over_without_ending_sessions(self, bench: Bench) -> None:
        """After a change of the secret only the new one logs in; who was in stays in."""
        export = bench.export()
        bench.helper.export(export)
        assert bench.can_log_in(export, A, chap_of(export))
        changed = with_chap(export, Chap(ChapCredentials("user1", Secret("SecondSecret1234"))))
        assert bench.helper.export(changed) is Change.CHANGED
        assert bench.helper.exports() == (seen(export, sessions=1),)
        assert not bench.can_log_in(export, A, chap_of(export))
        assert bench.can_log_in(export, A, chap_of(changed))
        assert bench.helper.export(changed) is Change.UNCHANGED
        without = with_chap(export, None)
        assert bench.helper.export(without) is Change.CHANGED
        assert bench.can_log_in(export, A, None)

    def test_a_wrong_image_is_replaced_only_while_nobody_is_in(self, bench: Bench) -> None:
        """Another backing file is refused under a session, and taken when there is none."""
        export = bench.export()
        other = with_image(export, bench.image("another"))
        bench.helper.export(export)
        assert bench.helper.export(other) is Change.CHANGED
        assert bench.helper.exports() == (seen(other),)
        assert bench.can_log_in(other, A, chap_of(other))
        with pytest.raises(ExportFailed):
            bench.helper.export(export)
        assert bench.helper.exports() == (seen(other, sessions=1),)

    def test_what_cannot_be_offered_is_refused_before_anything_is_done(self, bench: Bench) -> None:
        """LUNs out of range, names that would be misread and doubled users leave nothing."""
        user = ChapCredentials("same", Secret("FirstSecret12345"))
        for wrong, error in (
            (bench.export(lun=bench.helper.limits.max_lun + 1), InvalidLun),
            (bench.export(lun=bench.helper.limits.min_lun - 1), InvalidLun),
            (
                bench.export(initiators=frozenset({Iqn("iqn.2026-11.a:initiator-address=ALL")})),
                InvalidIqn,
            ),
            (bench.export(initiators=frozenset({Iqn("ALL")})), InvalidIqn),
            (bench.export(chap=Chap(user, user)), InvalidInput),
        ):
            with pytest.raises(error):
                bench.helper.export(wrong)
        assert bench.helper.exports() == ()

    def test_a_dead_daemon_is_noticed_and_everything_comes_back(self, bench: Bench) -> None:
        """After a death verbs say so; a start and the same exports bring the same targets back."""
        export = bench.export()
        bench.helper.export(export)
        assert not bench.helper.wait_for_exit(Deadline.after(0.05))
        stop = Stop()
        stop.set()
        assert not bench.helper.wait_for_exit(Deadline.after(600), stop)
        stop.close()
        bench.crash()
        assert bench.helper.wait_for_exit(Deadline.after(10))
        assert not bench.helper.is_alive()
        with pytest.raises(TargetDaemonDown):
            bench.helper.export(export)
        with pytest.raises(TargetDaemonDown):
            bench.helper.exports()
        assert bench.helper.start() is Change.CHANGED
        assert bench.helper.start() is Change.UNCHANGED
        assert bench.helper.export(export) is Change.CHANGED
        assert bench.helper.exports() == (seen(export),)
        assert bench.can_log_in(export, A, chap_of(export))

    def test_stopping_takes_everything_away(self, bench: Bench) -> None:
        """A stopped helper is down, with live sessions or not; stopping again changes nothing."""
        export = bench.export()
        bench.helper.export(export)
        assert bench.can_log_in(export, A, chap_of(export))
        assert bench.helper.stop() is Change.CHANGED
        assert bench.helper.stop() is Change.UNCHANGED
        assert not bench.helper.is_alive()
        assert bench.helper.start() is Change.CHANGED
        assert bench.helper.exports() == ()

    # -- several units -------------------------------------------------------------------

    def test_several_units_are_offered_beside_each_other(self, bench: Bench) -> None:
        """Each LUN has its own image; a repeated export changes nothing."""
        export = bench.export()
        units = (*export.units, bench.unit(2), bench.unit(bench.helper.limits.max_lun))
        export = replace(export, units=units)
        assert bench.helper.export(export) is Change.CHANGED
        assert bench.helper.export(export) is Change.UNCHANGED
        assert bench.helper.exports() == (seen(export),)
        for unit in export.units:
            bench.session(export, lun=unit.lun).write(unit.lun % 256)
        for unit in export.units:
            assert unit.path.read_bytes()[:65536] == bytes([unit.lun % 256]) * 65536
        assert bench.helper.unexport(export.iqn, export.tid) is Change.CHANGED
        assert bench.helper.exports() == ()

    def test_a_unit_is_mapped_beside_a_live_session(self, bench: Bench) -> None:
        """A further unit is seen by the next login, and the session of the first goes on."""
        both = bench.pair()
        export = replace(both, units=both.units[:1])
        bench.helper.export(export)
        session = bench.session(export)
        session.write(1)
        mapping = (export.iqn, export.tid, both.units[1], export.initiators)
        assert bench.helper.map_unit(*mapping) is Change.CHANGED
        assert bench.helper.map_unit(*mapping) is Change.UNCHANGED
        session.read(1)
        bench.session(both, lun=2).write(2)
        session.read(1)
        assert bench.helper.compare(both) == ()
        assert bench.helper.export(both) is Change.UNCHANGED

    def test_an_unmapped_unit_is_refused_and_the_others_go_on(self, bench: Bench) -> None:
        """I/O of a live session to the LUN fails at once; that to another LUN does not."""
        both = bench.pair()
        bench.helper.export(both)
        one, two = bench.session(both), bench.session(both, lun=2)
        one.write(1)
        two.write(2)
        assert bench.helper.unmap_unit(both.iqn, both.tid, 2) is Change.CHANGED
        assert bench.helper.unmap_unit(both.iqn, both.tid, 2) is Change.UNCHANGED
        with pytest.raises(RefusedError):
            two.write(3)
        one.read(1)
        one.write(4)
        assert both.units[1].path.read_bytes()[:65536] == b"\2" * 65536
        left = replace(both, units=both.units[:1])
        assert bench.helper.compare(left) == ()
        assert bench.helper.export(left) is Change.UNCHANGED

    def test_a_lun_that_shows_another_image_is_refused(self, bench: Bench) -> None:
        """Nothing is mapped over a unit that is there, and that one stays as it is."""
        export = bench.export()
        bench.helper.export(export)
        other = bench.unit(1)
        with pytest.raises(ExportFailed):
            bench.helper.map_unit(export.iqn, export.tid, other, export.initiators)
        assert bench.helper.exports() == (seen(export),)
        assert bench.helper.compare(export) == ()

    def test_a_freed_lun_takes_another_image(self, bench: Bench) -> None:
        """After an unmapping the number may be used again."""
        export = bench.pair()
        bench.helper.export(export)
        keeper = bench.session(export)
        bench.helper.unmap_unit(export.iqn, export.tid, 2)
        unit = bench.unit(2, number=77)
        mapping = (export.iqn, export.tid, unit, export.initiators)
        assert bench.helper.map_unit(*mapping) is Change.CHANGED
        bench.session(export, lun=2).write(7)
        assert unit.path.read_bytes()[:65536] == b"\7" * 65536
        keeper.write(1)

    def test_exporting_again_makes_the_units_exactly_so(self, bench: Bench) -> None:
        """A unit too many goes and a missing one comes, beside a session of a third."""
        export = bench.export()
        before = replace(export, units=(*export.units, bench.unit(2)))
        after = replace(export, units=(*export.units, bench.unit(3)))
        bench.helper.export(before)
        session = bench.session(before)
        gone = bench.session(before, lun=2)
        assert bench.helper.export(after) is Change.CHANGED
        assert bench.helper.export(after) is Change.UNCHANGED
        with pytest.raises(RefusedError):
            gone.write(1)
        session.write(1)
        assert [one.units for one in bench.helper.exports()] == [seen(after).units]

    def test_units_of_an_absent_target(self, bench: Bench) -> None:
        """Nothing can be mapped or grown where there is no target; unmapping changes nothing."""
        export = bench.export()
        with pytest.raises(ExportFailed):
            bench.helper.map_unit(export.iqn, export.tid, bench.unit(2), frozenset())
        with pytest.raises(ExportFailed):
            bench.helper.resize(export.iqn, export.tid, 1, MIB)
        assert bench.helper.unmap_unit(export.iqn, export.tid, 1) is Change.UNCHANGED
        assert bench.helper.exports() == ()

    def test_a_mapping_that_fails_leaves_nothing(self, bench: Bench) -> None:
        """The LUN is as free as before, a session beside it goes on, and it works later."""
        export = bench.export()
        bench.helper.export(export)
        session = bench.session(export)
        unit = bench.unit(2)
        bench.spoil("map_unit", unit.path)
        with pytest.raises(ExportFailed):
            bench.helper.map_unit(export.iqn, export.tid, unit, export.initiators)
        assert bench.helper.compare(export) == ()
        session.write(1)
        unit = bench.unit(2)
        mapping = (export.iqn, export.tid, unit, export.initiators)
        assert bench.helper.map_unit(*mapping) is Change.CHANGED

    def test_an_export_that_fails_at_its_last_unit_leaves_nothing(self, bench: Bench) -> None:
        """A new target whose second unit cannot be had is gone again."""
        export = bench.pair()
        bench.spoil("export", export.units[1].path)
        with pytest.raises(ExportFailed):
            bench.helper.export(export)
        assert bench.helper.exports() == ()
        bench.unit(2)
        assert bench.helper.export(export) is Change.CHANGED
        assert bench.helper.compare(export) == ()

    # -- sizes ---------------------------------------------------------------------------

    def test_a_grown_image_is_found_by_the_next_login(self, bench: Bench) -> None:
        """With nobody logged in a unit grows, once; its neighbour and who may log in stay."""
        export = bench.pair()
        bench.helper.export(export)
        _grow(export.units[0].path, 3 * MIB)
        growth = (export.iqn, export.tid, 1, 3 * MIB)
        assert bench.helper.resize(*growth) is Change.CHANGED
        session = bench.session(export)
        assert session.size_mib() == 3
        session.write(1)
        assert bench.session(export, lun=2).size_mib() == 1
        assert bench.helper.resize(*growth) is Change.UNCHANGED
        assert bench.helper.compare(export) == ()

    def test_a_live_session_finds_the_new_size_or_growing_is_refused(self, bench: Bench) -> None:
        """What the limits say of growing under a session is so; the session goes on."""
        export = bench.export()
        bench.helper.export(export)
        session = bench.session(export)
        _grow(export.units[0].path, 3 * MIB)
        growth = (export.iqn, export.tid, 1, 3 * MIB)
        if bench.helper.limits.grows_live:
            assert bench.helper.resize(*growth) is Change.CHANGED
            assert session.size_mib() == 3
        else:
            with pytest.raises(InvalidState):
                bench.helper.resize(*growth)
            assert session.size_mib() == 1
        session.write(1)
        assert [one.sessions for one in bench.helper.exports()] == [1]

    # -- differences ---------------------------------------------------------------------

    @pytest.mark.parametrize("difference", DIFFERENCES)
    def test_each_difference_is_said_and_repaired(self, bench: Bench, difference: str) -> None:
        """A difference is told without a secret and without changing it; an export mends it."""
        export = bench.pair()
        assert bench.helper.compare(export) != ()
        bench.helper.export(export)
        assert bench.helper.compare(export) == ()
        DIFFERENCES[difference](bench, export)
        said = bench.helper.compare(export)
        assert said
        assert bench.helper.compare(export) == said
        assert not any("Secret" in sentence for sentence in said)
        assert bench.helper.export(export) is Change.CHANGED
        assert bench.helper.compare(export) == ()
        assert bench.helper.export(export) is Change.UNCHANGED
        bench.session(export, lun=2).write(1)

    def test_a_difference_is_repaired_beside_a_live_session(self, bench: Bench) -> None:
        """A lost unit and a stranger are mended while the other unit's session goes on."""
        export = bench.pair()
        bench.helper.export(export)
        session = bench.session(export)
        bench.helper.unmap_unit(export.iqn, export.tid, 2)
        bench.helper.allow(export.iqn, export.tid, Admission(B, chap_of(export)))
        assert len(bench.helper.compare(export)) >= 2
        assert bench.helper.export(export) is Change.CHANGED
        assert bench.helper.compare(export) == ()
        session.write(1)

    # -- limits and credentials ----------------------------------------------------------

    def test_too_much_is_refused_with_the_number(self, bench: Bench) -> None:
        """More units than a target has, and what is named twice or unordered, is refused."""
        limits = bench.helper.limits
        export = bench.export()
        many = tuple(
            Unit(lun, export.units[0].path, export.units[0].identity)
            for lun in range(limits.min_lun, limits.min_lun + limits.max_units + 1)
        )
        with pytest.raises(InvalidInput, match=str(limits.max_units)):
            bench.helper.export(replace(export, units=many))
        for units in (export.units * 2, (bench.unit(3), bench.unit(2))):
            with pytest.raises(InvalidInput, match="in order"):
                bench.helper.export(replace(export, units=units))
        with pytest.raises(InvalidInput, match="in order"):
            bench.helper.export(replace(export, admissions=export.admissions * 2))
        assert bench.helper.exports() == ()
        bench.helper.export(export)
        unit = replace(bench.unit(2), lun=limits.max_lun + 1)
        with pytest.raises(InvalidLun, match=str(limits.max_lun)):
            bench.helper.map_unit(export.iqn, export.tid, unit, export.initiators)
        assert bench.helper.compare(export) == ()

    def test_changed_credentials_are_applied_to_who_is_admitted(self, bench: Bench) -> None:
        """Allowing an initiator anew changes its secret; the session it has stays."""
        export = bench.export()
        bench.helper.export(export)
        session = bench.session(export)
        chap = Chap(ChapCredentials("newuser", Secret("SecondSecret1234")))
        admission = Admission(A, chap)
        assert bench.helper.allow(export.iqn, export.tid, admission) is Change.CHANGED
        assert bench.helper.allow(export.iqn, export.tid, admission) is Change.UNCHANGED
        session.write(1)
        assert not bench.can_log_in(export, A, chap_of(export))
        assert bench.can_log_in(export, A, chap)
        assert bench.helper.compare(with_chap(export, chap)) == ()

    def test_credentials_may_be_taken_off_and_put_on(self, bench: Bench) -> None:
        """An admission without credentials asks for none, one with them for exactly these."""
        export = bench.export()
        bench.helper.export(export)
        open_one = Admission(A, None)
        assert bench.helper.allow(export.iqn, export.tid, open_one) is Change.CHANGED
        assert bench.can_log_in(export, A, None)
        closed = Admission(A, chap_of(export))
        assert bench.helper.allow(export.iqn, export.tid, closed) is Change.CHANGED
        assert not bench.can_log_in(export, A, None)
        assert bench.helper.compare(export) == ()

    def test_the_last_initiator_takes_the_credentials_along(self, bench: Bench) -> None:
        """A target that admits nobody is as one that was exported so, and can be used again."""
        export = bench.export()
        bench.helper.export(export)
        assert bench.helper.disallow(export.iqn, export.tid, A) is Change.CHANGED
        assert bench.helper.disallow(export.iqn, export.tid, A) is Change.UNCHANGED
        assert bench.helper.compare(replace(export, admissions=())) == ()
        admission = Admission(B, chap_of(export))
        assert bench.helper.allow(export.iqn, export.tid, admission) is Change.CHANGED
        assert not bench.can_log_in(export, B, None)
        assert bench.can_log_in(export, B, chap_of(export))

    def test_masks_and_own_credentials_are_refused_where_they_cannot_be(self, bench: Bench) -> None:
        """What the limits deny is refused before anything is done, and by a sentence."""
        export = bench.pair()
        mine, other = chap_of(export), Chap(ChapCredentials("bb", Secret("SecondSecret1234")))
        if not bench.helper.limits.masks_units:
            masked = replace(export, admissions=(Admission(A, mine, frozenset({1})),))
            with pytest.raises(InvalidInput, match="sees all"):
                bench.helper.export(masked)
        if not bench.helper.limits.own_credentials:
            two = replace(export, admissions=(Admission(A, mine), Admission(B, other)))
            with pytest.raises(InvalidInput, match="one pair"):
                bench.helper.export(two)
        assert bench.helper.exports() == ()
        bench.helper.export(export)
        if not bench.helper.limits.own_credentials:
            with pytest.raises(InvalidInput, match="one pair"):
                bench.helper.allow(export.iqn, export.tid, Admission(B, other))
        if not bench.helper.limits.masks_units:
            with pytest.raises(InvalidInput, match="sees"):
                bench.helper.unmap_unit(export.iqn, export.tid, 2, frozenset({A}))
            with pytest.raises(InvalidInput, match="sees all"):
                bench.helper.allow(export.iqn, export.tid, Admission(B, mine, frozenset({1})))
        assert bench.helper.compare(export) == ()


class MaskedUnits:
    """For helpers that hide units from initiators and give each its own credentials: LIO."""

    def test_each_initiator_sees_its_own_units(self, bench: Bench) -> None:
        """A unit that is not in the mask is no unit at all for that initiator."""
        export = self._masked(bench)
        assert bench.helper.export(export) is Change.CHANGED
        assert bench.helper.export(export) is Change.UNCHANGED
        assert bench.helper.compare(export) == ()
        bench.session(export, A, 1).write(1)
        bench.session(export, B, 2).write(2)
        assert not self._can_use(bench, export, A, 2)
        assert not self._can_use(bench, export, B, 1)

    def test_each_initiator_has_its_own_credentials(self, bench: Bench) -> None:
        """The secret of one does not let the other in."""
        export = self._masked(bench)
        bench.helper.export(export)
        one, two = export.admissions
        assert not bench.can_log_in(export, A, two.chap)
        assert not bench.can_log_in(export, B, one.chap, 2)
        assert bench.can_log_in(export, A, one.chap)
        assert bench.can_log_in(export, B, two.chap, 2)

    def test_a_unit_comes_and_goes_for_one_initiator_alone(self, bench: Bench) -> None:
        """Mapped for one, a unit is hidden from the other; unmapped, its I/O is refused."""
        export = self._masked(bench)
        bench.helper.export(export)
        keeper = bench.session(export, B, 2)
        unit = export.units[1]
        place = (export.iqn, export.tid)
        assert bench.helper.map_unit(*place, unit, frozenset({A})) is Change.CHANGED
        assert bench.helper.map_unit(*place, unit, frozenset({A})) is Change.UNCHANGED
        session = bench.session(export, A, 2)
        session.write(3)
        assert bench.helper.unmap_unit(*place, 2, frozenset({A})) is Change.CHANGED
        assert bench.helper.unmap_unit(*place, 2, frozenset({A})) is Change.UNCHANGED
        with pytest.raises(RefusedError):
            session.write(4)
        keeper.read(3)
        assert bench.helper.compare(export) == ()

    def test_a_changed_mask_is_applied(self, bench: Bench) -> None:
        """Allowing an initiator anew changes what it sees, and the difference is said."""
        export = self._masked(bench)
        bench.helper.export(export)
        admission = replace(export.admissions[0], luns=frozenset({1, 2}))
        assert bench.helper.allow(export.iqn, export.tid, admission) is Change.CHANGED
        assert bench.helper.allow(export.iqn, export.tid, admission) is Change.UNCHANGED
        bench.session(export, A, 2).write(1)
        assert len(bench.helper.compare(export)) == 1
        assert bench.helper.export(export) is Change.CHANGED
        assert bench.helper.compare(export) == ()
        unknown = replace(admission, luns=frozenset({9}))
        with pytest.raises(InvalidInput):
            bench.helper.export(replace(export, admissions=(unknown,)))

    @staticmethod
    def _masked(bench: Bench) -> Export:
        export = bench.pair()
        other = Chap(ChapCredentials("otheruser", Secret("SecondSecret1234")))
        return replace(
            export,
            admissions=(
                Admission(A, chap_of(export), frozenset({1})),
                Admission(B, other, frozenset({2})),
            ),
        )

    @staticmethod
    def _can_use(bench: Bench, export: Export, initiator: Iqn, lun: int) -> bool:
        try:
            bench.session(export, initiator, lun).write(9)
        except RefusedError:
            return False
        return True


class NumberedTargets:
    """For helpers whose targets have numbers, and the names of accounts are global: tgt."""

    def test_the_number_of_another_target_is_refused(self, bench: Bench) -> None:
        """A target id in use fails the export and leaves the other target as it is."""
        one, two = bench.export(1), bench.export(2, tid=1)
        bench.helper.export(one)
        with pytest.raises(ExportFailed):
            bench.helper.export(two)
        assert bench.helper.exports() == (seen(one),)

    def test_a_target_moves_to_its_new_number(self, bench: Bench) -> None:
        """A name that stands under another id is put under the one asked for."""
        export = bench.export(1)
        bench.helper.export(export)
        moved = replace(export, tid=7)
        assert bench.helper.export(moved) is Change.CHANGED
        assert bench.helper.exports() == (seen(moved),)

    def test_a_user_name_of_another_target_is_refused(self, bench: Bench) -> None:
        """Accounts are never shared: the second target fails, and is not there afterwards."""
        one = bench.export(1)
        two = bench.export(2, chap=chap_of(one))
        bench.helper.export(one)
        with pytest.raises(ExportFailed):
            bench.helper.export(two)
        assert bench.helper.exports() == (seen(one),)
        assert bench.can_log_in(one, A, chap_of(one))
