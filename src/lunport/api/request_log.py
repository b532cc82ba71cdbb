"""One line for each request, for whoever runs the service with ``--debug``.

Method, path, status, time and request id; never a header or a body, which hold secrets.
"""

from __future__ import annotations

import logging
import time

import falcon

from lunport.api.request import ApiRequest

_LOG = logging.getLogger(__name__)


class RequestLog:
    """Middleware that logs each answer at debug level. Not used unless that is wanted."""

    @staticmethod
    def is_wanted() -> bool:
        """Tell whether anybody would see it."""
        return _LOG.isEnabledFor(logging.DEBUG)

    def process_request(self, req: ApiRequest, resp: falcon.Response) -> None:
        """Note when the request came, and its path before the gate takes the project out."""
        req.context.came = (time.monotonic(), req.path)

    def process_response(
        self, req: ApiRequest, resp: falcon.Response, resource: object, req_succeeded: bool
    ) -> None:
        """Log the answer."""
        came, path = req.context.came
        _LOG.debug(
            "answered method=%s path=%r status=%s ms=%.1f request_id=%s",
            req.method,
            path[:200],
            resp.status_code,
            1000 * (time.monotonic() - came),
            req.request_id,
        )
