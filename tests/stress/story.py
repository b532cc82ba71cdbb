"""A story of a few volumes, as a list of actions, and what each of them must lead to.

The model is what a client may rely on: after an action has returned its outcome holds, come
what may; of an action that was interrupted either nothing holds or all of it.
"""

from __future__ import annotations

import copy
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from lunport.core.errors import BackendError, NotFound
from lunport.core.volume import Volume, image_name
from lunport.host.clock import Deadline
from lunport.store import operations
from lunport.volume import actions, attachments, snapshots, volumes
from lunport.volume.requests import (
    Caller,
    Filter,
    NewAttachment,
    NewSnapshot,
    NewVolume,
    Query,
)
from lunport.volume.service import Service

ME = Caller("me", "project", is_admin=True, is_service=True)
HOST_A = {"initiator": "iqn.1993-08.org.debian:01:a", "host": "a", "ip": "192.0.2.1"}
HOST_B = {"initiator": "iqn.1993-08.org.debian:01:b", "host": "b", "ip": "192.0.2.2"}
A = HOST_A["initiator"]
B = HOST_B["initiator"]
SETTLE_S = 30.0

# Three pieces of data with holes between them, within the first GiB.
BLOCK = bytes(range(256)) * 256
OFFSETS = (0, 300 << 20, (1 << 30) - len(BLOCK))
_pause = threading.Event()


@dataclass(slots=True)
class ModelVolume:
    """What holds of a volume. ``bare`` are connections without an attachment."""

    size_gib: int
    has_data: bool
    bare: set[str] = field(default_factory=set)
    attachments: list[tuple[str, str | None]] = field(default_factory=list)  # status, initiator


@dataclass(slots=True)
class Model:
    """What holds: volumes and snapshots by name."""

    volumes: dict[str, ModelVolume] = field(default_factory=dict)
    snapshots: dict[str, str] = field(default_factory=dict)  # to the volume's name


class Client:
    """Does things to the service, by the volumes' names; in a crowd each has names of its own."""

    def __init__(self, service: Service, prefix: str = "") -> None:
        self.service = service
        self.prefix = prefix

    def volume(self, name: str) -> Volume:
        """Find a volume."""
        query = Query(None, filters=(Filter("name", "=", self.prefix + name),))
        (view,) = volumes.list_volumes(self.service, ME, query).rows
        return view.volume

    def snapshot_id(self, name: str) -> str:
        """Find a snapshot."""
        query = Query(None, filters=(Filter("name", "=", self.prefix + name),))
        (found,) = snapshots.list_snapshots(self.service, ME, query).rows
        return found.id

    def attachment_id(self, name: str) -> str:
        """Find a volume's only attachment."""
        query = Query(None, filters=(Filter("volume_id", "=", self.volume(name).id),))
        (found,) = attachments.list_attachments(self.service, ME, query).rows
        return found.id

    def image(self, name: str) -> Path:
        """Find a volume's file."""
        volume = self.volume(name)
        driver = self.service.backend(volume.backend).driver
        return driver.locate(image_name(volume.id)).path

    def settle(self) -> None:
        """Wait until all accepted work is done."""
        deadline = Deadline.after(SETTLE_S)
        while self.has_work():
            assert not deadline.has_passed(), "accepted work is not done"
            _pause.wait(0.002)

    def has_work(self) -> bool:
        """Tell whether accepted work is not done yet."""
        with self.service.store.read() as connection:
            return bool(operations.every(connection))

    def write_data(self, name: str) -> None:
        """Write data into a volume, as a guest would."""
        descriptor = os.open(self.image(name), os.O_WRONLY)
        try:
            for offset in OFFSETS:
                os.lseek(descriptor, offset, os.SEEK_SET)
                os.write(descriptor, BLOCK)
        finally:
            os.close(descriptor)


class Action(NamedTuple):
    """One thing that a client does. ``becomes`` changes the model as it must change."""

    name: str
    do: Callable[[Client], object]
    becomes: Callable[[Model], object]


def _create(client: Client, name: str, new: NewVolume) -> None:
    named = replace(new, name=client.prefix + name)
    volumes.create_volume(client.service, ME, named)


def _take(client: Client, name: str) -> None:
    new = NewSnapshot(client.volume("src").id, client.prefix + name)
    snapshots.create_snapshot(client.service, ME, new)


def _attach(client: Client, name: str) -> None:
    new = NewAttachment(client.volume(name).id, None, HOST_A)
    attachments.create_attachment(client.service, ME, new)


def _set_volume(name: str, size_gib: int, *, has_data: bool) -> Callable[[Model], None]:
    def change(model: Model) -> None:
        model.volumes[name] = ModelVolume(size_gib, has_data)

    return change


def _set_attachments(name: str, *wanted: tuple[str, str | None]) -> Callable[[Model], None]:
    def change(model: Model) -> None:
        model.volumes[name].attachments = list(wanted)

    return change


def _resize(name: str, size_gib: int) -> Callable[[Model], None]:
    def change(model: Model) -> None:
        model.volumes[name].size_gib = size_gib

    return change


def _get_data(model: Model) -> None:
    model.volumes["src"].has_data = True


def _lose(name: str) -> Callable[[Model], None]:
    def change(model: Model) -> None:
        del model.volumes[name]
        model.snapshots = {one: of for one, of in model.snapshots.items() if of != name}

    return change


STORY: tuple[Action, ...] = (
    Action(
        "create",
        lambda c: _create(c, "src", NewVolume(1)),
        _set_volume("src", 1, has_data=False),
    ),
    Action("write", lambda c: c.write_data("src"), _get_data),
    Action(
        "clone",
        lambda c: _create(c, "copy", NewVolume(None, source_volid=c.volume("src").id)),
        _set_volume("copy", 1, has_data=True),
    ),
    Action(
        "snapshot",
        lambda c: _take(c, "snap"),
        lambda m: m.snapshots.update(snap="src"),
    ),
    Action(
        "clone of a snapshot",
        lambda c: _create(c, "later", NewVolume(2, snapshot_id=c.snapshot_id("snap"))),
        _set_volume("later", 2, has_data=True),
    ),
    Action(
        "extend",
        lambda c: volumes.extend_volume(c.service, ME, c.volume("copy").id, 3, allow_in_use=False),
        _resize("copy", 3),
    ),
    Action(
        "connect",
        lambda c: actions.initialize_connection(c.service, ME, c.volume("copy").id, HOST_A),
        lambda m: m.volumes["copy"].bare.add(A),
    ),
    Action(
        "connect a second host",
        lambda c: actions.initialize_connection(c.service, ME, c.volume("copy").id, HOST_B),
        lambda m: m.volumes["copy"].bare.add(B),
    ),
    Action("attach", lambda c: _attach(c, "later"), _set_attachments("later", ("attaching", A))),
    Action(
        "complete",
        lambda c: attachments.complete_attachment(c.service, ME, c.attachment_id("later")),
        _set_attachments("later", ("attached", A)),
    ),
    Action(
        "disconnect one host",
        lambda c: actions.terminate_connection(c.service, ME, c.volume("copy").id, HOST_A),
        lambda m: m.volumes["copy"].bare.remove(A),
    ),
    Action(
        "detach",
        lambda c: attachments.delete_attachment(c.service, ME, c.attachment_id("later")),
        _set_attachments("later"),
    ),
    Action(
        "reserve",
        lambda c: attachments.create_attachment(c.service, ME, NewAttachment(c.volume("later").id)),
        _set_attachments("later", ("reserved", None)),
    ),
    Action(
        "update",
        lambda c: attachments.update_attachment(c.service, ME, c.attachment_id("later"), HOST_B),
        _set_attachments("later", ("attaching", B)),
    ),
    Action(
        "delete a connected volume",
        lambda c: volumes.delete_volume(c.service, ME, c.volume("copy").id),
        _lose("copy"),
    ),
    Action(
        "delete a snapshot",
        lambda c: snapshots.delete_snapshot(c.service, ME, c.snapshot_id("snap")),
        lambda m: m.snapshots.pop("snap"),
    ),
    Action(
        "snapshot again",
        lambda c: _take(c, "two"),
        lambda m: m.snapshots.update(two="src"),
    ),
    Action(
        "delete with snapshots",
        lambda c: volumes.delete_volume(c.service, ME, c.volume("src").id, cascade=True),
        _lose("src"),
    ),
    Action(
        "detach again",
        lambda c: attachments.delete_attachment(c.service, ME, c.attachment_id("later")),
        _set_attachments("later"),
    ),
    Action(
        "delete",
        lambda c: volumes.delete_volume(c.service, ME, c.volume("later").id),
        _lose("later"),
    ),
)


def model_after(count: int) -> Model:
    """Return what holds after so many actions."""
    model = Model()
    for action in STORY[:count]:
        action.becomes(model)
    return copy.deepcopy(model)


def tell(client: Client, note: Callable[[str], None]) -> None:
    """Live through the story, noting when each action begins and when it has returned."""
    for number, action in enumerate(STORY):
        note(f"begin {number}")
        action.do(client)
        note(f"done {number}")
        client.settle()


def tell_stubbornly(client: Client, check: Callable[[int], None]) -> None:
    """Live through the story although the target daemon may die: repeat what it has refused.

    ``check(count)`` asserts that the first ``count`` actions hold and nothing else.
    """
    for number, action in enumerate(STORY):
        deadline = Deadline.after(SETTLE_S)
        is_done = False
        while not is_done:
            assert not deadline.has_passed(), f"{action.name} is refused for ever"
            try:
                action.do(client)
                is_done = True
            except BackendError:
                check(number)  # refused, so nothing of it holds
            client.settle()
            if is_done and _has_failed(client):
                is_done = False
        check(number + 1)


def _has_failed(client: Client) -> bool:
    """Tell whether accepted work ended in an error status, which a client may repeat."""
    found = volumes.list_volumes(client.service, ME, Query(None)).rows
    return any("error" in view.volume.status for view in found)


def clear(client: Client) -> None:
    """Take everything away again."""
    service = client.service
    for attachment in attachments.list_attachments(service, ME, Query(None)).rows:
        attachments.delete_attachment(service, ME, attachment.id)
    for view in volumes.list_volumes(service, ME, Query(None)).rows:
        actions.terminate_connection(service, ME, view.volume.id, None)
        try:
            volumes.delete_volume(service, ME, view.volume.id, cascade=True)
        except NotFound:
            continue
    client.settle()
