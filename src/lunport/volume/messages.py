"""What users are told about work that failed after it was accepted."""

from __future__ import annotations

from lunport.core.errors import MessageNotFound
from lunport.store import operations as rows
from lunport.store.engine import StoreConnection
from lunport.volume.requests import Caller, Message, Page, Query
from lunport.volume.service import Service


def list_messages(service: Service, caller: Caller, query: Query) -> Page[Message]:
    """Return one page of messages. Raises: InvalidInput."""
    with service.store.read() as connection:
        return rows.page_of_messages(connection, query)


def get_message(service: Service, caller: Caller, message_id: str) -> Message:
    """Return a message. Raises: MessageNotFound."""
    with service.store.read() as connection:
        message = rows.find_message(connection, message_id)
    if message is None or caller.sees_project not in (None, message.project_id):
        raise MessageNotFound(message_id)
    return message


def delete_message(service: Service, caller: Caller, message_id: str) -> None:
    """Delete a message. Raises: MessageNotFound."""
    get_message(service, caller, message_id)
    with service.store.write() as connection:
        rows.remove_message(connection, message_id)


def tell(
    service: Service,
    connection: StoreConnection,
    *,
    project_id: str,
    request_id: str,
    resource_type: str,
    resource_id: str,
    event_id: str,
    text: str,
) -> None:
    """Leave a message for the users of a project."""
    rows.add_message(
        connection,
        Message(
            id=service.new_id(),
            project_id=project_id,
            request_id=request_id,
            resource_type=resource_type,
            resource_uuid=resource_id,
            event_id=event_id,
            user_message=text,
            created_at=service.now(),
        ),
    )
