"""Verbs of LIO's helper in processes that are killed at a chosen effect.

One small helper process without threads is started once and forks for each act; each line of its
input is an act, each line of its output what became of it. The portals are LIO's already (the
lab's keeper has them), so the act need not be in their namespace.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lunport.core.chap import format_chap, parse_chap
from lunport.core.identity import LuIdentity
from lunport.core.iqn import Iqn
from lunport.core.portal import parse_portal
from lunport.targets.helper import Admission, Export, Unit
from lunport.targets.lio import LioHelper
from lunport.targets.naming import DEFAULT_PREFIX
from tests.stress.step_counter import StepCounter

_ALSO_EFFECTS = frozenset({("posix", "write"), ("posix", "rmdir"), ("posix", "symlink")})
PATIENCE_S = 60


@dataclass(frozen=True, slots=True)
class LioPlayer:
    """The helper process, seen from the tests."""

    child: subprocess.Popen[str] = field(repr=False)

    @classmethod
    @contextlib.contextmanager
    def started(cls) -> Iterator[LioPlayer]:
        """Have a helper process for a while."""
        with subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        ) as child:
            try:
                yield cls(child)
            finally:
                assert child.stdin is not None
                child.stdin.close()

    def was_killed(self, verb: str, export: Export, portals: list[str], at_effect: int) -> bool:
        """Do a verb, killed at that effect; False when it came to its end before."""
        request = {
            "verb": verb,
            "export": format_export(export),
            "portals": portals,
            "at_effect": at_effect,
        }
        assert self.child.stdin is not None
        assert self.child.stdout is not None
        print(json.dumps(request), file=self.child.stdin, flush=True)
        status = int(self.child.stdout.readline())
        assert status in (0, -signal.SIGKILL), status
        return status != 0


def format_export(export: Export) -> Mapping[str, object]:
    """Write an export as JSON can carry it, secrets and all."""
    return {
        "iqn": export.iqn,
        "tid": export.tid,
        "units": [
            [one.lun, str(one.path), one.identity.wwid, one.identity.serial] for one in export.units
        ],
        "admissions": [
            [one.initiator, one.chap and format_chap(one.chap), one.luns and sorted(one.luns)]
            for one in export.admissions
        ],
    }


def parse_export(wire: Mapping[str, object]) -> Export:
    """Read what :func:`format_export` wrote."""
    units, admissions = wire["units"], wire["admissions"]
    assert isinstance(units, list)
    assert isinstance(admissions, list)
    return Export(
        Iqn(str(wire["iqn"])),
        int(str(wire["tid"])),
        tuple(Unit(lun, Path(path), LuIdentity(wwid, serial)) for lun, path, wwid, serial in units),
        tuple(
            Admission(Iqn(name), chap and parse_chap(chap), luns and frozenset(luns))
            for name, chap, luns in admissions
        ),
    )


def main() -> None:
    """Answer each line of the input by the status of the process that did it."""
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _act(request)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        sys.stdout.write(f"{status}\n")
        sys.stdout.flush()


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _act(request: Mapping[str, object]) -> None:
    status = 1
    try:
        portals = request["portals"]
        wire = request["export"]
        assert isinstance(portals, list)
        assert isinstance(wire, dict)
        helper = LioHelper(
            [parse_portal(text) for text in portals], backend="lab", target_prefix=DEFAULT_PREFIX
        )
        export = parse_export(wire)
        at_effect = int(str(request["at_effect"]))
        signal.alarm(PATIENCE_S)
        counter = StepCounter(
            at_effect, lambda: os.kill(os.getpid(), signal.SIGKILL), _ALSO_EFFECTS
        )
        counter.start()
        first, last = export.admissions[0], export.units[-1]
        match request["verb"]:
            case "export":
                helper.export(export)
            case "unexport":
                helper.unexport(export.iqn, export.tid)
            case "map_unit":
                helper.map_unit(export.iqn, export.tid, last, frozenset({first.initiator}))
            case "unmap_unit":
                helper.unmap_unit(export.iqn, export.tid, last.lun)
            case "allow":
                helper.allow(export.iqn, export.tid, first)
            case "disallow":
                helper.disallow(export.iqn, export.tid, first.initiator)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


if __name__ == "__main__":
    main()
