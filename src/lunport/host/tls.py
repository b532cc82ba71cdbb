"""TLS with certificates on both sides: contexts made from a folder, and failures in words.

    /etc/lunport/tls/ca.pem            whom to believe: one authority, or several
    /etc/lunport/tls/certificate.pem   who we are, and what leads to the authority
    /etc/lunport/tls/key.pem           its key, mode 0600

TLS 1.2 and newer. A client checks that the other side's certificate names whom it meant; a
server that its client's is signed by the authority, and leaves to others what that client
may do. Sessions are never resumed: each connection shows its certificate. Files that were
replaced are taken without a restart. Python's ``ssl``, RFC 8446, RFC 9525.
"""

from __future__ import annotations

import errno
import logging
import ssl
import stat
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lunport.core.errors import InvalidConfig
from lunport.host.clock import Deadline

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

CA_FILE = "ca.pem"
CERTIFICATE_FILE = "certificate.pem"
KEY_FILE = "key.pem"

_LOG = logging.getLogger(__name__)
_LEAST_S = 0.001
_FILES = (CA_FILE, CERTIFICATE_FILE, KEY_FILE)

# What OpenSSL finds wrong with the other side's certificate (X509_V_ERR_*).
_VERIFY_WORDS: Mapping[int, str] = {
    9: "its certificate is not valid yet",
    10: "its certificate has expired",
    18: "its certificate is signed by an authority that is not known here",
    19: "its certificate is signed by an authority that is not known here",
    20: "its certificate is signed by an authority that is not known here",
    21: "its certificate is signed by an authority that is not known here",
    26: "its certificate is not for this purpose",
    62: "its certificate names another host",
    64: "its certificate names another address",
}
# What the other side says of ours (alerts), and what is no TLS of ours at all.
_REASON_WORDS: Mapping[str, str] = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "it shows no certificate",
    "HTTP_REQUEST": "it speaks plain HTTP",
    "HTTPS_PROXY_REQUEST": "it speaks plain HTTP",
    "WRONG_VERSION_NUMBER": "it does not speak TLS",
    "RECORD_LAYER_FAILURE": "it does not speak TLS",
    "UNSUPPORTED_PROTOCOL": "it speaks nothing newer than TLS 1.1",
    "NO_PROTOCOLS_AVAILABLE": "it speaks nothing newer than TLS 1.1",
    "TLSV1_ALERT_PROTOCOL_VERSION": "it wants another version of TLS",
    "TLSV1_ALERT_UNKNOWN_CA": "it does not know the authority that signed our certificate",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "it refuses our certificate, which has expired",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "it refuses our certificate",
    "SSLV3_ALERT_BAD_CERTIFICATE": "it refuses our certificate",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": "it refuses our certificate for this purpose",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "it refuses the connection, perhaps for want of a certificate",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it wants a certificate of ours, and was shown none",
}


@dataclass(frozen=True, slots=True)
class TlsFolder:
    """A folder with the authority's certificate, our own, and our key."""

    path: Path

    def client_context(self) -> ssl.SSLContext:
        """Make a context that shows our certificate and checks the server's name.

        Raises: InvalidConfig.
        """
        context = self._context(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = True
        return context

    def server_context(self, verify: ssl.VerifyMode = ssl.CERT_REQUIRED) -> ssl.SSLContext:
        """Make a context that asks for the client's certificate. Raises: InvalidConfig."""
        context = self._context(ssl.PROTOCOL_TLS_SERVER)
        context.verify_mode = verify
        context.num_tickets = 0
        context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
        return context

    def stamp(self) -> tuple[object, ...]:
        """Return what differs when a file was replaced. Raises: OSError."""
        found = [(self.path / name).stat() for name in _FILES]
        return tuple((one.st_ino, one.st_mtime_ns, one.st_size) for one in found)

    def _context(self, protocol: int) -> ssl.SSLContext:
        key = self.path / KEY_FILE
        try:
            mode = key.stat().st_mode
            if mode & (stat.S_IRWXG | stat.S_IRWXO):
                reason = f"others may read it (mode {stat.S_IMODE(mode):04o}): chmod 600 {key}"
                raise InvalidConfig("TLS key", str(key), reason)
            context = ssl.SSLContext(protocol)
            context.sslsocket_class = BoundedSocket
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.load_cert_chain(self.path / CERTIFICATE_FILE, key, password=_no_password)
            context.load_verify_locations(self.path / CA_FILE)
        except ssl.SSLError as error:
            what = (error.reason or "").replace("_", " ").lower() or str(error)
            raise InvalidConfig("TLS folder", str(self.path), f"{what} (in its files)") from error
        except OSError as error:
            names = ", ".join(_FILES)
            reason = f"{error.strerror or error}; expected {names} in it"
            raise InvalidConfig("TLS folder", str(self.path), reason) from error
        return context


class BoundedSocket(ssl.SSLSocket):
    """A socket whose reads end together by one deadline, and so do its writes.

    ``stall_s`` bounds each of them beside that. With neither it waits as any socket does.
    """

    read_by: Deadline | None = None
    write_by: Deadline | None = None
    stall_s: float | None = None

    def recv_into(self, buffer: WriteableBuffer, nbytes: int | None = None, flags: int = 0) -> int:
        """Read. Raises: TimeoutError."""
        self._bound(self.read_by)
        return super().recv_into(buffer, nbytes, flags)

    def send(self, data: ReadableBuffer, flags: int = 0) -> int:
        """Write a part. Raises: TimeoutError, BrokenPipeError (nobody is there any more)."""
        self._bound(self.write_by)
        try:
            return super().send(data, flags)
        except ssl.SSLEOFError as error:
            # Quirk(ssl): a peer that was killed is an error of its own with a number of OpenSSL's,
            # which servers take for one of errno's (seen in Python 3.11).
            raise BrokenPipeError(errno.EPIPE, "the peer has gone") from error

    def _bound(self, by: Deadline | None) -> None:
        if by is None:
            if self.stall_s is not None:
                self.settimeout(self.stall_s)
            return
        if by.has_passed():
            raise TimeoutError("timed out")
        left = by.remaining_s()
        self.settimeout(max(_LEAST_S, left if self.stall_s is None else min(self.stall_s, left)))


class FreshContext:
    """A context that is made anew when the folder's files were replaced. Safe between threads."""

    def __init__(self, folder: TlsFolder, make: Callable[[TlsFolder], ssl.SSLContext]) -> None:
        """Make the first one. Raises: InvalidConfig."""
        self._folder = folder
        self._make = make
        self._lock = threading.Lock()
        self._stamp = _stamp_of(folder)
        self._context = make(folder)

    def get(self) -> ssl.SSLContext:
        """Return the newest context that could be made."""
        with self._lock:
            stamp = _stamp_of(self._folder)
            if stamp is not None and stamp != self._stamp:
                self._stamp = stamp
                try:
                    self._context = self._make(self._folder)
                    _LOG.info("certificates_taken_anew folder=%s", self._folder.path)
                except InvalidConfig as error:
                    _LOG.error("certificates_kept folder=%s error=%s", self._folder.path, error)
            return self._context


def explain(error: ssl.SSLError) -> str:
    """Say what is wrong between us and the other side, which is "it"."""
    if isinstance(error, ssl.SSLCertVerificationError):
        known = _VERIFY_WORDS.get(error.verify_code)
        return known or f"its certificate is not good: {error.verify_message}"
    reason = (error.reason or "").upper()
    return _REASON_WORDS.get(reason) or f"TLS failed: {reason.replace('_', ' ').lower() or error}"


def hosts_of(certificate: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Return the hosts that a verified certificate names, as ``getpeercert()`` shows it.

    {'subjectAltName': (('DNS', 'node-a'), ('IP Address', '10.0.0.7')), ...}
    """
    names = (certificate or {}).get("subjectAltName", ())
    return tuple(value.lower() for kind, value in names if kind == "DNS")


def _stamp_of(folder: TlsFolder) -> tuple[object, ...] | None:
    try:
        return folder.stamp()
    except OSError:
        return None


def _no_password() -> str:
    # Otherwise OpenSSL would ask the terminal for one, and wait.
    return ""
