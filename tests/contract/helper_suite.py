"""What every target helper keeps: the tests, for a helper and initiators that a ``bench`` brings.

A test file makes it its own by a ``bench`` fixture and a subclass whose name begins with
``Test``: ``test_helper_contract.py`` for the fake and tgt, one of the lab for LIO.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import pytest

from lunport.core.change import Change
from lunport.core.chap import Chap, ChapCredentials
from lunport.core.errors import (
    ExportFailed,
    InvalidInput,
    InvalidIqn,
    InvalidLun,
    TargetDaemonDown,
)
from lunport.core.identity import derive_identity
from lunport.core.iqn import Iqn
from lunport.core.secret import Secret
from lunport.host.clock import Deadline
from lunport.host.tasks import Stop
from lunport.targets.helper import Admission, Export, SeenExport, SeenUnit, TargetHelper, Unit
from lunport.targets.naming import target_name
from tests.single_exports import (
    admitting,
    chap_of,
    single_export,
    with_chap,
    with_image,
)

A = Iqn("iqn.2026-11.io.lunport.test:host-a")
B = Iqn("iqn.2026-11.io.lunport.test:host-b")
MIB = 1 << 20


class RefusedError(Exception):
    """The initiator could not log in, or its I/O failed."""


class Session(Protocol):
    """A logged-in initiator, at one LUN."""

    def write(self, byte: int) -> None:
        """Fill the unit's first 64 KiB with a byte. Raises: RefusedError."""

    def read(self, byte: int) -> None:
        """Read them back; they must hold that byte. Raises: RefusedError."""


LogIn = Callable[[Iqn, Iqn, ChapCredentials | None, int], Session]


@dataclass(frozen=True, slots=True)
class Bench:
    """A started helper, an initiator to log in with, and a way to make the daemon die.

    ``log_in`` takes target, initiator, credentials and LUN, and raises RefusedError; its
    session stays until the bench ends.
    """

    helper: TargetHelper
    folder: Path
    log_in: LogIn
    crash: Callable[[], None]

    def export(
        self,
        number: int = 1,
        *,
        tid: int | None = None,
        lun: int = 1,
        chap: Chap | None | str = "own",
        initiators: frozenset[Iqn] = frozenset({A}),
    ) -> Export:
        """Describe one of several exports with one unit."""
        volume_id = volume_id_of(number)
        own = Chap(ChapCredentials(f"user{number}", Secret("FirstSecret12345")))
        return single_export(
            target_name(volume_id),
            tid or number,
            self.image(f"volume-{number}"),
            derive_identity(volume_id),
            chap=own if isinstance(chap, str) else chap,
            initiators=initiators,
            lun=lun,
        )

    def unit(self, lun: int, number: int | None = None) -> Unit:
        """Describe a further unit."""
        number = 100 + lun if number is None else number
        return Unit(lun, self.image(f"volume-{number}"), derive_identity(volume_id_of(number)))

    def image(self, name: str) -> Path:
        """Make a file to offer."""
        path = self.folder / name
        with path.open("ab") as file:
            file.truncate(MIB)
        return path

    def can_log_in(self, export: Export, initiator: Iqn, chap: Chap | None, lun: int = 1) -> bool:
        """Try a login, which stays when it succeeds."""
        try:
            self.log_in(export.iqn, initiator, chap.initiator if chap else None, lun)
        except RefusedError:
            return False
        return True


def volume_id_of(number: int) -> str:
    """Make a volume id."""
    return f"0f0e0d0c-0b0a-4908-8706-05040302{number:04x}"


def seen(export: Export, sessions: int = 0) -> SeenExport:
    """Say how an export shall be shown."""
    units = tuple(SeenUnit(unit.lun, unit.path) for unit in export.units)
    return SeenExport(export.iqn, export.tid, units, export.initiators, sessions)


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
