"""What a certificate says, for people: whose it is, until when, and who vouches for it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from lunport.core.errors import InvalidInput
from lunport.pki.folders import read_public_file


@dataclass(frozen=True, slots=True)
class Summary:
    """One certificate. ``names``: the hosts and addresses that it is for."""

    subject: str
    issuer: str
    names: tuple[str, ...]
    not_before: datetime
    not_after: datetime
    serial: str
    fingerprint: str
    is_authority: bool

    def days_left(self, now: datetime) -> int:
        """Return the whole days until it expires; negative when it has."""
        return (self.not_after - now).days


def load_certificate(file: Path) -> x509.Certificate:
    """Read the first certificate of a file. Raises: InvalidConfig, InvalidInput."""
    try:
        return x509.load_pem_x509_certificates(read_public_file(file))[0]
    except (ValueError, IndexError) as error:
        raise InvalidInput("certificate", str(file), "expected a certificate (PEM)") from error


def summarise(certificate: x509.Certificate) -> Summary:
    """Say what a certificate says."""
    return Summary(
        subject=certificate.subject.rfc4514_string(),
        issuer=certificate.issuer.rfc4514_string(),
        names=_names(certificate),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        serial=f"{certificate.serial_number:x}",
        fingerprint=certificate.fingerprint(hashes.SHA256()).hex(":"),
        is_authority=_is_authority(certificate),
    )


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return ()
    hosts = found.get_values_for_type(x509.DNSName)
    return (*hosts, *(str(one) for one in found.get_values_for_type(x509.IPAddress)))


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        return False
