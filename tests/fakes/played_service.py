"""The service's client and the command line's parts, with the application in this process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lunport.cli.export import ExportParts
from lunport.client.block_storage import BlockStorage
from lunport.core.errors import Conflict, NotFound, VolumeApiRefused
from lunport.core.secret import Secret
from lunport.host.clock import Deadline
from tests.fakes.api_client import ApiClient


class PlayedService(BlockStorage):
    """The client, with the application called directly."""

    def __init__(self, api: ApiClient) -> None:
        super().__init__("http://played")
        self._api = api

    def _send(
        self,
        method: str,
        path: str,
        deadline: Deadline,
        body: Mapping[str, object] | None = None,
        missing: NotFound | None = None,
    ) -> bytes:
        answer = self._api.call(method, path, body)
        if answer.status < 400:
            return answer.text.encode()
        code, message = answer.fault[1:]
        if code == 404 and missing is not None:
            raise missing
        if code == 409:
            raise Conflict(message)
        raise VolumeApiRefused(path, code, message)


@dataclass(frozen=True, slots=True)
class PlayedParts(ExportParts):
    """Parts whose service is in this process."""

    client: ApiClient

    def api(self, endpoint: str, token: Secret | None) -> BlockStorage:
        """Return the played one."""
        return PlayedService(self.client)
