"""Tests of what a host's journal holds of its guests."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lunport.core.chap import Chap, ChapCredentials
from lunport.core.errors import InvalidInput, JournalDamaged
from lunport.core.guest_attachment import (
    GuestAttachment,
    GuestPhase,
    OwnedGuest,
    attachment_key,
    format_guest_attachment,
    format_owned_guest,
    parse_guest_attachment,
    parse_owned_guest,
    secret_id_of,
)
from lunport.core.guest_disk import InitiatorKind
from lunport.core.secret import Secret
from lunport.host.guest_journal import GuestJournal
from tests import strategies

TEXTS = st.text(min_size=1, max_size=20)
ATTACHMENTS = st.builds(
    GuestAttachment,
    uri=TEXTS,
    guest_id=strategies.uuids(),
    guest_name=TEXTS,
    volume_id=strategies.uuids(),
    endpoint=TEXTS,
    phase=st.sampled_from(GuestPhase),
    initiator=st.sampled_from(InitiatorKind),
    multipath=st.none() | st.booleans(),
    attachment_id=st.none() | TEXTS,
    target=st.none() | TEXTS,
    since=st.floats(0, 1e11),
)
OWNED = st.builds(OwnedGuest, TEXTS, strategies.uuids(), TEXTS, st.booleans(), TEXTS)
ONE = GuestAttachment(
    uri="qemu:///system",
    guest_id="d0000000-0000-4000-8000-000000000001",
    guest_name="web",
    volume_id="58a84f6d-3f0c-4e19-a0af-eb657b790657",
    endpoint="http://san:8776",
    phase=GuestPhase.ATTACHED,
    initiator=InitiatorKind.QEMU,
    multipath=None,
    attachment_id="attachment-1",
    target="vdb",
    since=1.0,
)


@given(ATTACHMENTS, OWNED)
def test_what_is_written_is_read(attachment: GuestAttachment, owned: OwnedGuest) -> None:
    """Every entry reads back as the same value."""
    assert parse_guest_attachment(format_guest_attachment(attachment)) == attachment
    assert parse_owned_guest(format_owned_guest(owned)) == owned


@given(strategies.json_values() | st.text(max_size=30))
def test_junk_is_refused(value: object) -> None:
    """Whatever a file holds, it is an entry or an error of ours."""
    text = value if isinstance(value, str) else json.dumps(value)
    for parse in (parse_guest_attachment, parse_owned_guest):
        with pytest.raises(InvalidInput):
            parse(text)


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "a b", "x" * 101, "a+b"])
def test_keys_are_file_names(name: str) -> None:
    """An id that could lead out of the folder, or be read as two, is refused."""
    with pytest.raises(InvalidInput):
        attachment_key(name, "volume")
    with pytest.raises(InvalidInput):
        attachment_key("guest", name)


@given(TEXTS, TEXTS)
def test_each_attachment_has_a_secret_of_its_own(one: str, other: str) -> None:
    """The secret's id is a UUID that follows from the attachment's id."""
    assert str(uuid.UUID(secret_id_of(one))) == secret_id_of(one)
    assert uuid.UUID(secret_id_of(one)).variant == uuid.RFC_4122
    assert (secret_id_of(one) == secret_id_of(other)) == (one == other)


def test_entries_live_in_files(tmp_path: Path) -> None:
    """Entries are kept, found, replaced and forgotten; their credentials go with them."""
    journal = GuestJournal(tmp_path / "guests")
    assert journal.all() == ()
    journal.write(ONE)
    chap = Chap(ChapCredentials("u", Secret("Secret4Tests1234")))
    journal.write_chap(ONE, chap)
    assert journal.get(ONE.guest_id, ONE.volume_id) == ONE
    assert journal.of_guest(ONE.guest_id) == (ONE,)
    assert journal.of_guest("another") == ()
    assert journal.chap(ONE) == chap
    journal.remove(ONE)
    journal.remove(ONE)
    assert (journal.all(), journal.chap(ONE)) == ((), None)
    owned = OwnedGuest(ONE.uri, ONE.guest_id, "web", autostart=True, boot_id="boot")
    journal.own(owned)
    assert (journal.owned(), journal.get_owned(ONE.guest_id)) == ((owned,), owned)
    journal.disown(ONE.guest_id)
    assert journal.owned() == ()


def test_a_damaged_file_is_told_and_blocks_no_other(tmp_path: Path) -> None:
    """What can't be read is named; the other entries are read all the same."""
    journal = GuestJournal(tmp_path / "guests")
    journal.write(ONE)
    file = tmp_path / "guests" / "attachments" / "x+y.json"
    file.write_text("{")
    assert journal.all() == (ONE,)
    (damage,) = journal.damages()
    assert str(file) in str(damage)
    with pytest.raises(JournalDamaged):
        journal.get("x", "y")
