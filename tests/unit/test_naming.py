"""Target names: made from ids, read back, and only such as tgtd takes."""

from __future__ import annotations

import re
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lunport.core.errors import InvalidConfig, InvalidInput
from lunport.core.iqn import parse_iqn
from lunport.targets.naming import (
    DEFAULT_PREFIX,
    host_target_name,
    is_of_several,
    parse_prefix,
    shared_target_name,
    target_name,
    volume_id_of,
)

PREFIXES = (DEFAULT_PREFIX, "iqn.2001-04.com.example:", "iqn.2001-04.com.example.san-2:v:")


@given(st.uuids(), st.sampled_from(PREFIXES))
def test_a_name_gives_its_volume_back(volume_id: uuid.UUID, prefix: str) -> None:
    """A name is an IQN that tgtd takes, and the volume's id is read from it."""
    name = target_name(str(volume_id), parse_prefix(prefix))
    assert parse_iqn(name) == name
    assert re.fullmatch(r"[A-Za-z0-9:.-]{1,223}", name)
    assert volume_id_of(name, prefix) == str(volume_id)


@given(st.uuids(), st.uuids())
def test_two_volumes_have_two_names(one: uuid.UUID, other: uuid.UUID) -> None:
    """Names are equal only for equal ids."""
    assert (target_name(str(one)) == target_name(str(other))) == (one == other)


@given(st.text(), st.text(), st.text(), st.sampled_from(PREFIXES))
def test_a_host_has_one_name_in_each_pool(
    pool: str, initiator: str, other: str, prefix: str
) -> None:
    """A host's target has a name of its own in each pool, which no volume's can be."""
    name = host_target_name(pool, initiator, prefix)
    assert name == host_target_name(pool, initiator, prefix)
    assert (name == host_target_name(pool, other, prefix)) == (initiator == other)
    assert (name == host_target_name(other, initiator, prefix)) == (pool == other)
    for one in (name, shared_target_name(pool, prefix)):
        assert re.fullmatch(r"[A-Za-z0-9:.-]{1,223}", one)
        assert is_of_several(one, prefix)
        assert volume_id_of(one, prefix) is None


@given(st.uuids(), st.sampled_from(PREFIXES))
def test_the_target_of_a_volume_is_of_one(volume_id: uuid.UUID, prefix: str) -> None:
    """A volume's own target is not taken for one of several, nor is a stranger's."""
    assert not is_of_several(target_name(str(volume_id), prefix), prefix)
    assert not is_of_several(f"iqn.2001-04.com.example.other:host-{'0' * 32}", prefix)


@pytest.mark.parametrize("name", ["iqn.2001-04.com.example:other", DEFAULT_PREFIX, "", "volume-1"])
def test_a_strange_name_has_no_volume(name: str) -> None:
    """Targets of others are told apart from ours."""
    assert volume_id_of(name) is None


@pytest.mark.parametrize(
    "prefix",
    [
        "",
        "volume-",
        "iqn.2026-11.io.lunport",
        "iqn.2026-11.io.lunport:Volume-",
        "iqn.2026-11.io.lunport:a_b-",
        "iqn.2026-11.io.lunport:a,b-",
        "iqn.26-11.io.lunport:volume-",
        "iqn.2026-11.io.lunport:" + "v" * 200,
        17,
        None,
    ],
)
def test_a_prefix_that_makes_no_names_is_refused(prefix: object) -> None:
    """A prefix that is no beginning of an IQN, or that tgtd would refuse, is an error."""
    with pytest.raises(InvalidConfig, match="target_prefix"):
        parse_prefix(prefix)


@pytest.mark.parametrize("volume_id", ["", "A", "a/b", "a b", "a,b", "x" * 65])
def test_an_id_that_would_change_the_name_is_refused(volume_id: str) -> None:
    """Only ids as the store makes them become names."""
    with pytest.raises(InvalidInput):
        target_name(volume_id)
