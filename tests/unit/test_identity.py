"""Tests of the SCSI identity derived from a volume id."""

from __future__ import annotations

import uuid

from hypothesis import given
from hypothesis import strategies as st

from lunport.core.identity import derive_identity
from lunport.core.wwid import parse_wwid
from tests import strategies


@given(strategies.uuids())
def test_identity_is_an_naa_designator(volume_id: str) -> None:
    """The identity is a canonical NAA-6 of LIO's company id, the serial the volume id."""
    identity = derive_identity(volume_id)
    assert parse_wwid(identity.wwid) == identity.wwid
    assert identity.wwid.startswith("naa.6001405")
    assert len(identity.wwid) == len("naa.") + 32
    assert identity.serial == volume_id


def test_identity_is_pinned() -> None:
    """The derivation never changes: volumes that exist keep their identity."""
    identity = derive_identity("12345678-abcd-1234-5678-12345678abcd")
    assert identity.wwid == "naa.60014058971605dd3db814e7d074f1fb"


@given(strategies.uuids(), st.integers(0, 35), st.sampled_from("0123456789abcdef"))
def test_one_digit_changes_what_the_helpers_keep(volume_id: str, at: int, digit: str) -> None:
    """Two ids that differ in one digit, wherever, differ within what tgt and LIO keep."""
    other = volume_id[:at] + digit + volume_id[at + 1 :]
    one, two = (_kept(derive_identity(each).wwid) for each in (volume_id, other))
    assert (one == two) is (volume_id == other)


def test_many_ids_do_not_collide() -> None:
    """A hundred thousand volume ids, random and consecutive, have as many identities."""
    ids = {str(uuid.UUID(int=(7 << 100) + number)) for number in range(50_000)}
    ids |= {str(uuid.uuid4()) for _ in range(50_000)}
    for keep in (_kept_by_tgt, _kept_by_lio):
        assert len({keep(derive_identity(each).wwid) for each in ids}) == len(ids)


def _kept(wwid: str) -> tuple[str, str]:
    return _kept_by_tgt(wwid), _kept_by_lio(wwid)


def _kept_by_tgt(wwid: str) -> str:
    return wwid[-31:]


def _kept_by_lio(wwid: str) -> str:
    return wwid.removeprefix("naa.6001405")[:25]
