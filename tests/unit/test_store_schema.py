"""The schema: migrations lead to the tables, a newer one is refused, no kill leaves half of it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from lunport.core.change import Change
from lunport.core.errors import InvalidInput, StaleWrite, StoreUnavailable
from lunport.store import operations, schema, tables
from lunport.store.engine import Store
from lunport.store.schema import DEFAULT_TYPE, HEAD, ensure_schema
from lunport.volume import catalog, volumes
from lunport.volume.requests import NewVolume
from tests.fakes.fake_service import make_bench
from tests.fakes.volume_play import ME


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A database that is not there yet."""
    made = Store(f"sqlite:///{tmp_path / 'new.sqlite'}")
    yield made
    made.close()


def names_in(store: Store) -> set[str]:
    """Return the names of all tables and indexes, but for SQLite's own."""
    with store.read() as connection:
        rows = connection.execute(sa.text("SELECT name FROM sqlite_master"))
        return {row.name for row in rows if not row.name.startswith("sqlite_")}


def test_migrations_lead_to_the_tables(store: Store) -> None:
    """Alembic's head is what ``tables.py`` says, and what ``schema.py`` calls the head."""
    assert ensure_schema(store) is Change.CHANGED
    with store.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, tables.metadata) == []
        assert context.get_current_revision() == HEAD
    folder = Path(schema.__file__).parent / "migrations"
    assert ScriptDirectory(str(folder)).get_heads() == [HEAD]
    assert ensure_schema(store) is Change.UNCHANGED


def test_there_is_a_default_type(tmp_path: Path) -> None:
    """A new database has the type of volumes that name none, and it can be named."""
    bench = make_bench(tmp_path)
    (only,) = catalog.list_types(bench.service, ME)
    assert only == catalog.default_type(bench.service, ME)
    assert only.name == DEFAULT_TYPE
    for name in (only.name, only.id, None):
        made = volumes.create_volume(bench.service, ME, NewVolume(1, volume_type=name)).volume
        assert made.volume_type_id == only.id


def test_an_older_schema_is_brought_up_to_date(store: Store) -> None:
    """A database of the first schema gets what came since, and keeps what it holds."""
    ensure_schema(store)
    with store.write() as connection:
        for table in (
            "guest_migration_events",
            "guest_migration_volumes",
            "guest_migrations",
            "enrolments",
            "path_reports",
            "target_units",
            "target_initiators",
            "targets",
            "revocations",
        ):
            connection.execute(sa.text(f"DROP TABLE {table}"))
        connection.execute(sa.text("DROP INDEX ix_connections_target_id"))
        for column in ("target_id", "portals"):
            connection.execute(sa.text(f"ALTER TABLE connections DROP COLUMN {column}"))
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '0001'"))
        operations.write_choice(connection, "kept", "yes")
    assert ensure_schema(store) is Change.CHANGED
    with store.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, tables.metadata) == []
        assert operations.read_choice(connection, "kept") == "yes"
        assert [one.name for one in operations.types(connection)] == [DEFAULT_TYPE]
    assert ensure_schema(store) is Change.UNCHANGED


@pytest.mark.parametrize("revision", ["0005", "9999", "nonsense", "0000"])
def test_a_schema_from_elsewhere_is_refused(store: Store, revision: str) -> None:
    """A schema that is newer, or that is not known, is refused and left as it is."""
    ensure_schema(store)
    with store.write() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = :r"), {"r": revision})
    before = names_in(store)
    with pytest.raises(StoreUnavailable):
        ensure_schema(store)
    assert names_in(store) == before


class Killed(BaseException):
    """The process ends here."""


def statements_of_a_migration(folder: Path) -> int:
    """Count the statements that make a new database."""
    store = Store(f"sqlite:///{folder / 'counted.sqlite'}")
    count = 0

    def count_one(*_: object) -> None:
        nonlocal count
        count += 1

    sa.event.listen(store.engine, "before_cursor_execute", count_one)
    ensure_schema(store)
    store.close()
    return count


def test_killed_migration_is_repaired(tmp_path: Path) -> None:
    """A migration that ends before any of its statements leaves nothing, and the next one works."""
    count = statements_of_a_migration(tmp_path)
    assert count > 10
    for step in range(count):
        file = tmp_path / f"{step}.sqlite"
        store = Store(f"sqlite:///{file}")
        left = step

        def kill_at_the_step(*_: object) -> None:
            nonlocal left
            if left == 0:
                raise Killed
            left -= 1

        sa.event.listen(store.engine, "before_cursor_execute", kill_at_the_step)
        with pytest.raises(Killed):
            ensure_schema(store)
        store.close()
        again = Store(f"sqlite:///{file}")
        assert names_in(again) == set(), f"statement {step} left something"
        assert ensure_schema(again) is Change.CHANGED
        with again.read() as connection:
            assert [one.name for one in operations.types(connection)] == [DEFAULT_TYPE]
        again.close()


def test_a_crash_loses_no_commit_and_keeps_no_half(tmp_path: Path) -> None:
    """The files as they are at any moment hold what was committed and nothing of the rest."""
    file = tmp_path / "live.sqlite"
    store = Store(f"sqlite:///{file}")
    ensure_schema(store)
    with store.write() as connection:
        operations.write_choice(connection, "committed", "yes")

    def write_half() -> None:
        with store.write() as connection:
            operations.write_choice(connection, "half", "yes")
            # What a kill at this moment would leave on the disk.
            for suffix in ("", "-wal"):
                copy = tmp_path / f"copy.sqlite{suffix}"
                copy.write_bytes(Path(f"{file}{suffix}").read_bytes())
            raise Killed

    with pytest.raises(Killed):
        write_half()
    for found in (store, Store(f"sqlite:///{tmp_path / 'copy.sqlite'}")):
        with found.read() as connection:
            assert operations.read_choice(connection, "committed") == "yes"
            assert operations.read_choice(connection, "half") is None
        found.close()


def test_commits_survive_power_loss(store: Store) -> None:
    """A commit that returned is on the disk: WAL with ``synchronous=FULL``."""
    with store.read() as connection:
        assert connection.scalar(sa.text("PRAGMA journal_mode")) == "wal"
        assert connection.scalar(sa.text("PRAGMA synchronous")) == 2


# -- the border to the database's errors -----------------------------------------------------------


def test_file_that_is_no_database(tmp_path: Path) -> None:
    """A file that is no database is refused with a sentence, and left as it is."""
    file = tmp_path / "none.sqlite"
    file.write_bytes(b"this is no database" * 100)
    with pytest.raises(StoreUnavailable, match="not a database"):
        ensure_schema(Store(f"sqlite:///{file}"))
    assert file.read_bytes() == b"this is no database" * 100


def test_folder_that_is_not_there(tmp_path: Path) -> None:
    """A database in a folder that is not there is refused with a sentence."""
    with pytest.raises(StoreUnavailable, match="unable to open"):
        ensure_schema(Store(f"sqlite:///{tmp_path / 'no' / 'such.sqlite'}"))


def test_lost_race_for_a_unique_value(store: Store) -> None:
    """A value that somebody else took first is a stale write, and nothing is written."""
    ensure_schema(store)
    with store.write() as connection:
        connection.execute(tables.choices.insert(), {"key": "k", "value": "first"})
    taken = [{"key": "other", "value": "x"}, {"key": "k", "value": "second"}]
    with pytest.raises(StaleWrite), store.write() as connection:
        connection.execute(tables.choices.insert(), taken)
    with store.read() as connection:
        assert operations.read_choice(connection, "k") == "first"
        assert operations.read_choice(connection, "other") is None


@pytest.mark.parametrize("value", [2**63, -(2**70), "\ud800"], ids=ascii)
def test_value_that_no_column_holds(store: Store, value: object) -> None:
    """A number or text that the database cannot hold is the caller's error."""
    ensure_schema(store)
    with pytest.raises(InvalidInput), store.write() as connection:
        connection.execute(tables.choices.insert(), {"key": "k", "value": value})


def test_another_process_has_the_database(store: Store, tmp_path: Path) -> None:
    """While somebody else writes, reads go on and see what was committed."""
    ensure_schema(store)
    other = sqlite3.connect(tmp_path / "new.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    other.execute("INSERT INTO choices VALUES ('theirs', '1')")
    with store.read() as connection:
        assert operations.read_choice(connection, "theirs") is None
    other.execute("COMMIT")
    other.close()
    with store.read() as connection:
        assert operations.read_choice(connection, "theirs") == "1"
