"""Which export policies a backend may be configured with, and why others are refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lunport.bootstrap.backends import check_policy
from lunport.config import BackendConfig
from lunport.core.errors import InvalidConfig
from tests.fakes.fake_helper import LIKE_LIO, LIKE_TGT


@pytest.mark.parametrize("export", ["target_per_volume", "target_per_host"])
def test_every_helper_can(export: str) -> None:
    """A target for each volume or host needs nothing of the helper."""
    for limits in (LIKE_TGT, LIKE_LIO):
        check_policy("fast", BackendConfig(export=export), limits)  # type: ignore[arg-type]


def test_one_for_all_needs_masks_and_credentials() -> None:
    """A shared target is refused, with the reason, where hosts would see too much."""
    config = BackendConfig(export="shared_target")
    check_policy("fast", config, LIKE_LIO)
    with pytest.raises(InvalidConfig, match=r"backend\.fast\.export.*see the volumes of all"):
        check_policy("fast", config, LIKE_TGT)
    alike = replace(LIKE_LIO, own_credentials=False)
    with pytest.raises(InvalidConfig, match=r"backend\.fast\.export.*the same credentials"):
        check_policy("fast", config, alike)
    check_policy("fast", BackendConfig(export="shared_target", chap=False), alike)


@pytest.mark.parametrize("key, limit", [("max_luns", 255), ("max_targets", 4096)])
def test_limits_beyond_the_helper_are_refused(key: str, limit: int) -> None:
    """A limit that the helper can't reach is refused with what it can."""
    keys = {key: limit}
    check_policy("fast", BackendConfig(**keys), LIKE_TGT)  # type: ignore[arg-type]
    keys = {key: limit + 1}
    with pytest.raises(InvalidConfig, match=rf"backend\.fast\.{key}.*at most {limit}"):
        check_policy("fast", BackendConfig(**keys), LIKE_TGT)  # type: ignore[arg-type]
