"""Where the service listens, and whether it may do so without authentication."""

from __future__ import annotations

import ipaddress
import re
import socket
import stat
from dataclasses import dataclass, replace
from pathlib import Path

from lunport.core.errors import InvalidConfig, InvalidPortal, PortalUnavailable
from lunport.core.portal import parse_portal

DEFAULT_PORT = 8776
TLS_PORT = 8777
_ERRNO = re.compile(r"\[Errno -?\d+\] ([^()]+)")


@dataclass(frozen=True, slots=True)
class Listener:
    """A TCP address, or the path of a unix socket."""

    host: str = ""
    port: int = 0
    path: Path | None = None
    is_tls: bool = False

    @property
    def bind(self) -> tuple[str, int] | str:
        """What the HTTP server takes."""
        return str(self.path) if self.path else (self.host, self.port)

    @property
    def is_private(self) -> bool:
        """Tell whether only this machine can reach it."""
        if self.path is not None or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.is_tls else 'http'}://{host}:{self.port}"


def parse_tls_listener(text: str, port: int) -> Listener:
    """Parse ``HOST[:PORT]`` or ``[IPV6][:PORT]``, for TLS. Raises: InvalidConfig."""
    listener = parse_listener(text, port)
    if listener.path is not None:
        raise InvalidConfig("listen", text, "TLS is for addresses; a unix socket needs none")
    return replace(listener, is_tls=True)


def parse_listener(text: str, port: int = DEFAULT_PORT) -> Listener:
    """Parse ``HOST[:PORT]``, ``[IPV6][:PORT]`` or ``unix:/PATH``. Raises: InvalidConfig."""
    if text.startswith("unix:"):
        path = Path(text.removeprefix("unix:"))
        if not path.is_absolute() or len(str(path)) > 100:
            raise InvalidConfig("listen", text, "expected unix:/ABSOLUTE/PATH, at most 100 long")
        return Listener(path=path)
    if text.endswith("]") or ":" not in text:
        text = f"{text}:{port}"
    elif text.count(":") > 1 and "]" not in text:
        text = f"[{text}]:{port}"
    try:
        portal = parse_portal(text, what="listen")
    except InvalidPortal as error:
        raise InvalidConfig(
            "listen", text, "expected HOST:PORT, [IPV6]:PORT or unix:/PATH"
        ) from error
    return Listener(portal.host, portal.port)


def check_authentication(listener: Listener, auth: str) -> None:
    """Refuse to be open to the network without authentication. Raises: InvalidConfig."""
    if auth == "none" and not listener.is_private:
        raise InvalidConfig(
            "listen",
            str(listener),
            'auth = "none" lets everybody in, so it serves loopback and unix sockets only: '
            'set auth = "token", or listen on 127.0.0.1',
        )


def bind_reason(error: OSError) -> str:
    """Return why the HTTP server could not bind its address, once."""
    # Quirk(cheroot): when no address can be bound it raises one sentence with all that was
    # tried: "No socket could be created -- (('127.0.0.1', 8776): [Errno 98] ...)" (11.1.2).
    reasons = dict.fromkeys(_ERRNO.findall(str(error)))
    return error.strerror or "; ".join(reasons) or str(error)


def clear_socket(path: Path) -> None:
    """Remove the unix socket of a service that was killed, and nothing else.

    Raises: PortalUnavailable (somebody listens there, or it is no socket), OSError.
    """
    try:
        kind = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise PortalUnavailable(f"unix:{path}", "a file is there that is not a socket")
    with socket.socket(socket.AF_UNIX) as trial:
        trial.setblocking(False)
        try:
            trial.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except BlockingIOError:
            pass  # Somebody listens, and has many callers.
    raise PortalUnavailable(f"unix:{path}", "another program listens there")
