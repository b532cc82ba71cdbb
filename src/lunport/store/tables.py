"""The schema, as SQLAlchemy Core tables; the same on SQLite and PostgreSQL.

Times are UTC text of fixed width (``2026-11-20T21:38:00.123456``), which sorts as it should
and goes on the wire unchanged. Secrets live in ``volumes`` and ``target_initiators`` only.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from lunport.core.secret import Secret

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class SecretText(sa.types.TypeDecorator[Secret]):
    """A text column whose values are secrets in Python."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: Secret | None, dialect: sa.Dialect) -> str | None:
        """Reveal the secret to the database."""
        return None if value is None else value.reveal()

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> Secret | None:
        """Wrap the secret again."""
        return None if value is None else Secret(value)


def _time(name: str, *, required: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.String(26), nullable=not required)


volumes = sa.Table(
    "volumes",
    metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("project_id", sa.String(255), nullable=False),
    sa.Column("user_id", sa.String(255), nullable=False),
    sa.Column("name", sa.String(255)),
    sa.Column("description", sa.String(255)),
    sa.Column("size_gib", sa.Integer, nullable=False),
    sa.Column("status", sa.String(32), nullable=False),
    sa.Column("previous_status", sa.String(32)),
    sa.Column("attach_status", sa.String(32), nullable=False),
    sa.Column("migration_status", sa.String(32)),
    sa.Column("bootable", sa.Boolean, nullable=False),
    sa.Column("multiattach", sa.Boolean, nullable=False),
    sa.Column("readonly", sa.Boolean),
    sa.Column("volume_type_id", sa.String(36), nullable=False),
    sa.Column("availability_zone", sa.String(255), nullable=False),
    sa.Column("source_volid", sa.String(36)),
    sa.Column("snapshot_id", sa.String(36)),
    sa.Column("backend", sa.String(64), nullable=False),
    sa.Column("host", sa.String(255), nullable=False),
    sa.Column("metadata", sa.JSON, nullable=False),
    sa.Column("wwid", sa.String(64), nullable=False, unique=True),
    sa.Column("target_number", sa.Integer, nullable=False),
    sa.Column("provider_location", sa.Text),
    sa.Column("chap_username", sa.String(255)),
    sa.Column("chap_password", SecretText),
    _time("created_at", required=True),
    _time("updated_at"),
    sa.UniqueConstraint("backend", "target_number"),
)
# The order of pages, the id included: no rows are sorted.
sa.Index(
    "ix_volumes_project_id_created_at_id",
    volumes.c.project_id,
    volumes.c.created_at,
    volumes.c.id,
)
sa.Index("ix_volumes_created_at_id", volumes.c.created_at, volumes.c.id)

snapshots = sa.Table(
    "snapshots",
    metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("volume_id", sa.String(36), nullable=False, index=True),
    sa.Column("project_id", sa.String(255), nullable=False),
    sa.Column("user_id", sa.String(255), nullable=False),
    sa.Column("name", sa.String(255)),
    sa.Column("description", sa.String(255)),
    sa.Column("size_gib", sa.Integer, nullable=False),
    sa.Column("status", sa.String(32), nullable=False),
    sa.Column("progress", sa.String(8), nullable=False),
    sa.Column("volume_type_id", sa.String(36), nullable=False),
    sa.Column("backend", sa.String(64), nullable=False),
    sa.Column("metadata", sa.JSON, nullable=False),
    _time("created_at", required=True),
    _time("updated_at"),
)
sa.Index(
    "ix_snapshots_project_id_created_at_id",
    snapshots.c.project_id,
    snapshots.c.created_at,
    snapshots.c.id,
)

attachments = sa.Table(
    "attachments",
    metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("volume_id", sa.String(36), nullable=False, index=True),
    sa.Column("project_id", sa.String(255), nullable=False),
    sa.Column("instance_uuid", sa.String(36)),
    sa.Column("attached_host", sa.String(255)),
    sa.Column("mountpoint", sa.String(255)),
    sa.Column("attach_mode", sa.String(8)),
    sa.Column("attach_status", sa.String(32), nullable=False),
    sa.Column("connector", sa.JSON(none_as_null=True)),
    _time("attached_at"),
    _time("created_at", required=True),
    _time("updated_at"),
)

# What a host last told of an attachment's paths; goes with the attachment.
path_reports = sa.Table(
    "path_reports",
    metadata,
    sa.Column(
        "attachment_id",
        sa.String(36),
        sa.ForeignKey("attachments.id", ondelete="CASCADE"),
        primary_key=True,
    ),
    sa.Column("document", sa.JSON, nullable=False),
    _time("reported_at", required=True),
)

# Which initiators may use a volume, and why: by an attachment, or (NULL) by a bare
# os-initialize_connection. The export exists while its volume has a row here. A row is pending
# until the target helper has acted; `undo` says what a restart makes of a pending one.
# `target_id`: the target it goes through, the volume's own if NULL. `portals`: the order that
# the host was told, `;` between them; NULL for one of an earlier version.
connections = sa.Table(
    "connections",
    metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("volume_id", sa.String(36), nullable=False, index=True),
    sa.Column("attachment_id", sa.String(36), index=True),
    sa.Column("initiator", sa.String(255), nullable=False),
    sa.Column("connector", sa.JSON, nullable=False),
    sa.Column("pending", sa.Boolean, nullable=False),
    _time("created_at", required=True),
    sa.Column("target_id", sa.String(36), index=True),
    sa.Column("portals", sa.Text),
)

# Targets that several volumes share: a host's (kind "host"), or the one of all ("shared"; then
# there is no initiator). A row stays when its target goes: the name, the number, the
# credentials and the history of its LUNs are the same when it comes again. `number` is counted
# together with `volumes.target_number`.
targets = sa.Table(
    "targets",
    metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("backend", sa.String(64), nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("kind", sa.String(8), nullable=False),
    sa.Column("initiator", sa.String(255)),
    sa.Column("iqn", sa.String(255), nullable=False),
    _time("created_at", required=True),
    sa.UniqueConstraint("backend", "number"),
    sa.UniqueConstraint("backend", "iqn"),
)


def _target_id() -> sa.Column[str]:
    return sa.Column(
        "target_id",
        sa.String(36),
        sa.ForeignKey("targets.id", ondelete="CASCADE"),
        primary_key=True,
    )


# Who was ever let in to such a target, with which credentials (NULL: without).
target_initiators = sa.Table(
    "target_initiators",
    metadata,
    _target_id(),
    sa.Column("initiator", sa.String(255), primary_key=True),
    sa.Column("chap_username", sa.String(255)),
    sa.Column("chap_password", SecretText),
)

# Every number that was ever used on such a target: by a volume, or free since then.
target_units = sa.Table(
    "target_units",
    metadata,
    _target_id(),
    sa.Column("lun", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("volume_id", sa.String(36), index=True),
    _time("freed_at"),
)

# Hosts that were cut off, from one volume or (NULL) from all, and when that was lifted. Both
# the host's name and its initiator are looked for; what applied once stays here.
revocations = sa.Table(
    "revocations",
    metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("host", sa.String(255)),
    sa.Column("initiator", sa.String(255)),
    sa.Column("volume_id", sa.String(36)),
    sa.Column("reason", sa.Text, nullable=False),
    _time("created_at", required=True),
    sa.Column("created_by", sa.String(255), nullable=False),
    _time("lifted_at"),
    sa.Column("lifted_by", sa.String(255)),
)
sa.Index("ix_revocations_lifted_at", revocations.c.lifted_at)

# Hosts whose agents may ask for their own exports, and by which initiator each is known.
# `initiator_key`: the same for all spellings, so that no two hosts have one initiator.
enrolments = sa.Table(
    "enrolments",
    metadata,
    sa.Column("host", sa.String(255), primary_key=True),
    sa.Column("initiator", sa.String(255), nullable=False),
    sa.Column("initiator_key", sa.String(255), nullable=False, unique=True),
    _time("enrolled_at", required=True),
    sa.Column("enrolled_by", sa.String(255), nullable=False),
)

# Moves of guests between hosts, open and past: `core/migration_plan.py` says what the states
# mean. `revision` counts the changes; each one names that which it follows.
guest_migrations = sa.Table(
    "guest_migrations",
    metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("guest", sa.String(36), nullable=False, index=True),
    sa.Column("source", sa.String(255), nullable=False),
    sa.Column("destination", sa.String(255), nullable=False),
    sa.Column("state", sa.String(16), nullable=False, index=True),
    sa.Column("source_word", sa.String(16), nullable=False),
    sa.Column("source_first_hand", sa.Boolean, nullable=False),
    sa.Column("destination_word", sa.String(16), nullable=False),
    sa.Column("destination_first_hand", sa.Boolean, nullable=False),
    sa.Column("winner", sa.String(16)),
    sa.Column("must_fence", sa.Boolean, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("revision", sa.Integer, nullable=False),
    _time("created_at", required=True),
    sa.Column("created_by", sa.String(255), nullable=False),
    _time("updated_at", required=True),
)


def _migration_id(*, primary_key: bool) -> sa.Column[str]:
    return sa.Column(
        "migration_id",
        sa.String(36),
        sa.ForeignKey("guest_migrations.id", ondelete="CASCADE"),
        primary_key=primary_key,
        nullable=False,
        index=not primary_key,
    )


guest_migration_volumes = sa.Table(
    "guest_migration_volumes",
    metadata,
    _migration_id(primary_key=True),
    sa.Column("volume_id", sa.String(36), primary_key=True, index=True),
    sa.Column("position", sa.Integer, nullable=False),
    sa.Column("source_attachment", sa.String(36), nullable=False),
    sa.Column("destination_attachment", sa.String(36)),
)

# What happened to a migration, and what it was like then; also what its agents note.
guest_migration_events = sa.Table(
    "guest_migration_events",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    _migration_id(primary_key=False),
    _time("at", required=True),
    sa.Column("who", sa.String(255), nullable=False),
    sa.Column("what", sa.String(64), nullable=False),
    sa.Column("document", sa.JSON, nullable=False),
)

# Work accepted and not yet finished; the row goes in the transaction that finishes it.
operations = sa.Table(
    "operations",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("kind", sa.String(32), nullable=False),
    sa.Column("resource_id", sa.String(36), nullable=False, index=True),
    sa.Column("arguments", sa.JSON, nullable=False),
    sa.Column("request_id", sa.String(64), nullable=False),
    _time("created_at", required=True),
)

messages = sa.Table(
    "messages",
    metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("project_id", sa.String(255), nullable=False),
    sa.Column("request_id", sa.String(64), nullable=False),
    sa.Column("resource_type", sa.String(32), nullable=False),
    sa.Column("resource_uuid", sa.String(36), nullable=False),
    sa.Column("event_id", sa.String(64), nullable=False),
    sa.Column("user_message", sa.Text, nullable=False),
    _time("created_at", required=True),
)

volume_types = sa.Table(
    "volume_types",
    metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("name", sa.String(255), nullable=False, unique=True),
    sa.Column("description", sa.String(255)),
    sa.Column("is_public", sa.Boolean, nullable=False),
    sa.Column("extra_specs", sa.JSON, nullable=False),
)

# What the service chose once and keeps, such as the portals' port.
choices = sa.Table(
    "choices",
    metadata,
    sa.Column("key", sa.String(64), primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)
