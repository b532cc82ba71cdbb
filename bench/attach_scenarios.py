"""What ``make bench-attach`` measures, scenario by scenario. See bench/README.md.

Names of samples: ``scenario``, ``who`` (os-brick, lunport: through os-brick's calls,
lunport-direct, floor), ``what`` (connect, disconnect).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from bench.attach_counts import calibrate, settle
from lab.faults import portal_drops, portal_refuses

if TYPE_CHECKING:
    from bench.attach_guest import Guest

OS_BRICK, LUNPORT, DIRECT, FLOOR = "os-brick", "lunport", "lunport-direct", "floor"
BOTH = (LUNPORT, DIRECT)
MANY = 20
THREADS = 8
PRESENT = 64
OS_BRICK_SILENT_CAP_S = 180.0  # it takes some 125 s
OS_BRICK_WAITING_CAP_S = 15.0  # it waits as long as the one before it hangs
HANG_CAP_S = 90.0
FILLING_CAP_S = 180.0
UNDER_WAY_S = 0.3


def healthy(guest: Guest) -> None:
    """One path, nothing wrong."""
    volume = guest.volume(guest.target("healthy", [1]))
    for number in range(guest.rounds or 7):
        for name in guest.in_turn(number, OS_BRICK, *BOTH, FLOOR):
            guest.attach("healthy", name, [volume], note={"round": number})


def failover(guest: Guest) -> None:
    """Four portals: all well; the first one silent, unknown and remembered; it refuses."""
    target = guest.target("failover")
    volume = guest.volume(target)
    rounds = guest.rounds or 3

    def rounds_of(scenario: str, *, forget: bool) -> None:
        for number in range(rounds):
            for name in guest.in_turn(number, *BOTH):
                if forget:
                    guest.forget_dead_portals()
                guest.attach(scenario, name, [volume], note={"round": number})

    rounds_of("four portals", forget=True)
    with portal_drops(guest.san, target.portals[0]):
        rounds_of("first silent", forget=True)
        rounds_of("first silent, remembered", forget=False)
        for name in guest.names(OS_BRICK):
            guest.attach("first silent", name, [volume], cap_s=OS_BRICK_SILENT_CAP_S)
    guest.forget_dead_portals()
    with portal_refuses(guest.san, target.portals[0]):
        rounds_of("first refuses", forget=True)
    guest.forget_dead_portals()


def many(guest: Guest) -> None:
    """Twenty volumes on twenty targets, from eight threads."""
    volumes = [guest.volume(guest.target(f"many-{number}", [1])) for number in range(MANY)]
    names = guest.names(*BOTH, FLOOR)
    for number in range(guest.rounds or 2):
        # os-brick takes a minute for its round: one is enough
        for name in (guest.names(OS_BRICK) if number == 0 else []) + names:
            guest.attach(
                "many", name, volumes, threads=THREADS, cap_s=180.0, note={"round": number}
            )


def apart(guest: Guest) -> None:
    """A healthy volume alone, and while another connect, or disconnect, hangs on a dead portal."""
    well = guest.volume(guest.target("well", [2]))
    ill_target = guest.target("ill", [1])
    ill = guest.volume(ill_target)
    rounds = guest.rounds or 7
    other = f"{DIRECT}, another"

    def alone() -> None:
        # in three parts, so that a machine that gets busier slows both sides
        for number in range(-(-rounds // 3)):
            guest.attach("alone", DIRECT, [well], note={"round": number})

    alone()
    guest.client(other, DIRECT)
    with portal_drops(guest.san, ill_target.portals[0]):
        _beside(guest, "beside a connect that hangs", other, "connect", ill, well, rounds)
    alone()
    guest.connect("hanging", other, [ill])
    settle()
    with portal_drops(guest.san, ill_target.portals[0]):
        _beside(guest, "beside a disconnect that hangs", other, "disconnect", ill, well, rounds)
    guest.disconnect("hanging", other, [ill], look=False)
    settle()
    alone()
    for name in guest.names(OS_BRICK):
        _os_brick_beside(guest, name, ill_target.portals[0], ill, well)


def _beside(
    guest: Guest, scenario: str, other: str, what: str, ill: Any, well: Any, rounds: int
) -> None:
    """Measure a healthy volume while another process works on an ill one.

    A pair counts when the other one still hangs at its end; one that ended is ordered again.
    """
    client = guest.client(other)
    counted = 0
    end = time.monotonic() + HANG_CAP_S
    while counted < rounds and time.monotonic() < end:
        guest.forget_dead_portals()
        began = time.monotonic()
        client.send({"do": what, "volumes": [ill]})
        answer = client.poll(UNDER_WAY_S)
        while answer is None and counted < rounds and time.monotonic() < end:
            note = {"calib_ms": round(calibrate(), 1), "round": counted}
            with guest.held() as samples:
                guest.connect(scenario, DIRECT, [well], note=note)
                settle()
                guest.disconnect(scenario, DIRECT, [well], note=note, look=False)
                settle()
            answer = client.poll()
            if answer is None:
                counted += 1
                for sample in samples:
                    guest.emit(sample)
        if answer is None:
            answer = client.poll(HANG_CAP_S)
        if answer is None:
            guest.drop_client(other)
            raise TimeoutError(f"a {what} through a silent portal did not end")
        _note_hanging(guest, other, what, time.monotonic() - began, answer)
        if what == "disconnect" and "error" not in answer["volumes"][0]:
            break


def _note_hanging(
    guest: Guest, who: str, what: str, seconds: float, answer: Mapping[str, Any]
) -> None:
    guest.emit(
        {
            "scenario": "hanging",
            "who": who,
            "what": what,
            "s": seconds,
            "commands": answer["commands"],
            "programs": None,
            "processes": None,
            "volumes": answer["volumes"],
            "errors": [one["error"] for one in answer["volumes"] if "error" in one],
        }
    )


def _os_brick_beside(guest: Guest, name: str, portal: Any, ill: Any, well: Any) -> None:
    """The same with os-brick, which hangs two minutes; whatever it leaves goes with the guest."""
    other = f"{name}, another"
    guest.attach("alone", name, [well])
    client = guest.client(other, name)
    with portal_drops(guest.san, portal):
        client.send({"do": "connect", "volumes": [ill]})
        time.sleep(1.0)
        guest.connect("beside a connect that hangs", name, [well], cap_s=OS_BRICK_WAITING_CAP_S)
        guest.drop_client(other)
        guest.drop_client(name)


def present(guest: Guest) -> None:
    """What a connect costs with nothing connected, and with 64 units connected.

    Counts vary by a few reads with the moment at which the kernel's events come: medians.
    """
    rounds = guest.rounds or 5
    target = guest.target("present", [1], luns=PRESENT + 1)
    volumes = [guest.volume(target, lun) for lun in range(1, PRESENT + 2)]
    elsewhere = guest.volume(guest.target("present-elsewhere", [2]))

    def again(scenario: str, volume: Any) -> None:
        for number in range(rounds):
            guest.attach(scenario, DIRECT, [volume], note={"round": number}, look=False)

    # the first of a target logs in; the second finds a session, as the last will
    again("first login", elsewhere)
    guest.connect("first", DIRECT, volumes[:1])
    settle()
    again("second unit", volumes[1])
    guest.connect("filling", DIRECT, volumes[1:PRESENT], cap_s=FILLING_CAP_S)
    settle()
    again(f"unit {PRESENT + 1}", volumes[PRESENT])
    again(f"login beside {PRESENT} units", elsewhere)
    guest.disconnect("emptying", DIRECT, volumes[:PRESENT], cap_s=FILLING_CAP_S)


SCENARIOS: Mapping[str, Callable[[Guest], None]] = {
    "healthy": healthy,
    "failover": failover,
    "many": many,
    "present": present,
    "apart": apart,
}
