"""The real volume service on a real database file, with a driver and a helper in memory.

Accepted work is carried out at once, inside ``submit``, unless a test holds it back; the
clock ticks a millisecond a look, so that rows have an order.
"""

from __future__ import annotations

import functools
import itertools
import sqlite3
import tempfile
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import sqlalchemy as sa

from lunport.core.chap import ChapCredentials
from lunport.core.portal import parse_portal
from lunport.core.secret import Secret
from lunport.host.locks import NamedLocks
from lunport.store.engine import Store
from lunport.store.operations import Operation
from lunport.store.schema import ensure_schema
from lunport.targets.helper import HelperLimits
from lunport.targets.naming import (
    host_target_name,
    is_of_several,
    shared_target_name,
    target_name,
    volume_id_of,
)
from lunport.volume.operations import carry_out
from lunport.volume.service import Backend, ExportPolicy, Service, WorkQueue
from tests.fakes.fake_driver import FakeDriver
from tests.fakes.fake_helper import LIKE_TGT, FakeHelper

BACKEND = "files"
HOST = f"node@{BACKEND}#{BACKEND}"
START = datetime(2026, 11, 20, 12, tzinfo=UTC)


@dataclass(slots=True)
class FakeQueue:
    """Carry out work when it is handed over, or keep it while ``holds`` is true."""

    holds: bool = False
    held: list[Operation] = field(default_factory=list)
    service: Service | None = None
    worker: WorkQueue | None = None

    def submit(self, operation: Operation) -> None:
        """Take one operation, and give it to the worker if a test has set one."""
        if self.worker is not None:
            self.worker.submit(operation)
        elif self.holds or self.service is None:
            self.held.append(operation)
        else:
            carry_out(self.service, operation)


@dataclass(frozen=True, slots=True)
class FakeBench:
    """The service and the parts that a test plays with."""

    service: Service
    queue: FakeQueue
    driver: FakeDriver
    helper: FakeHelper


def make_store(folder: Path) -> Store:
    """Open a database of the newest schema that need not survive the loss of power."""
    file = folder / "lunport.sqlite"
    if not file.exists():
        file.write_bytes(_empty_database())
    store = Store(f"sqlite:///{file}")
    sa.event.listen(store.engine, "connect", _hasten)
    return store


@functools.cache
def _empty_database() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "empty.sqlite"
        store = Store(f"sqlite:///{file}")
        ensure_schema(store)
        store.close()  # the last connection's end takes the log into the file
        return file.read_bytes()


def _hasten(connection: sqlite3.Connection, _record: object) -> None:
    connection.execute("PRAGMA synchronous=OFF")


def make_bench(
    folder: Path,
    *,
    copies_atomically: bool = True,
    grows_open_with_snapshots: bool = True,
    policy: ExportPolicy | None = None,
    limits: HelperLimits | None = None,
) -> FakeBench:
    """Put a service together; its portals are 127.0.0.1 and 127.0.0.2."""
    store = make_store(folder)
    driver = FakeDriver(
        copies_atomically=copies_atomically, grows_open_with_snapshots=grows_open_with_snapshots
    )
    portals = [parse_portal("127.0.0.1:3260"), parse_portal("127.0.0.2:3260")]
    helper = FakeHelper(portals, limits=limits or LIKE_TGT)
    helper.start()
    queue = FakeQueue()
    ticks = itertools.count()
    service = Service(
        store=store,
        backends={
            BACKEND: Backend(
                name=BACKEND,
                host=HOST,
                driver=driver,
                helper=helper,
                policy=policy or ExportPolicy(),
                target_name=target_name,
                volume_of=volume_id_of,
                host_target=functools.partial(host_target_name, HOST),
                shared_target=shared_target_name(HOST),
                is_of_several=is_of_several,
            )
        },
        default_backend=BACKEND,
        queue=queue,
        locks=NamedLocks(),
        now=lambda: (START + timedelta(milliseconds=next(ticks))).strftime("%Y-%m-%dT%H:%M:%S.%f"),
        new_id=lambda: str(uuid.uuid4()),
        new_chap=lambda: ChapCredentials(f"u{next(ticks):019d}", Secret(f"{next(ticks):016d}")),
        host="node",
    )
    queue.service = service
    return FakeBench(service, queue, driver, helper)
