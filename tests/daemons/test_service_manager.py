"""What the agent tells the service manager: that it is ready, lives, and ends."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from lunport.host.clock import Deadline
from lunport.host.service_manager import ServiceManager
from tests.daemons.agent_process import AgentProcess
from tests.daemons.notify_socket import NotifySocket

WAIT_S = 30.0
UNIT = Path(__file__).parents[2] / "packaging" / "lunport-agent.service"


@pytest.mark.needs("root")
@pytest.mark.parametrize("kind", ["below", "abstract"])
def test_ready_alive_and_ending(tmp_path: Path, kind: str) -> None:
    """READY comes when it answers, WATCHDOG as long as it does, STOPPING at its end."""
    with NotifySocket.below(tmp_path) if kind == "below" else NotifySocket.abstract() as manager:
        agent = AgentProcess(tmp_path)
        agent.environment |= {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "300000"}
        agent.start()
        assert "READY=1" in manager.next(Deadline.after(WAIT_S))
        assert agent.ask("GET", "/v1/health")[0] == 200
        for _ in range(3):
            assert manager.next(Deadline.after(WAIT_S)) == ["WATCHDOG=1"]
        assert agent.process is not None
        agent.process.send_signal(signal.SIGTERM)
        assert "STOPPING=1" in manager.until("STOPPING=1", Deadline.after(WAIT_S))
        with agent.process:
            assert agent.process.wait(WAIT_S) == 0


@pytest.mark.needs("root")
def test_an_agent_that_hangs_falls_silent(tmp_path: Path) -> None:
    """Nothing is said while it is stopped; when it goes on it says that it lives again."""
    with NotifySocket.below(tmp_path) as manager:
        agent = AgentProcess(tmp_path)
        agent.environment |= {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "300000"}
        agent.start()
        assert "WATCHDOG=1" in manager.until("WATCHDOG=1", Deadline.after(WAIT_S))
        assert agent.process is not None
        agent.process.send_signal(signal.SIGSTOP)
        while manager.next(Deadline.after(1.0)):  # what was said before
            pass
        agent.process.send_signal(signal.SIGCONT)
        assert "WATCHDOG=1" in manager.until("WATCHDOG=1", Deadline.after(WAIT_S))
        assert agent.end() == 0


@pytest.mark.needs("root")
def test_a_manager_that_went_away(tmp_path: Path) -> None:
    """An agent whose manager's socket is gone, or none, serves as without."""
    for address in (str(tmp_path / "nowhere"), "junk", ""):
        agent = AgentProcess(tmp_path)
        agent.environment |= {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "x"}
        agent.start()
        assert agent.ask("GET", "/v1/health")[0] == 200
        assert agent.end() == 0


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, (None, None)),
        ({"NOTIFY_SOCKET": "/run/x"}, ("/run/x", None)),
        ({"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "60000000"}, ("@x", 60.0)),
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "10", "WATCHDOG_PID": "7"}, ("/x", 1e-5)),
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "10", "WATCHDOG_PID": "8"}, ("/x", None)),
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "0"}, ("/x", None)),
        ({"NOTIFY_SOCKET": "x", "WATCHDOG_USEC": "10"}, (None, None)),
        ({"NOTIFY_SOCKET": "@", "WATCHDOG_USEC": "-1"}, (None, None)),
    ],
)
def test_what_a_manager_told(
    environment: dict[str, str], expected: tuple[str | None, float | None]
) -> None:
    """Junk, and what is meant for another process, count for nothing."""
    manager = ServiceManager.of(environment, pid=7)
    assert (manager.address, manager.watchdog_s) == expected


def test_the_unit_is_in_the_right_order() -> None:
    """After what it needs, before the guests that need it, and with words to its manager."""
    unit = UNIT.read_text()
    found = {key: value.split() for key, value in re.findall(r"^(\w+)=(.*)$", unit, re.MULTILINE)}
    assert {"iscsid.service", "multipathd.service"} <= set(found["After"])
    assert found["Before"] == ["libvirt-guests.service"]
    assert (found["Type"], found["NotifyAccess"]) == (["notify"], ["main"])
    assert float(found["WatchdogSec"][0]) >= 30
