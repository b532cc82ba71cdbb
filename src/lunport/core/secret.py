"""A string that does not show itself.

``str``, ``repr``, formatting and dataclass reprs all give stars, pickling is refused; only
:meth:`Secret.reveal` gives the text, and that word is searched for in review.
"""

from __future__ import annotations

import hmac


class Secret:
    """Hold a secret text. Compares in constant time; hashable; never prints itself."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text. Only where it is written to a socket, file or codec."""
        return self._text

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(_encode(self._text), _encode(other._text))

    def __hash__(self) -> int:
        return hash(("Secret", self._text))

    def __repr__(self) -> str:
        return "Secret(***)"

    def __str__(self) -> str:
        return "***"

    def __format__(self, spec: str) -> str:
        return format("***", spec)

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: object) -> Secret:
        return self

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a Secret is not pickled")


def _encode(text: str) -> bytes:
    return text.encode(errors="surrogatepass")
