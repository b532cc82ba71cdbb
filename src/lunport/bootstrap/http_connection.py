"""cheroot's connection, with an answer for the one request line that it fails on."""

from __future__ import annotations

from cheroot.server import HTTPConnection, HTTPRequest


class _Request(HTTPRequest):
    """A request whose line may be anything."""

    def read_request_line(self) -> bool:
        """Read the first line; one that is no URI is the client's mistake."""
        try:
            return bool(super().read_request_line())  # type: ignore[no-untyped-call]
        except ValueError:
            # Quirk(cheroot): ``GET //[ HTTP/1.1`` gives an empty 500. urlsplit raises
            # ValueError for a broken IPv6 authority; cheroot (11.1) expects UnicodeError only.
            self.simple_response("400 Bad Request", "Malformed Request-URI")
            return False


class Connection(HTTPConnection):
    """A connection that reads such requests."""

    RequestHandlerClass = _Request
