"""What tests of the export policies have in common: benches, sessions, what a host sees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lunport.core.chap import ChapCredentials
from lunport.core.iqn import Iqn
from lunport.core.secret import Secret
from lunport.targets.helper import HelperLimits
from lunport.volume.reconcile import restore_exports, sweep_images, undo_pending
from lunport.volume.service import Backend, ExportPolicy
from tests.fakes.fake_helper import LIKE_LIO, LIKE_TGT
from tests.fakes.fake_service import BACKEND, FakeBench, make_bench
from tests.fakes.volume_play import HOST_A, HOST_B

A = Iqn(str(HOST_A["initiator"]))
B = Iqn(str(HOST_B["initiator"]))
PER_HOST = ExportPolicy(export="target_per_host")
SHARED = ExportPolicy(export="shared_target")

Wire = Mapping[str, Any]


class Killed(BaseException):
    """The process ends here: nothing catches it, nothing is undone."""


def bench_of(folder: Path, kind: str, **changes: Any) -> FakeBench:
    """Put a service together: ``host`` on a helper like tgt, ``host_lio``, or ``shared``."""
    policy = replace(SHARED if kind == "shared" else PER_HOST, **changes)
    return make_bench(folder, policy=policy, limits=LIKE_TGT if kind == "host" else LIKE_LIO)


def limited(bench: FakeBench, **changes: Any) -> FakeBench:
    """Change what the helper can."""
    limits: HelperLimits = replace(bench.helper.limits, **changes)
    bench.helper.limits = limits
    return bench


def backend_of(bench: FakeBench) -> Backend:
    """Return the backend."""
    return bench.service.backends[BACKEND]


def with_policy(bench: FakeBench, policy: ExportPolicy) -> FakeBench:
    """Return the same service after its configuration was changed."""
    backends = {BACKEND: replace(backend_of(bench), policy=policy)}
    service = replace(bench.service, backends=backends)
    bench.queue.service = service
    return replace(bench, service=service)


def log_in(bench: FakeBench, data: Wire, initiator: Iqn) -> None:
    """Log in as a host that was told this."""
    credentials = None
    if "auth_username" in data:
        password = Secret(str(data["auth_password"]))
        credentials = ChapCredentials(str(data["auth_username"]), password)
    bench.helper.log_in(Iqn(str(data["target_iqn"])), initiator, credentials)


def image_at(bench: FakeBench, data: Wire, initiator: Iqn) -> str:
    """Name the image that a logged-in host finds where it was told. Raises: LunMissing."""
    return bench.helper.do_io(Iqn(str(data["target_iqn"])), initiator, data["target_lun"]).name


def seen_by(bench: FakeBench, initiator: Iqn) -> set[tuple[str, int]]:
    """Return (volume, LUN) of all units that an initiator could see, whatever the target."""
    found = set()
    for seen in bench.helper.exports():
        export = bench.helper.described(seen.iqn)
        assert export is not None
        for one in export.admissions:
            if one.initiator == initiator:
                found |= {
                    (unit.identity.serial, unit.lun)
                    for unit in export.units
                    if one.luns is None or unit.lun in one.luns
                }
    return found


def calls_since(bench: FakeBench, mark: int) -> list[str]:
    """Return the verbs that changed something, or tried to."""
    return [verb for verb in bench.helper.calls[mark:] if verb not in ("exports", "compare")]


def restart(bench: FakeBench) -> None:
    """Do what a start does; everything can be restored."""
    undo_pending(bench.service)
    bench.helper.start()
    sweep_images(bench.service, backend_of(bench))
    assert not restore_exports(bench.service, backend_of(bench))
