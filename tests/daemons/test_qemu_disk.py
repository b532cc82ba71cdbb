"""Tests that QEMU's own initiator takes the disk source that the choice leads to."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from lunport.core.chap import Chap
from lunport.core.disk_source import (
    DiskSource,
    iscsi_uri,
    make_disk_source,
    qemu_options,
    qemu_secret_options,
)
from lunport.core.errors import CommandError
from lunport.core.iqn import Iqn
from lunport.core.secret import Secret
from lunport.core.target_path import TargetPath
from lunport.core.wwid import Wwid
from lunport.host.clock import Deadline
from lunport.host.dead_portals import DeadPortals
from lunport.host.qemu_secret import secret_file
from lunport.host.runner import run
from lunport.initiator.portal_choice import choose_path
from tests.daemons.conftest import CHAP, INITIATOR, RunningTgtd, free_portals
from tests.single_exports import unit_of

TIME_S = 30.0
QEMU_NAME = Iqn("iqn.2008-11.org.linux-kvm")


@pytest.fixture(autouse=True)
def host_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the host's shared files in the test's folder."""
    monkeypatch.setenv("LUNPORT_HOST_ROOT", str(tmp_path / "host"))
    return tmp_path / "host"


def qemu_io(source: DiskSource, secret: Secret | None, *commands: str) -> str:
    """Run qemu-io on a disk source, the secret in a file if there is one."""
    words = [word for command in commands for word in ("-c", command)]
    if secret is None:
        options = qemu_options(source, secret_id=None)
        argv = ["qemu-io", "--image-opts", *words, options]
        return run(argv, Deadline.after(TIME_S)).stdout
    with secret_file(secret) as file:
        options = qemu_options(source, secret_id="chap0")
        secret_object = qemu_secret_options("chap0", str(file))
        argv = ["qemu-io", "--object", secret_object, "--image-opts", *words, options]
        assert secret.reveal() not in " ".join(argv)
        return run(argv, Deadline.after(TIME_S)).stdout


@pytest.mark.parametrize("chap", [None, CHAP], ids=["open", "chap"])
def test_the_chosen_path_carries_data(tgtd: RunningTgtd, chap: Chap | None) -> None:
    """Data written by QEMU through the alternative is read back through the main portal."""
    export = tgtd.export(chap=chap)
    tgtd.helper.export(export)
    (refusing,) = free_portals("127.0.0.1")
    secret = chap.initiator.password if chap is not None else None
    for portals in ((refusing, tgtd.portals[1]), tgtd.portals):
        choice = choose_path(
            [TargetPath(portal, export.iqn, unit_of(export).lun) for portal in portals],
            INITIATOR,
            chap=chap,
            wwid=Wwid(unit_of(export).identity.wwid),
            memory=DeadPortals(),
            deadline=Deadline.after(TIME_S),
        )
        source = make_disk_source(choice.path, INITIATOR, chap)
        if refusing in portals:
            qemu_io(source, secret, "write -P 0xa5 0 1M", "flush")
        else:
            said = qemu_io(source, secret, "read -P 0xa5 0 1M")
            assert "read 1048576/1048576" in said
            assert "verification failed" not in said
    assert unit_of(export).path.read_bytes()[: 1 << 20] == b"\xa5" * (1 << 20)


def test_the_uri_is_understood(tgtd: RunningTgtd) -> None:
    """QEMU opens the URI of a path; by a URI it always goes by its own initiator name."""
    export = tgtd.export(chap=None, initiators=frozenset({QEMU_NAME}))
    tgtd.helper.export(export)
    path = TargetPath(tgtd.portals[0], export.iqn, unit_of(export).lun)
    argv = ["qemu-io", "-f", "raw", "-c", "length", iscsi_uri(path)]
    assert "16 MiB" in run(argv, Deadline.after(TIME_S)).stdout


def test_a_wrong_secret_is_refused_by_the_target(tgtd: RunningTgtd) -> None:
    """QEMU really authenticates: with another secret it gets nothing."""
    export = tgtd.export(chap=CHAP)
    tgtd.helper.export(export)
    path = TargetPath(tgtd.portals[0], export.iqn, unit_of(export).lun)
    source = make_disk_source(path, INITIATOR, CHAP)
    with pytest.raises(CommandError, match=r"(?i)authenticat|login"):
        qemu_io(source, Secret("NotTheSecret1234"), "read 0 512")


def test_the_secret_is_private_and_gone(host_root: Path) -> None:
    """The secret's file is for this user alone, and is gone however the block ends."""
    seen: list[Path] = []

    def use_and_fail() -> None:
        with secret_file(Secret("Secret4Tests1234")) as file:
            seen.append(file)
            assert file.read_text() == "Secret4Tests1234"
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
            assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
            raise RuntimeError("whatever")

    with pytest.raises(RuntimeError, match="whatever"):
        use_and_fail()
    (file,) = seen
    assert file.is_relative_to(host_root / "run" / "secrets")
    assert not file.parent.exists()
    assert list((host_root / "run" / "secrets").iterdir()) == []
