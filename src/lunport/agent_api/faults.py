"""Errors of the agent on the wire, and the one table from the error tree to HTTP.

    {"error": {"kind": "DeviceBusy", "message": "...", "exit_code": 4, "fields": [...]}}

Whoever reaches the socket is root on this host, so every sentence is told. The exit code is
the command line's (``cli/exit_codes.py``), for those who read the answer without our client.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import falcon
import msgspec

from lunport.core import errors
from lunport.core.error_document import format_error
from lunport.core.errors import InvalidInput, LunportError

_LOG = logging.getLogger(__name__)
_FAILED = 500

# The nearest class of the error's ancestry decides.
STATUSES: dict[type[LunportError], int] = {
    errors.InvalidInput: 400,
    errors.NotFound: 404,
    errors.DeviceMissing: 404,
    errors.Conflict: 409,
    errors.DeviceBusy: 409,
    errors.Refused: 403,
    errors.Unavailable: 503,
    errors.CommandTimedOut: 504,
    errors.DeviceStuck: 504,
    errors.LunportError: _FAILED,
}

ExitCodeOf = Callable[[BaseException], int]
ErrorHandler = Callable[[falcon.Request, falcon.Response, Exception, dict[str, object]], None]


def status_of(error: LunportError) -> int:
    """Return the HTTP status of an error."""
    return next(STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES)


def error_handler(exit_code_of: ExitCodeOf) -> ErrorHandler:
    """Make what turns any exception into an answer; the request's top."""

    def answer(
        req: falcon.Request, resp: falcon.Response, error: Exception, params: dict[str, object]
    ) -> None:
        del params
        if isinstance(error, falcon.HTTPError):
            code = error.status_code
            ours: LunportError = InvalidInput(
                "request", f"{req.method} {req.path[:80]}", error.title or "it cannot be answered"
            )
            resp.set_headers(error.headers or {})
        elif isinstance(error, LunportError):
            code, ours = status_of(error), error
        else:
            code, ours = _FAILED, LunportError("The agent failed; its log says how.")
            _LOG.error("request_failed path=%r", req.path, exc_info=error)
        resp.status = falcon.code_to_http_status(code)
        resp.content_type = falcon.MEDIA_JSON
        document = {**format_error(ours), "exit_code": exit_code_of(ours)}
        resp.data = msgspec.json.encode({"error": document})

    return answer
