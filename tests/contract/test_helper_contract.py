"""What every target helper keeps, proved on the fake and on a real tgtd with QEMU logging in."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from lunport.core.change import Change
from lunport.core.chap import Chap, ChapCredentials
from lunport.core.errors import (
    ExportFailed,
    InvalidInput,
    InvalidIqn,
    InvalidLun,
    LunportError,
    TargetDaemonDown,
)
from lunport.core.identity import derive_identity
from lunport.core.iqn import Iqn
from lunport.core.secret import Secret
from lunport.host.clock import Deadline
from lunport.host.process import open_process
from lunport.host.tasks import Stop
from lunport.host.tgtd import OwnTgtd
from lunport.targets.helper import Export, SeenExport, TargetHelper
from lunport.targets.naming import target_name
from lunport.targets.tgt import TgtHelper
from tests.daemons.conftest import free_portals
from tests.daemons.qemu_io import QemuRefusedError, QemuSession
from tests.fakes.fake_helper import FakeHelper

A = Iqn("iqn.2026-11.io.lunport.test:host-a")
B = Iqn("iqn.2026-11.io.lunport.test:host-b")
CHAP = Chap(ChapCredentials("firstuser", Secret("FirstSecret12345")))
LogIn = Callable[[Export, Iqn, ChapCredentials | None], None]


@dataclass(frozen=True, slots=True)
class Bench:
    """A started helper, an initiator to log in with, and a way to make the daemon die."""

    helper: TargetHelper
    folder: Path
    log_in: LogIn
    crash: Callable[[], None]

    def export(self, number: int = 1, **changes: object) -> Export:
        """Describe one of several exports."""
        volume_id = f"0f0e0d0c-0b0a-4908-8706-0504030201{number:02x}"
        chap = Chap(ChapCredentials(f"user{number}", Secret("FirstSecret12345")))
        export = Export(
            iqn=target_name(volume_id),
            tid=number,
            lun=1,
            path=self.image(f"volume-{number}"),
            identity=derive_identity(volume_id),
            chap=chap,
            initiators=frozenset({A}),
        )
        return replace(export, **changes)  # type: ignore[arg-type]

    def image(self, name: str) -> Path:
        """Make a file to offer."""
        path = self.folder / name
        with path.open("ab") as file:
            file.truncate(1 << 20)
        return path

    def can_log_in(self, export: Export, initiator: Iqn, chap: Chap | None) -> bool:
        """Try a login, which stays when it succeeds."""
        try:
            self.log_in(export, initiator, chap.initiator if chap else None)
        except (QemuRefusedError, LunportError):
            return False
        return True


@pytest.fixture(params=["fake", pytest.param("tgt", marks=pytest.mark.needs("tgtd", "qemu-io"))])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    """One helper after the other, started and empty."""
    if request.param == "fake":
        fake = FakeHelper()
        fake.start()
        yield Bench(
            fake,
            tmp_path,
            lambda export, initiator, given: fake.log_in(export.iqn, initiator, given),
            fake.crash,
        )
        return
    daemon = OwnTgtd(tmp_path / "state", free_portals("127.0.0.1", "127.0.0.2"))
    helper = TgtHelper(daemon)
    with contextlib.ExitStack() as sessions:

        def log_in(export: Export, initiator: Iqn, given: ChapCredentials | None) -> None:
            session = QemuSession(tmp_path, daemon.portals[1], export.iqn, initiator, given)
            sessions.enter_context(session)

        def crash() -> None:
            process = open_process(daemon.pid() or 0, "tgtd")
            assert process is not None
            with process:
                process.kill()
                assert process.wait(Deadline.after(10))

        sessions.callback(lambda: daemon.stop(Deadline.after(10)))
        helper.start()
        yield Bench(helper, tmp_path, log_in, crash)


def seen(export: Export, sessions: int = 0) -> SeenExport:
    """Say how an export shall be shown."""
    return SeenExport(export.iqn, export.tid, export.path, export.initiators, sessions)


def test_an_export_is_shown_as_it_was_made(bench: Bench) -> None:
    """What was exported is listed, several beside each other, and nothing else."""
    one, two = bench.export(1), bench.export(2, initiators=frozenset({A, B}), chap=None)
    assert bench.helper.export(one) is Change.CHANGED
    assert bench.helper.export(two) is Change.CHANGED
    assert bench.helper.exports() == (seen(one), seen(two))


def test_exporting_twice_disturbs_nobody(bench: Bench) -> None:
    """A repeated export changes nothing, and the sessions stay."""
    export = bench.export()
    bench.helper.export(export)
    bench.log_in(export, A, CHAP.initiator if export.chap is None else export.chap.initiator)
    assert bench.helper.export(export) is Change.UNCHANGED
    assert bench.helper.export(export) is Change.UNCHANGED
    assert bench.helper.exports() == (seen(export, sessions=1),)
    assert bench.helper.export(export) is Change.UNCHANGED


def test_unexporting_leaves_nothing_and_may_be_repeated(bench: Bench) -> None:
    """After an unexport the target is gone; doing it again changes nothing."""
    export = bench.export()
    bench.helper.export(export)
    assert bench.helper.unexport(export.iqn, export.tid) is Change.CHANGED
    assert bench.helper.unexport(export.iqn, export.tid) is Change.UNCHANGED
    assert bench.helper.exports() == ()
    assert bench.helper.export(export) is Change.CHANGED


def test_unexporting_ends_live_sessions(bench: Bench) -> None:
    """A target is taken away although an initiator is logged in."""
    export = bench.export()
    bench.helper.export(export)
    assert bench.can_log_in(export, A, export.chap)
    assert bench.helper.unexport(export.iqn, export.tid) is Change.CHANGED
    assert bench.helper.exports() == ()


def test_only_the_admitted_log_in_and_only_with_the_secret(bench: Bench) -> None:
    """Another initiator, a wrong secret and no secret are refused."""
    export = bench.export()
    bench.helper.export(export)
    wrong = Chap(ChapCredentials("user1", Secret("WrongSecret12345")))
    assert not bench.can_log_in(export, B, export.chap)
    assert not bench.can_log_in(export, A, wrong)
    assert not bench.can_log_in(export, A, None)
    assert bench.can_log_in(export, A, export.chap)


def test_nobody_is_admitted_by_an_empty_set(bench: Bench) -> None:
    """An export without initiators shows itself to none."""
    export = bench.export(initiators=frozenset(), chap=None)
    bench.helper.export(export)
    assert not bench.can_log_in(export, A, None)


def test_allowing_and_disallowing_say_what_they_changed(bench: Bench) -> None:
    """Each is done once and then changes nothing, and the list shows it."""
    export = bench.export()
    bench.helper.export(export)
    assert bench.helper.allow(export.iqn, export.tid, B) is Change.CHANGED
    assert bench.helper.allow(export.iqn, export.tid, B) is Change.UNCHANGED
    assert bench.can_log_in(export, B, export.chap)
    assert bench.helper.disallow(export.iqn, export.tid, B) is Change.CHANGED
    assert bench.helper.disallow(export.iqn, export.tid, B) is Change.UNCHANGED
    assert not bench.can_log_in(export, B, export.chap)
    assert bench.helper.exports() == (seen(export),)


def test_disallowing_drops_that_initiator_alone(bench: Bench) -> None:
    """The sessions of the refused initiator end before the verb returns; the others stay."""
    export = bench.export(initiators=frozenset({A, B}))
    bench.helper.export(export)
    assert bench.can_log_in(export, A, export.chap)
    assert bench.can_log_in(export, B, export.chap)
    assert bench.helper.exports() == (seen(export, sessions=2),)
    assert bench.helper.disallow(export.iqn, export.tid, A) is Change.CHANGED
    assert bench.helper.exports() == (seen(replace(export, initiators=frozenset({B})), sessions=1),)


def test_exporting_again_makes_the_initiators_exactly_so(bench: Bench) -> None:
    """Initiators that are not wanted any more lose their sessions, new ones come in."""
    export = bench.export()
    bench.helper.export(export)
    assert bench.can_log_in(export, A, export.chap)
    other = replace(export, initiators=frozenset({B}))
    assert bench.helper.export(other) is Change.CHANGED
    assert bench.helper.exports() == (seen(other),)
    assert bench.helper.export(other) is Change.UNCHANGED


def test_an_absent_target_is_told_apart(bench: Bench) -> None:
    """Nobody can be allowed at a target that is not there; refusing there changes nothing."""
    export = bench.export()
    with pytest.raises(ExportFailed):
        bench.helper.allow(export.iqn, export.tid, A)
    assert bench.helper.disallow(export.iqn, export.tid, A) is Change.UNCHANGED


def test_new_credentials_take_over_without_ending_sessions(bench: Bench) -> None:
    """After a change of the secret only the new one logs in; who was in stays in."""
    export = bench.export()
    bench.helper.export(export)
    assert bench.can_log_in(export, A, export.chap)
    changed = replace(export, chap=Chap(ChapCredentials("user1", Secret("SecondSecret1234"))))
    assert bench.helper.export(changed) is Change.CHANGED
    assert bench.helper.exports() == (seen(export, sessions=1),)
    assert not bench.can_log_in(export, A, export.chap)
    assert bench.can_log_in(export, A, changed.chap)
    assert bench.helper.export(changed) is Change.UNCHANGED
    without = replace(export, chap=None)
    assert bench.helper.export(without) is Change.CHANGED
    assert bench.can_log_in(export, A, None)


def test_a_wrong_image_is_replaced_only_while_nobody_is_in(bench: Bench) -> None:
    """Another backing file is refused under a session, and taken when there is none."""
    export = bench.export()
    other = replace(export, path=bench.image("another"))
    bench.helper.export(export)
    assert bench.helper.export(other) is Change.CHANGED
    assert bench.helper.exports() == (seen(other),)
    assert bench.can_log_in(other, A, other.chap)
    with pytest.raises(ExportFailed):
        bench.helper.export(export)
    assert bench.helper.exports() == (seen(other, sessions=1),)


def test_the_number_of_another_target_is_refused(bench: Bench) -> None:
    """A target id in use fails the export and leaves the other target as it is."""
    one, two = bench.export(1), bench.export(2, tid=1)
    bench.helper.export(one)
    with pytest.raises(ExportFailed):
        bench.helper.export(two)
    assert bench.helper.exports() == (seen(one),)


def test_a_target_moves_to_its_new_number(bench: Bench) -> None:
    """A name that stands under another id is put under the one asked for."""
    export = bench.export(1)
    bench.helper.export(export)
    moved = replace(export, tid=7)
    assert bench.helper.export(moved) is Change.CHANGED
    assert bench.helper.exports() == (seen(moved),)


def test_a_user_name_of_another_target_is_refused(bench: Bench) -> None:
    """Accounts are never shared: the second target fails, and is not there afterwards."""
    one = bench.export(1)
    two = bench.export(2, chap=one.chap)
    bench.helper.export(one)
    with pytest.raises(ExportFailed):
        bench.helper.export(two)
    assert bench.helper.exports() == (seen(one),)
    assert bench.can_log_in(one, A, one.chap)


def test_what_cannot_be_offered_is_refused_before_anything_is_done(bench: Bench) -> None:
    """LUNs out of range, names that would be misread and doubled users leave nothing."""
    user = ChapCredentials("same", Secret("FirstSecret12345"))
    for wrong, error in (
        (bench.export(lun=bench.helper.max_lun + 1), InvalidLun),
        (bench.export(lun=0), InvalidLun),
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


def test_a_dead_daemon_is_noticed_and_everything_comes_back(bench: Bench) -> None:
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
    assert bench.can_log_in(export, A, export.chap)


def test_stopping_takes_everything_away(bench: Bench) -> None:
    """A stopped helper is down, with live sessions or not; stopping again changes nothing."""
    export = bench.export()
    bench.helper.export(export)
    assert bench.can_log_in(export, A, export.chap)
    assert bench.helper.stop() is Change.CHANGED
    assert bench.helper.stop() is Change.UNCHANGED
    assert not bench.helper.is_alive()
    assert bench.helper.start() is Change.CHANGED
    assert bench.helper.exports() == ()
