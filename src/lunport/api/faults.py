"""Errors on the wire: the one table from the error tree to HTTP, and Block Storage's bodies.

    {"itemNotFound": {"code": 404, "message": "Volume X could not be found."}}

HTTP numbers for our errors exist only here. What an error of the machine says (paths,
commands, output) stays in the log; the caller gets the request id to find it by.
"""

from __future__ import annotations

import logging
import traceback
from typing import NamedTuple

import falcon
import msgspec

from lunport.core import errors

_LOG = logging.getLogger(__name__)

NAMES = {
    400: "badRequest",
    401: "unauthorized",
    403: "forbidden",
    404: "itemNotFound",
    405: "badMethod",
    409: "conflictingRequest",
    413: "overLimit",
    415: "badMediaType",
    501: "notImplemented",
    503: "serviceUnavailable",
}
OTHER_NAME = "computeFault"

STANDARD_MESSAGES = {
    400: "The server could not comply with the request since it is either malformed or "
    "otherwise incorrect.",
    404: "The resource could not be found.",
    405: "The method specified is not allowed for this resource.",
    412: "Precondition Failed",
    413: "Request is too large.",
    415: "Unsupported Content-Type",
}


class ApiError(Exception):
    """The request itself is at fault, in a way only HTTP knows (version, headers, body)."""

    def __init__(self, code: int, message: str | None = None) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message or STANDARD_MESSAGES[code]

    def __str__(self) -> str:
        return self.message


class Fault(NamedTuple):
    """How a class of errors looks on the wire. ``is_told``: its sentence is for the caller."""

    code: int
    is_told: bool


# The nearest class of the error's ancestry decides.
FAULTS: dict[type[errors.LunportError], Fault] = {
    errors.InvalidInput: Fault(400, is_told=True),
    errors.NotFound: Fault(404, is_told=True),
    errors.BackendNotFound: Fault(500, is_told=True),  # a record names a backend that is gone
    errors.InvalidState: Fault(400, is_told=True),  # Block Storage's InvalidVolume
    errors.Conflict: Fault(409, is_told=True),
    errors.AlreadyExists: Fault(409, is_told=True),
    errors.StaleWrite: Fault(409, is_told=True),
    errors.AttachedElsewhere: Fault(409, is_told=True),
    errors.ExportLimit: Fault(409, is_told=True),
    errors.GuardedAttachment: Fault(409, is_told=True),  # OSSA-2023-003
    errors.Refused: Fault(403, is_told=True),
    errors.NotAuthenticated: Fault(401, is_told=True),
    errors.NotAllowed: Fault(403, is_told=True),
    errors.HostRevoked: Fault(403, is_told=True),
    errors.NotEnrolled: Fault(403, is_told=True),
    errors.NotItsHost: Fault(403, is_told=True),
    errors.OverQuota: Fault(413, is_told=True),
    errors.HostError: Fault(500, is_told=False),  # argv and output of programs
    errors.HypervisorError: Fault(500, is_told=False),  # of hosts; never here
    errors.BackendError: Fault(500, is_told=True),
    errors.TargetDaemonDown: Fault(503, is_told=True),
    errors.PortalUnavailable: Fault(503, is_told=True),
    errors.Unavailable: Fault(503, is_told=True),
    errors.UndoFailed: Fault(500, is_told=False),
    errors.PromiseBroken: Fault(500, is_told=False),  # of demos and checks; never here
}


def fault_of(error: errors.LunportError) -> Fault:
    """Return how an error looks on the wire."""
    for kind in type(error).__mro__:
        found = FAULTS.get(kind)
        if found is not None:
            return found
    return Fault(500, is_told=False)


def body_of(code: int, message: str) -> bytes:
    """Return the body of an error answer."""
    return msgspec.json.encode({NAMES.get(code, OTHER_NAME): {"code": code, "message": message}})


def internal_message(request_id: str) -> str:
    """Say that something failed without saying what."""
    return f"The server failed while it worked on this request. Request id: {request_id}."


def answer_error(
    req: falcon.Request, resp: falcon.Response, error: Exception, params: dict[str, object]
) -> None:
    """Turn any exception into an answer; the request's top."""
    request_id = getattr(req, "request_id", "")
    match error:
        case ApiError():
            code, message = error.code, error.message
        case errors.LunportError():
            code, is_told = fault_of(error)
            message = clean(str(error)) if is_told else internal_message(request_id)
        case falcon.HTTPError():
            code = error.status_code
            # What Falcon itself finds wrong: no route, no such method, a broken header.
            standard = STANDARD_MESSAGES.get(code, error.title)
            message = (error.description or standard) if code == 400 else standard
            if code == 405 and error.headers:
                resp.set_headers(error.headers)
        case _:
            code, message = 500, internal_message(request_id)
    if code >= 500:
        _log_failure(req, request_id, code, error)
    if code == 401:
        resp.set_header("WWW-Authenticate", 'Token realm="lunport"')
    resp.status = falcon.code_to_http_status(code)
    resp.content_type = falcon.MEDIA_JSON
    resp.data = body_of(code, message)


def _log_failure(req: falcon.Request, request_id: str, code: int, error: Exception) -> None:
    is_expected = isinstance(error, errors.LunportError) and fault_of(error).is_told
    # Formatted here: a renderer that shows local variables would show secrets.
    trace = "" if is_expected else "\n" + "".join(traceback.format_exception(error)).rstrip()
    _LOG.error(
        "request_failed request_id=%s method=%s path=%r code=%d error=%r%s",
        request_id,
        req.method,
        req.path,
        code,
        clean(str(error)),
        trace,
    )


def clean(text: str) -> str:
    """Return a text that UTF-8 can carry."""
    return text.encode("utf-8", "replace").decode("utf-8")
