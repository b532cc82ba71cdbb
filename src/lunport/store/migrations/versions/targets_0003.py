"""Targets of several volumes, the order of portals that a host was told, and revocations."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "targets",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("backend", sa.String(length=64), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=8), nullable=False),
        sa.Column("initiator", sa.String(length=255), nullable=True),
        sa.Column("iqn", sa.String(length=255), nullable=False),
        sa.Column("created_at", sa.String(length=26), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_targets")),
        sa.UniqueConstraint("backend", "number", name=op.f("uq_targets_backend_number")),
        sa.UniqueConstraint("backend", "iqn", name=op.f("uq_targets_backend_iqn")),
    )
    op.create_table(
        "target_initiators",
        sa.Column("target_id", sa.String(length=36), nullable=False),
        sa.Column("initiator", sa.String(length=255), nullable=False),
        sa.Column("chap_username", sa.String(length=255), nullable=True),
        sa.Column("chap_password", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["target_id"],
            ["targets.id"],
            name=op.f("fk_target_initiators_target_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("target_id", "initiator", name=op.f("pk_target_initiators")),
    )
    op.create_table(
        "target_units",
        sa.Column("target_id", sa.String(length=36), nullable=False),
        sa.Column("lun", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("volume_id", sa.String(length=36), nullable=True),
        sa.Column("freed_at", sa.String(length=26), nullable=True),
        sa.ForeignKeyConstraint(
            ["target_id"],
            ["targets.id"],
            name=op.f("fk_target_units_target_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("target_id", "lun", name=op.f("pk_target_units")),
    )
    op.create_index(op.f("ix_target_units_volume_id"), "target_units", ["volume_id"])
    op.create_table(
        "revocations",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=True),
        sa.Column("initiator", sa.String(length=255), nullable=True),
        sa.Column("volume_id", sa.String(length=36), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created_at", sa.String(length=26), nullable=False),
        sa.Column("created_by", sa.String(length=255), nullable=False),
        sa.Column("lifted_at", sa.String(length=26), nullable=True),
        sa.Column("lifted_by", sa.String(length=255), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_revocations")),
    )
    op.create_index("ix_revocations_lifted_at", "revocations", ["lifted_at"])
    op.add_column("connections", sa.Column("target_id", sa.String(length=36), nullable=True))
    op.add_column("connections", sa.Column("portals", sa.Text(), nullable=True))
    op.create_index(op.f("ix_connections_target_id"), "connections", ["target_id"])
