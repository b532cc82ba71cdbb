"""Real guests on their way between two hosts with different targets: nothing lost, nothing left."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.daemons.moving_site import MovingSite, moving_site

pytestmark = pytest.mark.needs("root", "libvirtd", "tgtd", "qemu-system-x86_64", "gcc")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MovingSite]:
    """One site for all tests here; each leaves the guest on the first host, with nothing open."""
    with moving_site(tmp_path_factory.mktemp("moving"), volumes=2) as made:
        yield made


def test_a_guest_moves_to_and_fro(site: MovingSite) -> None:
    """It writes all the while; after each move its log is whole, and the other host has nothing."""
    status, said, error = site.migrate(0, "--check")
    assert (status, "FAIL" in said) == (0, False), said + error
    for source in (0, 1):
        site.until_written(30)
        status, said, error = site.migrate(source)
        assert status == 0, error + site.hosts[1 - source].log
        assert f"runs at {site.hosts[1 - source].name}" in said
        assert "left:" not in said, said
        site.until_alone_at(1 - source)
        site.until_written(30)
