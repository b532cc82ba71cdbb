"""The rows of what hosts told of their attachments' paths, one for each attachment.

A row goes with its attachment: the database sees to it (``ON DELETE CASCADE``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import sqlalchemy as sa

from lunport.store.tables import path_reports

_BY_ID = sa.select(path_reports).where(path_reports.c.attachment_id == sa.bindparam("id"))
_CHANGE = path_reports.update().where(path_reports.c.attachment_id == sa.bindparam("id"))


class PathReport(NamedTuple):
    """What a host last told, as :mod:`lunport.core.path_report` writes it, and when."""

    attachment_id: str
    document: Mapping[str, object]
    reported_at: str


def find(connection: sa.Connection, attachment_id: str) -> PathReport | None:
    """Return what was told of an attachment, if anything."""
    row = connection.execute(_BY_ID, {"id": attachment_id}).first()
    return None if row is None else PathReport._make(row)


def keep(connection: sa.Connection, report: PathReport) -> None:
    """Keep a report in place of an earlier one.

    Precondition: the attachment is there, as seen in the same transaction.
    """
    values = {"document": report.document, "reported_at": report.reported_at}
    if connection.execute(_CHANGE, {"id": report.attachment_id, **values}).rowcount == 0:
        connection.execute(path_reports.insert(), report._asdict())
