"""What we configured is what rtslib-fb, and so targetcli, finds there: an oracle not of ours."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from rtslib import RTSRoot

from lab.san import San
from lunport.targets.helper import Admission
from tests.lab.lio_bench import CHAP_B, MUTUAL, A, B, LioBench


@pytest.fixture
def bench(san: San, tmp_path: Path) -> Iterator[LioBench]:
    """A helper on portals of both families."""
    with LioBench.on(san, tmp_path, (san.portals[0], san.portals6[0])) as made:
        yield made


@contextlib.contextmanager
def its_folder() -> Iterator[None]:
    """Have the folder without which the library does not begin."""
    folder = Path("/etc/target")
    is_new = not folder.exists()
    folder.mkdir(exist_ok=True)
    try:
        yield
    finally:
        if is_new:
            folder.rmdir()


def test_another_library_reads_the_same(bench: LioBench) -> None:
    """Portals, units, initiators, credentials, masks and serials are all found, once."""
    export = bench.export(
        bench.unit(1),
        bench.unit(300),
        admissions=(Admission(A, MUTUAL, frozenset({300})), Admission(B, CHAP_B)),
    )
    bench.helper.export(export)
    with its_folder(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it cannot set the kernel's dbroot, as devices are there
        found = RTSRoot().dump()
    (target,) = [one for one in found["targets"] if one["wwn"] == export.iqn]
    (group,) = target["tpgs"]
    assert (group["tag"], group["enable"]) == (1, True)
    assert sorted((one["ip_address"], one["port"]) for one in group["portals"]) == [
        ("10.0.1.2", 3260),
        ("[fd00:1::2]", 3260),
    ]
    assert sorted(one["index"] for one in group["luns"]) == [1, 300]
    acls = {one["node_wwn"]: one for one in group["node_acls"]}
    assert (acls[A]["chap_userid"], acls[A]["chap_password"]) == ("user-a", "FirstSecret12345")
    assert acls[A]["chap_mutual_userid"] == "target"
    assert [one["index"] for one in acls[A]["mapped_luns"]] == [300]
    assert sorted(one["index"] for one in acls[B]["mapped_luns"]) == [1, 300]
    devices = {one["wwn"]: one for one in found["storage_objects"]}
    for unit in export.units:
        device = devices[unit.identity.wwid.removeprefix("naa.6001405")]
        assert (device["plugin"], device["write_back"]) == ("block", False)
        assert device["dev"] == str(unit.path)
