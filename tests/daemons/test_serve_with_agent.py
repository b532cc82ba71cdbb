"""``lunport serve --agent``: one process for a machine that is all there is."""

from __future__ import annotations

from pathlib import Path

import pytest

from lunport.host.host_root import ENVIRONMENT_VARIABLE
from tests.daemons.agent_process import AgentProcess
from tests.daemons.service_process import ServiceProcess

pytestmark = pytest.mark.needs("root", "tgtd")


def test_the_service_is_the_host_s_agent_as_well(tmp_path: Path) -> None:
    """Both answer, no other agent may serve the host meanwhile, and one signal ends both."""
    host = AgentProcess(tmp_path / "host")
    service = ServiceProcess(tmp_path / "service", options=("--agent",))
    service.start(environment={ENVIRONMENT_VARIABLE: str(host.folder)})
    try:
        assert service.ask("GET", "/p/volumes")[0] == 200
        status, health = host.ask("GET", "/v1/health")
        assert (status, health["status"]) == (200, "ok")
        assert health["pid"] == service.process.pid
        status, _, error = host.run("agent")
        assert (status, "An agent of this host" in error) == (4, True), error
        assert host.run("host", "list")[0] == 0
        assert service.stop() == 0
        assert not host.path.exists()
    finally:
        service.end()
    assert "Traceback" not in service.log_text
