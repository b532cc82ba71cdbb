"""What is measured: each scenario in the words of the client that goes through it.

A scenario's name is also its key in ``peer.json``. Those that count a part of each operation
only (the attach without the detach that follows) say so: their operations per second are
what that part alone allows, concurrency divided by the median; CPU is for the whole.
"""

from __future__ import annotations

import json
import time
import urllib.parse
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace

from bench.client import Client, connector
from bench.load import Ending, Measured, Preparation, Step, measure
from bench.service import MeasuredService

WALK_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Scenario:
    """One row of the table: what is done, how often at each concurrency."""

    title: str
    step: Step
    counts: Mapping[int, int]
    prepare: Preparation | None = None
    finish: Ending | None = None
    counts_a_part: bool = False
    warm: int = 2

    def run(self, service: MeasuredService, workers: int, share: float) -> Measured:
        """Measure it once; ``share`` of the usual number of operations."""
        found = measure(
            service.port,
            service.pids(),
            self.step,
            count=max(workers, int(self.counts[workers] * share)),
            workers=workers,
            prepare=self.prepare,
            finish=self.finish,
            warm=self.warm,
        )
        if self.counts_a_part:
            found = replace(found, per_s=1000 * workers / found.p50_ms)
        return found


def _version(client: Client, _: object) -> None:
    client.exchange("GET", "/v3/")


def _detail(client: Client, _: object) -> None:
    client.fetch("/volumes/detail")


def _walk(client: Client, _: object) -> None:
    """Follow ``volumes_links`` to the end."""
    query = f"limit={WALK_PAGE}"
    while query:
        page = json.loads(client.fetch(f"/volumes/detail?{query}"))
        links = page.get("volumes_links", ())
        query = urllib.parse.urlsplit(links[0]["href"]).query if links else ""


def _show(client: Client, volume: str) -> None:
    client.fetch(f"/volumes/{volume}")


def _attached_volume(client: Client) -> str:
    volume = client.create_volume()
    client.create_attachment(volume, connector())
    return volume


def _drop_attached_volume(client: Client, volume: str) -> None:
    shown = client.call("GET", f"/attachments?volume_id={volume}")
    for attachment in shown["attachments"]:
        client.call("DELETE", f"/attachments/{attachment['id']}")
    client.delete_volume(volume)


def _initialize(client: Client, volume: str) -> None:
    body = {"os-initialize_connection": {"connector": connector()}}
    client.call("POST", f"/volumes/{volume}/action", body)


def _attach(client: Client, volume: str) -> float:
    begin = time.perf_counter()
    attachment = client.create_attachment(volume, connector())
    seconds = time.perf_counter() - begin
    client.call("DELETE", f"/attachments/{attachment}")
    return seconds


def _cycle(client: Client, volume: str) -> None:
    attachment = client.create_attachment(volume, None)
    client.call("PUT", f"/attachments/{attachment}", {"attachment": {"connector": connector()}})
    client.call("POST", f"/attachments/{attachment}/action", {"os-complete": {}})
    client.call("DELETE", f"/attachments/{attachment}")


def _snapshot(client: Client, volume: str) -> float:
    begin = time.perf_counter()
    asked = {"snapshot": {"volume_id": volume}}
    snapshot = client.call("POST", "/snapshots", asked)["snapshot"]["id"]
    client.wait_until("snapshot", snapshot, "available")
    seconds = time.perf_counter() - begin
    client.call("DELETE", f"/snapshots/{snapshot}")
    client.wait_until("snapshot", snapshot, None)
    return seconds


def _own_volume(
    title: str, step: Step, counts: Mapping[int, int], *, counts_a_part: bool = False
) -> Scenario:
    """Give each worker a volume of its own."""
    return Scenario(
        title,
        step,
        counts,
        prepare=Client.create_volume,
        finish=Client.delete_volume,
        counts_a_part=counts_a_part,
    )


_MANY = {1: 1000, 8: 2000}
_PAGES = {1: 60, 8: 60}

VERSION = Scenario("GET /v3/ (version document)", _version, _MANY)
DETAIL = Scenario("GET volumes/detail", _detail, _MANY)
DETAIL_PAGE = replace(DETAIL, counts=_PAGES)
WALK = Scenario("walk all volumes through volumes_links", _walk, {1: 5}, warm=1)
SHOW = _own_volume("GET volumes/{id}", _show, _MANY)
SHOW_ATTACHED = Scenario(
    "GET volumes/{id}, reserved for a host",
    _show,
    _MANY,
    prepare=_attached_volume,
    finish=_drop_attached_volume,
)
INITIALIZE = _own_volume("os-initialize_connection, same volume again", _initialize, _MANY)
ATTACH = _own_volume(
    "POST attachments with connector", _attach, {1: 150, 8: 300}, counts_a_part=True
)
CYCLE = _own_volume("attach cycle: reserve, connect, complete, delete", _cycle, {1: 100, 8: 200})
SNAPSHOT = _own_volume(
    "POST snapshots to available", _snapshot, {1: 60, 8: 160}, counts_a_part=True
)

_CREATES = {1: 100, 8: 200}


def create_and_delete(
    service: MeasuredService, workers: int, share: float
) -> tuple[Measured, Measured]:
    """Measure creating volumes until they are available, then deleting them until gone."""
    made: deque[str] = deque()
    create = Scenario(
        "create", lambda client, _: made.append(client.create_volume()), _CREATES
    ).run(service, workers, share)
    surplus = len(made) - create.count
    with Client(service.port) as client:
        for _ in range(surplus):
            client.delete_volume(made.pop())
    delete = Scenario(
        "delete", lambda client, _: client.delete_volume(made.popleft()), _CREATES, warm=0
    ).run(service, workers, share)
    return create, delete


def seed(service: MeasuredService, wanted: int) -> Measured | None:
    """Create volumes through the API until there are that many; tell how fast it went."""
    with Client(service.port) as client:
        summary = client.call("GET", "/volumes/summary")["volume-summary"]
    missing = wanted - summary["total_count"]
    if missing <= 0:
        return None
    return measure(
        service.port,
        service.pids(),
        _named_volume,
        count=missing,
        workers=8,
        warm=0,
    )


def _named_volume(client: Client, _: object) -> None:
    client.create_volume(name="a volume with a name", metadata={"purpose": "measurement"})


def export(service: MeasuredService, wanted: int) -> list[str]:
    """Attach that many of the volumes there are; return the attachments."""
    with Client(service.port) as client:
        page = client.call("GET", f"/volumes?limit={wanted}")["volumes"]
        return [
            client.create_attachment(volume["id"], connector(number))
            for number, volume in enumerate(page, start=1)
        ]


def close(service: MeasuredService, attachments: list[str]) -> None:
    """Delete the attachments again."""
    with Client(service.port) as client:
        for attachment in attachments:
            client.call("DELETE", f"/attachments/{attachment}")
