"""What there is in truth: rows, files, targets, secrets, data; and whether they agree."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lunport.core.attachment import summarise
from lunport.core.chap import Chap, ChapCredentials
from lunport.core.errors import TargetDaemonDown
from lunport.core.identity import derive_identity
from lunport.core.iqn import Iqn
from lunport.core.query import Query
from lunport.core.size import GIB
from lunport.core.snapshot import image_name as snapshot_image
from lunport.core.target_path import TargetPath
from lunport.core.volume import Volume
from lunport.core.volume import image_name as volume_image
from lunport.core.wwid import Wwid
from lunport.host.clock import Deadline
from lunport.host.portal_probe import probe_path
from lunport.host.tgt_requests import TgtRequests
from lunport.host.tgt_show import parse_accounts, parse_targets
from lunport.host.tgtd import OwnTgtd
from lunport.store import attachments as attachment_rows
from lunport.store import connections as connection_rows
from lunport.store import operations
from lunport.store import snapshots as snapshot_rows
from lunport.store import targets as target_rows
from lunport.store import volumes as volume_rows
from lunport.store.connections import HostConnection
from lunport.store.engine import StoreConnection
from lunport.volume.desired import chap_of
from lunport.volume.service import Backend, Service
from tests.stress.story import BLOCK, OFFSETS, Model, ModelVolume

SETTLED_S = 20.0
STRANGER = Iqn("iqn.1993-08.org.debian:01:stranger")
_pause = threading.Event()


@dataclass(frozen=True, slots=True)
class Place:
    """Where to look: the service, its images, its target daemon."""

    service: Service
    images: Path
    daemon: OwnTgtd

    @property
    def backend(self) -> Backend:
        """The only backend."""
        (backend,) = self.service.backends.values()
        return backend


@dataclass(frozen=True, slots=True)
class WantedTarget:
    """A target that the rows imply: who is let in, and which volume is at which LUN."""

    name: Iqn
    number: int
    initiators: frozenset[str]
    units: Mapping[int, Volume]
    chap: ChapCredentials | None


def await_agreement(place: Place, models: Sequence[Model], *, ignores_data: bool = False) -> None:
    """Wait until everything agrees with itself and with one of the models.

    ``ignores_data``: data were being written, by the story itself.
    """

    def look() -> None:
        seen, wanted = observe(place), list(models)
        if ignores_data:
            seen, wanted = _without_data(seen), [_without_data(model) for model in wanted]
        assert seen in wanted, f"there is {seen}\nexpected {' or '.join(map(str, wanted))}"

    repeat(look)


def await_agreement_of_all(place: Place, choices: Mapping[str, Sequence[Model]]) -> None:
    """Wait until everything agrees with itself, and each client's part with one of his models.

    The clients are told apart by the prefix of their names; data are not looked at.
    """

    def look() -> None:
        seen = observe(place)
        for prefix, models in choices.items():
            part = _without_data(_part_of(seen, prefix))
            wanted = [_without_data(model) for model in models]
            assert part in wanted, f"{prefix} has {part}\nexpected {' or '.join(map(str, wanted))}"

    repeat(look)


def _part_of(seen: Model, prefix: str) -> Model:
    return Model(
        {
            name.removeprefix(prefix): volume
            for name, volume in seen.volumes.items()
            if name.startswith(prefix)
        },
        {
            name.removeprefix(prefix): of.removeprefix(prefix)
            for name, of in seen.snapshots.items()
            if name.startswith(prefix)
        },
    )


def _without_data(model: Model) -> Model:
    return Model(
        {name: replace(volume, has_data=False) for name, volume in model.volumes.items()},
        model.snapshots,
    )


def repeat(look: Callable[[], None]) -> None:
    """Look again until what is asserted is so, within a limit."""
    deadline = Deadline.after(SETTLED_S)
    while not deadline.has_passed():
        try:
            look()
        except (AssertionError, TargetDaemonDown):
            _pause.wait(0.01)
        else:
            return
    look()


def observe(place: Place) -> Model:
    """Read everything into a model, asserting that rows, files and targets agree."""
    with place.service.store.read(snapshot=True) as connection:
        left = operations.every(connection)
        volumes = volume_rows.page(connection, Query(None)).rows
        snapshots = snapshot_rows.page(connection, Query(None)).rows
        attachments = attachment_rows.of_volumes(connection, [one.id for one in volumes])
        links = connection_rows.every(connection)
        assert not left, f"accepted work is left: {left}"
        assert not [link for link in links if link.pending], "a connection is pending"
        assert {link.volume_id for link in links} <= {one.id for one in volumes}
        targets = _wanted_targets(place, connection, volumes, links)
    names = {one.id: str(one.name) for one in volumes}
    model = Model()
    for one in volumes:
        present = attachments.get(one.id, ())
        expected = summarise(attachment.attach_status for attachment in present)
        assert (one.status, one.attach_status) == expected, f"{one.name} is {one.status}"
        own = {link.attachment_id: link.initiator for link in links if link.volume_id == one.id}
        bare = {link.initiator for link in links if link.volume_id == one.id} - {
            initiator for attachment_id, initiator in own.items() if attachment_id
        }
        for attachment in present:
            declared = attachment.connector and attachment.connector["initiator"]
            assert own.get(attachment.id) == declared, f"{attachment} without its connection"
        model.volumes[names[one.id]] = ModelVolume(
            size_gib=one.size_gib,
            has_data=_has_data(place.images / volume_image(one.id), one.size_gib),
            bare=bare,
            attachments=[(item.attach_status, own.get(item.id)) for item in present],
        )
    for snapshot in snapshots:
        assert snapshot.status == "available", f"{snapshot.name} is {snapshot.status}"
        assert _has_data(place.images / snapshot_image(snapshot.id), snapshot.size_gib)
        model.snapshots[str(snapshot.name)] = names[snapshot.volume_id]
    wanted = {volume_image(one.id) for one in volumes} | {
        snapshot_image(one.id) for one in snapshots
    }
    assert {path.name for path in place.images.iterdir()} == wanted, "files and rows differ"
    _assert_targets(place, targets)
    return model


def _has_data(path: Path, size_gib: int) -> bool:
    """Tell whether a file holds the data; assert that it holds all of it or nothing."""
    assert path.stat().st_size == size_gib * GIB, f"{path.name} has {path.stat().st_size} bytes"
    with path.open("rb") as file:
        found = []
        for offset in OFFSETS:
            file.seek(offset)
            found.append(file.read(len(BLOCK)))
    is_whole = all(block == BLOCK for block in found)
    assert is_whole or not any(map(any, found)), f"{path.name} holds a part of the data"
    return is_whole


def _wanted_targets(
    place: Place,
    connection: StoreConnection,
    volumes: Sequence[Volume],
    links: Sequence[HostConnection],
) -> Sequence[WantedTarget]:
    """Fold the connections into targets: a volume's own, or those of several volumes."""
    by_id = {one.id: one for one in volumes}
    found = []
    for volume_id in sorted({link.volume_id for link in links if link.target_id is None}):
        volume = by_id[volume_id]
        own = [link for link in links if (link.volume_id, link.target_id) == (volume_id, None)]
        initiators = frozenset(link.initiator for link in own)
        name, number = place.backend.target_name(volume_id), volume.target_number
        found.append(WantedTarget(name, number, initiators, {1: volume}, chap_of(volume)))
    for target_id in sorted({link.target_id for link in links if link.target_id is not None}):
        target = target_rows.find(connection, target_id)
        assert target is not None
        here = [link for link in links if link.target_id == target_id]
        luns = target_rows.luns(connection, target_id)
        assert luns.keys() == {link.volume_id for link in here}, "a LUN is held by nobody"
        (initiator,) = {link.initiator for link in here}
        assert initiator == target.initiator
        shown = {lun: by_id[volume_id] for volume_id, lun in luns.items()}
        chap = target_rows.initiators(connection, target_id)[initiator]
        name = Iqn(target.iqn)
        found.append(WantedTarget(name, target.number, frozenset({initiator}), shown, chap))
    return found


def _assert_targets(place: Place, targets: Sequence[WantedTarget]) -> None:
    """Assert that tgtd has these targets, exactly so, and nothing else."""
    requests = TgtRequests(place.daemon.socket, Deadline.after(10))
    answer = requests.show_targets()
    shown = {target.name: target for target in parse_targets(answer.text)}
    names = {target.name for target in targets}
    assert set(shown) == names, f"targets {sorted(shown)}, wanted {sorted(names)}"
    for one in targets:
        target = shown[one.name]
        assert one.chap is not None
        assert target.tid == one.number
        assert frozenset(target.initiators) == one.initiators
        assert target.accounts == (one.chap.username,)
        units = {unit.lun: unit.path for unit in target.luns}
        images = {lun: place.images / volume_image(volume.id) for lun, volume in one.units.items()}
        assert units == images, f"{one.name} has {units}, wanted {images}"
        _assert_usable(place, one)
    accounts = parse_accounts(requests.show_accounts().text)
    wanted = {one.chap.username for one in targets if one.chap is not None}
    assert set(accounts) == wanted, f"accounts {accounts}, wanted {wanted}"


def _assert_usable(place: Place, target: WantedTarget) -> None:
    """Assert that each admitted host gets in with the secret and finds its volumes; no other."""
    assert target.chap is not None
    for portal, initiator, (lun, volume) in itertools.product(
        place.backend.helper.portals, (*target.initiators, STRANGER), target.units.items()
    ):
        outcome = probe_path(
            TargetPath(portal, target.name, lun),
            Iqn(initiator),
            Chap(target.chap),
            expected_wwid=Wwid(derive_identity(volume.id).wwid),
            check_lun=True,
            deadline=Deadline.after(5),
        )
        assert outcome.is_healthy == (initiator != STRANGER), f"{initiator}: {outcome}"
        if outcome.is_healthy:
            assert outcome.size_bytes == volume.size_gib * GIB
