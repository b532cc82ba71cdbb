"""The agent's application in this process, asked as its socket would be: bytes there and back."""

from __future__ import annotations

from dataclasses import dataclass, field

from falcon import testing

from lunport.agent.agent import Agent
from lunport.agent_api.app import AgentSettings, WsgiApp, make_app
from lunport.agent_api.documents import AwaitedDocument, HealthDocument
from lunport.agent_api.metrics import Metrics
from lunport.agent_api.verbs import Verbs
from lunport.cli.exit_codes import exit_code_of
from lunport.client.agent import read_answer
from lunport.core.errors import AgentUnavailable
from lunport.host.clock import Deadline


def serve(agent: Agent, verbs_at_once: int = 4) -> tuple[WsgiApp, Verbs]:
    """Make the application of an agent."""
    earlier = agent.earlier_boot

    def health() -> HealthDocument:
        awaited = () if earlier is None else earlier.awaited()
        return HealthDocument("ok", 1, 0.0, [AwaitedDocument.of(one) for one in awaited])

    metrics = Metrics(agent.paths, lambda: 0 if earlier is None else len(earlier.pending()))
    return make_app(agent, metrics, AgentSettings(exit_code_of, health, verbs_at_once))


@dataclass(slots=True)
class SocketInProcess:
    """Asks the application. ``is_lost``: the agent dies once it has done what it was asked."""

    app: WsgiApp
    is_lost: bool = False
    asked: list[tuple[str, bytes | None]] = field(default_factory=list)

    def answers(self, deadline: Deadline) -> bool:
        """Tell whether it is there."""
        assert not deadline.has_passed()
        return not self.is_lost

    def ask(self, method: str, target: str, body: bytes | None, deadline: Deadline) -> bytes:
        """Make one request."""
        assert not deadline.has_passed()
        self.asked.append((target, body))
        client = testing.TestClient(self.app)
        answer = client.simulate_request(method, target, body=body)
        if self.is_lost:
            raise AgentUnavailable("The agent is gone.")
        return read_answer(answer.status_code, answer.content)
