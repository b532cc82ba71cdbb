"""A small certificate authority: one key, certificates for hosts and for the service.

    PKI/ca.pem           the authority's certificate, for everybody
    PKI/ca-key.pem       its key, mode 0600; belongs on one machine, which need be no host

What it issues is a folder that a host or the service is pointed at
(:mod:`lunport.host.tls`), and nothing here is needed to use it: any other authority will do.
Keys are on the curve P-256; a certificate names its holder by ``subjectAltName`` alone and
serves both ends of a connection (RFC 5280, RFC 9525). Never overwrites a file, but for a renewed
certificate; never writes a key that others may read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from lunport.core.errors import InvalidInput
from lunport.core.host_name import parse_host_name
from lunport.host.durable_file import write_durably
from lunport.host.tls import CA_FILE, CERTIFICATE_FILE, KEY_FILE
from lunport.pki.folders import read_key_file, write_new_folder
from lunport.pki.summary import Summary, load_certificate, summarise

CA_KEY_FILE = "ca-key.pem"
CA_DAYS = 3650
DAYS = 397
MAX_DAYS = 36500
_CLOCKS_DIFFER = timedelta(minutes=5)
_MAX_NAME = 64  # a common name's, RFC 5280 appendix A
_CURVE = ec.SECP256R1()

Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Holder:
    """Whom a certificate names: hosts, and addresses where it is reached by those."""

    hosts: tuple[str, ...]
    addresses: tuple[Address, ...] = ()


def parse_holder(hosts: Sequence[str], addresses: Sequence[str] = ()) -> Holder:
    """Check the names of a certificate. Raises: InvalidInput."""
    if not hosts:
        raise InvalidInput("host name", None, "a certificate names at least one host")
    return Holder(
        tuple(dict.fromkeys(parse_host_name(one) for one in hosts)),
        tuple(dict.fromkeys(_parse_address(one) for one in addresses)),
    )


def init_authority(folder: Path, name: str, days: int, now: datetime) -> Summary:
    """Make an authority in a folder that is not there yet, or empty.

    Raises: AlreadyExists, InvalidInput, InvalidConfig (the folder cannot be written).
    """
    if not 0 < len(name) <= _MAX_NAME or not name.isprintable():
        raise InvalidInput("authority's name", name, f"1 to {_MAX_NAME} characters")
    key = ec.generate_private_key(_CURVE)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    certificate = (
        _builder(subject, subject, key.public_key(), now, _until(now, days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    write_new_folder(
        folder, {CA_FILE: (_pem(certificate), 0o644), CA_KEY_FILE: (_pem_key(key), 0o600)}
    )
    return summarise(certificate)


def issue(authority: Path, folder: Path, holder: Holder, days: int, now: datetime) -> Summary:
    """Make a key and a certificate for a holder, in a folder that is not there yet, or empty.

    Raises: AlreadyExists, InvalidInput, InvalidConfig (files that cannot be read or written).
    """
    signer = _open(authority)
    key = ec.generate_private_key(_CURVE)
    certificate = _sign(signer, holder, key.public_key(), days, now)
    write_new_folder(
        folder,
        {
            CA_FILE: (_pem(signer.certificate), 0o644),
            CERTIFICATE_FILE: (_pem(certificate), 0o644),
            KEY_FILE: (_pem_key(key), 0o600),
        },
    )
    return summarise(certificate)


def renew(authority: Path, folder: Path, days: int, now: datetime) -> Summary:
    """Sign a folder's certificate anew: the same names and key, another time.

    The file is replaced whole; who has it open notices by itself. Raises: InvalidConfig.
    """
    signer = _open(authority)
    file = folder / CERTIFICATE_FILE
    old = load_certificate(file)
    key = _load_key(folder / KEY_FILE)
    if key.public_key() != old.public_key():
        raise InvalidInput("key", str(folder / KEY_FILE), f"{file} belongs to another key")
    names = old.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    holder = Holder(
        tuple(names.get_values_for_type(x509.DNSName)),
        tuple(
            one
            for one in names.get_values_for_type(x509.IPAddress)
            if isinstance(one, IPv4Address | IPv6Address)
        ),
    )
    certificate = _sign(signer, holder, key.public_key(), days, now)
    write_durably(file, _pem(certificate).decode())
    file.chmod(0o644)
    return summarise(certificate)


@dataclass(frozen=True, slots=True)
class _Signer:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def _open(authority: Path) -> _Signer:
    certificate = load_certificate(authority / CA_FILE)
    key = _load_key(authority / CA_KEY_FILE)
    if key.public_key() != certificate.public_key():
        reason = f"{authority / CA_FILE} belongs to another key"
        raise InvalidInput("key", str(authority / CA_KEY_FILE), reason)
    return _Signer(certificate, key)


def _sign(
    signer: _Signer, holder: Holder, key: ec.EllipticCurvePublicKey, days: int, now: datetime
) -> x509.Certificate:
    end = min(_until(now, days), signer.certificate.not_valid_after_utc)
    if end <= now:
        raise InvalidInput("authority", summarise(signer.certificate).subject, "it has expired")
    names = [
        *(x509.DNSName(one) for one in holder.hosts),
        *(x509.IPAddress(one) for one in holder.addresses),
    ]
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, holder.hosts[0][:_MAX_NAME])])
    ends = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    of_signer = signer.key.public_key()
    return (
        _builder(subject, signer.certificate.subject, key, now, end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(ends), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(of_signer), critical=False
        )
        .sign(signer.key, hashes.SHA256())
    )


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now: datetime,
    end: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCKS_DIFFER)
        .not_valid_after(end)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _until(now: datetime, days: int) -> datetime:
    if not 1 <= days <= MAX_DAYS:
        raise InvalidInput("days", days, f"1 to {MAX_DAYS}")
    return now + timedelta(days=days)


def _parse_address(text: str) -> Address:
    try:
        return ip_address(text)
    except ValueError as error:
        raise InvalidInput("address", text, "expected an IPv4 or IPv6 address") from error


def _load_key(file: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(read_key_file(file), None)
    except (ValueError, TypeError) as error:
        raise InvalidInput("key", str(file), "expected an unencrypted private key (PEM)") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise InvalidInput("key", str(file), "expected a key on an elliptic curve")
    return key


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _pem_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
