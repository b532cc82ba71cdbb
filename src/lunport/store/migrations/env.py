"""Alembic's environment: runs the migrations on the connection it is given."""

from __future__ import annotations

from alembic import context

from lunport.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=False,
    render_as_batch=True,
)
context.run_migrations()
