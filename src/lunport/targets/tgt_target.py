"""One tgt target as a value to speak to, and looks at what the daemon shows.

What is done with its units, accounts and initiators is in ``tgt_units.py``,
``tgt_accounts.py`` and ``tgt_initiators.py``; in what order, and what is undone when a step
fails, is decided in ``targets/tgt.py``.

Source: tgt 1.0.85, ``usr/target.c``.
"""

from __future__ import annotations

from dataclasses import dataclass

from lunport.core.errors import ExportFailed
from lunport.host.tgt_requests import TgtRequests
from lunport.host.tgt_show import ShownTarget, find_targets, parse_targets
from lunport.host.tgt_socket import Answer, TgtStatus


@dataclass(frozen=True, slots=True)
class OneTarget:
    """A target by its name and its number, and the requests that one operation makes of it."""

    requests: TgtRequests
    iqn: str
    tid: int

    def expect(self, answer: Answer, step: str, *accepted: TgtStatus) -> bool:
        """Tell whether a step did something; an accepted status says it was done before.

        Raises: ExportFailed.
        """
        return expect(answer, self.iqn, step, *accepted)

    def look(self) -> ShownTarget | None:
        """Look at the target of that name and number; None when there is none.

        tgtd can only show all of them, some 25 µs each, during which it serves no I/O.
        """
        found = find_targets(show_text(self.requests), self.tid, self.iqn)
        wanted = (self.tid, self.iqn)
        return next((one for one in found if (one.tid, one.name) == wanted), None)


def expect(answer: Answer, target: str, step: str, *accepted: TgtStatus) -> bool:
    """Tell whether the step did something; an accepted status says that it was done before.

    Raises: ExportFailed.
    """
    if answer.status is TgtStatus.SUCCESS:
        return True
    if answer.status in accepted:
        return False
    raise ExportFailed(target, step, answer.sentence)


def show_all(requests: TgtRequests) -> tuple[ShownTarget, ...]:
    """Look at every target."""
    return parse_targets(show_text(requests))


def show_text(requests: TgtRequests) -> str:
    """Return the daemon's description of every target, unparsed."""
    answer = requests.show_targets()
    expect(answer, "the targets", "look")
    return answer.text
