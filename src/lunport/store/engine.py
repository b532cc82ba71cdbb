"""The database engine: opening it, its transactions, and the border to database errors.

SQLite runs in WAL mode with ``synchronous=FULL``: a commit that returned survives power
loss. Writers are serialised by a lock in the process and ``BEGIN IMMEDIATE`` between
processes; readers never wait. Every wait has a limit.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc

from lunport.core.errors import InvalidInput, StaleWrite, StoreUnavailable

BUSY_TIMEOUT_S = 20.0

StoreConnection = sa.Connection


def sqlite_url(path: Path) -> sa.URL:
    """Name a SQLite file, whatever its path holds: ``?`` and ``%`` mean something in a URL."""
    return sa.URL.create("sqlite", database=str(path))


class Store:
    """One database. ``read`` and ``write`` give the only connections there are."""

    def __init__(self, url: str | sa.URL) -> None:
        self.url = sa.make_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        arguments: dict[str, Any] = {}
        if self.is_sqlite:
            arguments["connect_args"] = {
                "timeout": BUSY_TIMEOUT_S,
                "check_same_thread": False,
            }
        self.engine = sa.create_engine(
            self.url, pool_size=24, max_overflow=8, pool_timeout=BUSY_TIMEOUT_S, **arguments
        )
        self._writer = threading.Lock()
        if self.is_sqlite:
            sa.event.listen(self.engine, "connect", _prepare_sqlite)

    @contextlib.contextmanager
    def read(self, *, snapshot: bool = False) -> Iterator[sa.Connection]:
        """Give a connection for reading; with ``snapshot`` all its reads see one state.

        Raises: StoreUnavailable.
        """
        with _border(), self.engine.connect() as connection:
            if snapshot and self.is_sqlite:
                connection.exec_driver_sql("BEGIN")
            yield connection

    @contextlib.contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """Give a connection in a transaction that commits when the block ends well.

        Raises: StoreUnavailable, StaleWrite (a unique constraint lost a race).
        """
        if not self._writer.acquire(timeout=BUSY_TIMEOUT_S):
            raise StoreUnavailable(f"The database was busy for {BUSY_TIMEOUT_S:.0f} s.")
        try:
            with _border(), self.engine.connect() as connection:
                if self.is_sqlite:
                    connection.exec_driver_sql("BEGIN IMMEDIATE")
                yield connection
                connection.commit()
        finally:
            self._writer.release()

    def close(self) -> None:
        """Close every pooled connection."""
        self.engine.dispose()


@contextlib.contextmanager
def _border() -> Iterator[None]:
    try:
        yield
    except exc.IntegrityError as error:
        raise StaleWrite("Record", str(error.orig)) from error
    except exc.ProgrammingError:
        raise  # Ours: a statement that is wrong.
    except (exc.DatabaseError, exc.TimeoutError, exc.InterfaceError) as error:
        detail = getattr(error, "orig", None) or error
        raise StoreUnavailable(f"The database cannot be used: {detail}") from error
    except (OverflowError, UnicodeEncodeError) as error:
        raise InvalidInput("value", None, f"the database cannot hold it ({error})") from error


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    # The driver shall not start transactions of its own: ours are explicit.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        "cache_size=-1024",
        "journal_size_limit=16777216",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
