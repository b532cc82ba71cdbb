"""The arithmetic of CHAP inside an iSCSI login (RFC 7143 section 12.1, RFC 1994, RFC 9645).

A challenge and an identifier come from one side; the answer is the digest over identifier,
secret and challenge. Values travel as ``0x...`` (hex) or ``0b...`` (base64). Challenges of
our own are made by the caller; nothing here is random and nothing is kept.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable

from lunport.core.iscsi_pdu import PduError
from lunport.core.secret import Secret

MAX_CHALLENGE_LENGTH = 1024


def _md5(text: bytes) -> bytes:
    return hashlib.md5(text, usedforsecurity=False).digest()


def _sha1(text: bytes) -> bytes:
    return hashlib.sha1(text, usedforsecurity=False).digest()


def _sha256(text: bytes) -> bytes:
    return hashlib.sha256(text).digest()


def _sha3_256(text: bytes) -> bytes:
    return hashlib.sha3_256(text).digest()


# Quirk(tgt): it takes 7 for SHA-1, where IANA and LIO have SHA-256. It picks the first number
# it knows of our list, so MD5 stands first and 7 is never reached there (tgt 1.0.85,
# usr/iscsi/chap.c). MD5 is also all that QEMU's libiscsi 1.19 speaks. A target that has it
# switched off (LIO under FIPS) picks one of the others.
OFFERED = ("5", "7", "6", "8")
_ALGORITHMS: dict[str, Callable[[bytes], bytes]] = {
    "5": _md5,
    "6": _sha1,
    "7": _sha256,
    "8": _sha3_256,
}


def answer_challenge(algorithm: str, identifier: int, secret: Secret, challenge: bytes) -> bytes:
    """Compute the response to a challenge. Raises: PduError for an unknown algorithm."""
    digest = _ALGORITHMS.get(algorithm)
    if digest is None:
        raise PduError(f"CHAP algorithm {algorithm!r}, which was not offered")
    return digest(bytes((identifier,)) + secret.reveal().encode() + challenge)


def is_right_answer(
    algorithm: str, identifier: int, secret: Secret, challenge: bytes, answer: bytes
) -> bool:
    """Tell, in constant time, whether the other side knows the secret."""
    return hmac.compare_digest(answer_challenge(algorithm, identifier, secret, challenge), answer)


def format_binary(value: bytes) -> str:
    """Format a binary value for the wire."""
    return "0x" + value.hex()


def parse_binary(text: str) -> bytes:
    """Parse ``0x...`` or ``0b...``. Raises: PduError."""
    prefix, digits = text[:2].lower(), text[2:]
    if not digits or len(digits) > 2 * MAX_CHALLENGE_LENGTH:
        raise PduError("a CHAP value that is empty or too long")
    try:
        if prefix == "0x":
            return bytes.fromhex(_hex(digits))
        if prefix == "0b":
            padding = "=" * (-len(digits) % 4)
            return base64.b64decode((digits + padding).encode("ascii"), validate=True)
    except (binascii.Error, ValueError):
        pass
    raise PduError("a CHAP value that is neither hex nor base64")


def parse_identifier(text: str) -> int:
    """Parse CHAP_I, 0 to 255. Raises: PduError."""
    if not (text.isascii() and text.isdigit() and len(text) <= 3 and int(text) <= 255):
        raise PduError("a CHAP identifier that is not 0 to 255")
    return int(text)


def _hex(digits: str) -> str:
    if not all(digit in "0123456789abcdefABCDEF" for digit in digits):
        raise ValueError
    return digits if len(digits) % 2 == 0 else "0" + digits
