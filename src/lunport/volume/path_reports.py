"""Use case: a host tells what the paths of an attached volume are now.

A report is what its host saw, shown to whoever sees the attachment. Nothing is decided by it.
"""

from __future__ import annotations

from lunport.core.errors import InvalidInput
from lunport.core.path_report import format_path_report
from lunport.core.path_status import VolumePaths
from lunport.store import lookup
from lunport.store import path_reports as rows
from lunport.store.path_reports import PathReport
from lunport.volume.attachments import require_own
from lunport.volume.requests import Caller
from lunport.volume.service import Service


def report_paths(service: Service, caller: Caller, attachment_id: str, paths: VolumePaths) -> None:
    """Keep what a host saw, in place of what was told before.

    The attachment's project may tell it, and the service identity for every project.
    Raises: AttachmentNotFound, NotItsHost, InvalidInput (it is about another volume).
    """
    project = None if caller.is_service else caller.sees_project
    with service.store.write() as connection:
        attachment = lookup.get_attachment(connection, attachment_id, project)
        require_own(caller, attachment)
        if paths.volume_id not in (None, attachment.volume_id):
            raise InvalidInput(
                "volume_id", paths.volume_id, f"the attachment is of {attachment.volume_id}"
            )
        document = format_path_report(paths)
        rows.keep(connection, PathReport(attachment_id, document, service.now()))
