"""A destination as the source of a move sees it: the verbs of the other host's agent, by TLS.

The same values and errors come back as if it had been asked here. The other side gets a little
less time than there is, so that its own error arrives before nobody waits for it any more.
"""

from __future__ import annotations

from dataclasses import dataclass

from lunport.agent.migration_parts import MoveName, Order, PreparedVolume, Question
from lunport.agent_api import moves
from lunport.agent_api.moves import FactsBody, NameBody, PrepareBody
from lunport.client.agent import AgentPeer
from lunport.core.guest_whereabouts import Sight
from lunport.core.migration_preflight import DestinationFacts
from lunport.host.clock import Deadline

_SHARE = 0.9
_LEAST_S = 0.05
_MOST_S = 3600.0


@dataclass(frozen=True, slots=True)
class RemoteDestination:
    """The agent of another host."""

    peer: AgentPeer

    def facts(self, question: Question, deadline: Deadline) -> DestinationFacts:
        """Say what the preflight has to know."""
        body = FactsBody.of(question, _seconds(deadline))
        return moves.parse_facts(self._ask("facts", body, deadline))

    def prepare(self, order: Order, deadline: Deadline) -> tuple[PreparedVolume, ...]:
        """Reach all volumes, and return the disks that the guest gets there."""
        body = PrepareBody.of_order(order, _seconds(deadline))
        return moves.parse_prepared(self._ask("prepare", body, deadline))

    def look(self, name: MoveName, deadline: Deadline) -> Sight:
        """Say what its hypervisor shows of the guest."""
        return moves.parse_sight(self._ask_about("look", name, deadline))

    def tell(self, name: MoveName, deadline: Deadline) -> Sight:
        """Tell the service that the guest is not there, if that is so."""
        return moves.parse_sight(self._ask_about("tell", name, deadline))

    def confirm(self, name: MoveName, deadline: Deadline) -> None:
        """Take the guest over: it lives there now."""
        self._ask_about("confirm", name, deadline)

    def undo(self, name: MoveName, deadline: Deadline) -> None:
        """Take back what was prepared: the guest stays where it was."""
        self._ask_about("undo", name, deadline)

    def _ask_about(self, verb: str, name: MoveName, deadline: Deadline) -> bytes:
        return self._ask(verb, NameBody.of(name, _seconds(deadline)), deadline)

    def _ask(self, verb: str, body: FactsBody | NameBody, deadline: Deadline) -> bytes:
        return self.peer.ask("POST", f"{moves.PREFIX}/{verb}", moves.encode(body), deadline)


def _seconds(deadline: Deadline) -> float:
    return min(_MOST_S, max(_LEAST_S, deadline.remaining_s() * _SHARE))
