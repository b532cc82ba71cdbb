"""Bring a database to the schema of this version.

The usual case, a database that is there already, costs one query; alembic is imported only
when there is something to migrate. Migrations run in one transaction on both engines.
"""

from __future__ import annotations

import uuid
from pathlib import Path

import sqlalchemy as sa

from lunport.core.change import Change
from lunport.core.errors import StoreUnavailable
from lunport.store import tables
from lunport.store.engine import Store

HEAD = "0004"
DEFAULT_TYPE = "__DEFAULT__"
_DEFAULT_TYPE_ID = str(uuid.uuid5(uuid.NAMESPACE_URL, "lunport:volume-type:__DEFAULT__"))


def ensure_schema(store: Store) -> Change:
    """Create or migrate the schema. Raises: StoreUnavailable (also for a newer schema)."""
    current = _current_revision(store)
    if current == HEAD:
        return Change.UNCHANGED
    if current is not None and current > HEAD:
        raise StoreUnavailable(
            f"The database has schema {current}, newer than this version's {HEAD}: "
            "run the newer version, or restore a backup made before it."
        )
    _migrate(store)
    return Change.CHANGED


def _current_revision(store: Store) -> str | None:
    with store.read() as connection:
        if not sa.inspect(connection).has_table("alembic_version"):
            return None
        version = connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
        return None if version is None else str(version)


def _migrate(store: Store) -> None:
    # Imported here: it takes 0.2 s, and a start has under a second.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415
    from alembic.util import CommandError  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    # One transaction: a kill leaves the old schema or the new one with what belongs in it.
    with store.write() as connection:
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            raise StoreUnavailable(f"The database cannot be migrated: {error}") from error
        if connection.execute(sa.select(tables.volume_types.c.id)).first() is None:
            connection.execute(
                tables.volume_types.insert().values(
                    id=_DEFAULT_TYPE_ID,
                    name=DEFAULT_TYPE,
                    description="Default volume type",
                    is_public=True,
                    extra_specs={},
                )
            )
