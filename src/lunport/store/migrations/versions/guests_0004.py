"""Hosts whose agents may ask, and moves of guests between hosts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "enrolments",
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("initiator", sa.String(length=255), nullable=False),
        sa.Column("initiator_key", sa.String(length=255), nullable=False),
        sa.Column("enrolled_at", sa.String(length=26), nullable=False),
        sa.Column("enrolled_by", sa.String(length=255), nullable=False),
        sa.PrimaryKeyConstraint("host", name=op.f("pk_enrolments")),
        sa.UniqueConstraint("initiator_key", name=op.f("uq_enrolments_initiator_key")),
    )
    op.create_table(
        "guest_migrations",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("guest", sa.String(length=36), nullable=False),
        sa.Column("source", sa.String(length=255), nullable=False),
        sa.Column("destination", sa.String(length=255), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("source_word", sa.String(length=16), nullable=False),
        sa.Column("source_first_hand", sa.Boolean(), nullable=False),
        sa.Column("destination_word", sa.String(length=16), nullable=False),
        sa.Column("destination_first_hand", sa.Boolean(), nullable=False),
        sa.Column("winner", sa.String(length=16), nullable=True),
        sa.Column("must_fence", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.String(length=26), nullable=False),
        sa.Column("created_by", sa.String(length=255), nullable=False),
        sa.Column("updated_at", sa.String(length=26), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_guest_migrations")),
    )
    op.create_index(op.f("ix_guest_migrations_guest"), "guest_migrations", ["guest"])
    op.create_index(op.f("ix_guest_migrations_state"), "guest_migrations", ["state"])
    op.create_table(
        "guest_migration_volumes",
        sa.Column("migration_id", sa.String(length=36), nullable=False),
        sa.Column("volume_id", sa.String(length=36), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("source_attachment", sa.String(length=36), nullable=False),
        sa.Column("destination_attachment", sa.String(length=36), nullable=True),
        sa.ForeignKeyConstraint(
            ["migration_id"],
            ["guest_migrations.id"],
            name=op.f("fk_guest_migration_volumes_migration_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint(
            "migration_id", "volume_id", name=op.f("pk_guest_migration_volumes")
        ),
    )
    op.create_index(
        op.f("ix_guest_migration_volumes_volume_id"), "guest_migration_volumes", ["volume_id"]
    )
    op.create_table(
        "guest_migration_events",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("migration_id", sa.String(length=36), nullable=False),
        sa.Column("at", sa.String(length=26), nullable=False),
        sa.Column("who", sa.String(length=255), nullable=False),
        sa.Column("what", sa.String(length=64), nullable=False),
        sa.Column("document", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["migration_id"],
            ["guest_migrations.id"],
            name=op.f("fk_guest_migration_events_migration_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_guest_migration_events")),
    )
    op.create_index(
        op.f("ix_guest_migration_events_migration_id"), "guest_migration_events", ["migration_id"]
    )
