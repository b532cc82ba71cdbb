"""cheroot's connection, made safe where it is not.

Chunked bodies are refused: cheroot (11.1) takes a chunk's length as it comes and makes room
for it, fails with a 500 on a length that is no number, and reads what is left of a body as
the next request. The API's clients say how long their bodies are.
"""

from __future__ import annotations

from cheroot.server import HTTPConnection, HTTPRequest


class _Request(HTTPRequest):
    """A request whose first lines may be anything."""

    def read_request_line(self) -> bool:
        """Read the first line; one that is no URI is the client's mistake."""
        try:
            return bool(super().read_request_line())  # type: ignore[no-untyped-call]
        except ValueError:
            # Quirk(cheroot): ``GET //[ HTTP/1.1`` gives an empty 500. urlsplit raises
            # ValueError for a broken IPv6 authority; cheroot (11.1) expects UnicodeError only.
            self.simple_response("400 Bad Request", "Malformed Request-URI")
            return False

    def read_request_headers(self) -> bool:
        """Read the headers; a body without a length is refused, and the connection closed."""
        if not super().read_request_headers():  # type: ignore[no-untyped-call]
            return False
        if self.chunked_read:
            self.simple_response("411 Length Required", "Send a Content-Length.")
            return False
        return True


class Connection(HTTPConnection):
    """A connection that reads such requests."""

    RequestHandlerClass = _Request
