"""Where each element of an XML text stands, so that a text can be changed without writing it anew.

    <disk type='block'><source dev='/dev/sda'/></disk>
    ^start            ^inside                  ^inside_end
                                                      ^end

Offsets count bytes of the UTF-8 text. What is between two changes stays as it was, byte for
byte: comments, CDATA, quotes, blanks, namespaces. Names are as written, with their prefix. Reads
what libvirt writes; a text with a DOCTYPE is refused, since entities could be anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple
from xml.parsers import expat

from lunport.core.errors import InvalidInput

_MAX_DEPTH = 200
# A start tag that expat has found to be well formed; ">" may stand in a quoted value.
_START_TAG = re.compile(rb"<[^\s/>]+(?:[^>\"']|\"[^\"]*\"|'[^']*')*>")
_IN_TEXT = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "\r": "&#13;"})
_IN_QUOTES = {**_IN_TEXT, **str.maketrans({"'": "&apos;", "\n": "&#10;", "\t": "&#9;"})}
_ATTRIBUTE = re.compile(rb"\s+([^\s=/>]+)\s*=\s*(\"[^\"]*\"|'[^']*')")


@dataclass(frozen=True, slots=True)
class Element:
    """One element, its place in the text, and what is in it.

    ``text`` is the character data directly below it. An empty element (``<a/>``) has its
    ``inside`` and ``inside_end`` at its end.
    """

    name: str
    attributes: Mapping[str, str]
    children: tuple[Element, ...]
    text: str
    start: int
    inside: int
    inside_end: int
    end: int

    def all(self, *path: str) -> Iterator[Element]:
        """Walk the descendants of exactly this path of names, in the text's order."""
        first, *rest = path
        for child in self.children:
            if child.name == first:
                if rest:
                    yield from child.all(*rest)
                else:
                    yield child

    def first(self, *path: str) -> Element | None:
        """Return the first descendant of this path of names, if there is one."""
        return next(self.all(*path), None)

    def attribute(self, path: tuple[str, ...], name: str) -> str | None:
        """Return an attribute of the first descendant of a path, if both are there."""
        found = self.first(*path)
        return None if found is None else found.attributes.get(name)


class Splice(NamedTuple):
    """A change: the bytes from ``start`` to ``end`` become ``text``."""

    start: int
    end: int
    text: bytes


class _Open:
    """An element whose end was not seen yet."""

    def __init__(self, name: str, attributes: Mapping[str, str], start: int, inside: int) -> None:
        self.name = name
        self.attributes = attributes
        self.start = start
        self.inside = inside
        self.children: list[Element] = []
        self.text: list[str] = []


class _Reader:
    """The handlers that expat calls, and the tree they build."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._parser = expat.ParserCreate("utf-8")
        self._parser.buffer_text = True
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._characters
        self._parser.StartDoctypeDeclHandler = self._doctype
        self._open: list[_Open] = []
        self.root: Element | None = None

    def read(self) -> None:
        self._parser.Parse(self._data, True)

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        start = self._parser.CurrentByteIndex
        tag = _START_TAG.match(self._data, start)
        if tag is None or len(self._open) >= _MAX_DEPTH:
            raise InvalidInput("XML", f"<{name}> at byte {start}", "expected a plain start tag")
        self._open.append(_Open(name, dict(attributes), start, tag.end()))

    def _end(self, name: str) -> None:
        one = self._open.pop()
        if self._data[one.inside - 2 : one.inside] == b"/>":
            inside_end = end = one.inside
        else:
            inside_end = self._parser.CurrentByteIndex
            end = self._data.index(b">", inside_end) + 1
        element = Element(
            name,
            one.attributes,
            tuple(one.children),
            "".join(one.text),
            one.start,
            one.inside,
            inside_end,
            end,
        )
        if self._open:
            self._open[-1].children.append(element)
        else:
            self.root = element

    def _characters(self, text: str) -> None:
        if self._open:
            self._open[-1].text.append(text)

    def _doctype(self, *_: object) -> None:
        raise InvalidInput("XML", "<!DOCTYPE", "a document without one is expected")


def read_elements(data: bytes) -> Element:
    """Read a whole XML text and return its root. Raises: InvalidInput."""
    reader = _Reader(data)
    try:
        reader.read()
    except expat.ExpatError as error:
        raise InvalidInput("XML", f"{len(data)} bytes", f"not well formed: {error}") from error
    assert reader.root is not None  # expat refuses a text without an element
    return reader.root


def encode_xml(text: str) -> bytes:
    """Return the bytes that offsets count. Raises: InvalidInput."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput("XML", text[:40], "it holds what is no character") from error


def apply_splices(data: bytes, splices: Iterable[Splice]) -> bytes:
    """Carry out changes that do not overlap; all else stays.

    Those at the same place come in the order given.
    """
    pieces: list[bytes] = []
    at = 0
    for start, end, text in sorted(splices, key=lambda one: (one.start, one.end)):
        assert at <= start <= end, "changes overlap"
        pieces += (data[at:start], text)
        at = end
    return b"".join((*pieces, data[at:]))


def set_attribute(data: bytes, element: Element, name: str, value: str) -> Splice:
    """Change an attribute's value, in quotes of ours; or add it behind the element's name."""
    for match in _attributes(data, element):
        if match[1].decode() == name:
            return Splice(match.start(2), match.end(2), quoted(value))
    at = element.start + 1 + len(element.name.encode())
    return Splice(at, at, f" {name}=".encode() + quoted(value))


def written_attributes(data: bytes, element: Element) -> tuple[tuple[str, bytes], ...]:
    """List an element's attributes: the name, and how all of it is written."""
    return tuple((match[1].decode(), match[0].lstrip()) for match in _attributes(data, element))


def quoted(value: str) -> bytes:
    """Write a value as an attribute has it, quotes included."""
    return f"'{value.translate(_IN_QUOTES)}'".encode()


def escaped(text: str) -> str:
    """Write character data."""
    return text.translate(_IN_TEXT)


def _attributes(data: bytes, element: Element) -> Iterator[re.Match[bytes]]:
    at = element.start + 1 + len(element.name.encode())
    while (match := _ATTRIBUTE.match(data, at, element.inside)) is not None:
        yield match
        at = match.end()
