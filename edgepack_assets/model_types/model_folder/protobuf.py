"""Reads fields of a protobuf file from its bytes, within bounds and without building what they describe; and writes
fields.

The file is not trusted. Which numbers mean what is for the modules of the formats to know.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

from edgepack_assets.errors import ModelError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MOST_FIELDS = 10_000_000
"""Fields that are looked at: a network of a hundred thousand nodes has about two million."""
_LONGEST_TEXT = 1_000
_PIECE = 1 << 20


@dataclass(frozen=True)
class Field:
    """A field of a message: its number, where it begins and ends with its tag, and where its content begins; `value`
    of a number."""

    number: int
    start: int
    body: int
    stop: int
    value: int = 0


class ProtobufReader:
    """Walks through the messages in `data`, which can be a mapped file. `what` it must be is for errors."""

    def __init__(self, data: Any, name: str, what: str) -> None:
        self._data, self._name, self._what = data, name, what
        self._left = _MOST_FIELDS

    def whole(self) -> Iterator[Field]:
        """The fields of the outermost message."""
        return self._fields(0, len(self._data))

    def message(self, item: Field) -> Iterator[Field]:
        """The fields of the message that a field holds."""
        return self._fields(item.body, item.stop)

    def below(self, item: Field, number: int) -> Iterator[Field]:
        """Those of one number."""
        return (each for each in self.message(item) if each.number == number)

    def bytes_of(self, item: Field) -> bytes:
        """The content of a name or another short field."""
        if item.stop - item.body > _LONGEST_TEXT:
            raise self.refused(f"a name in it is longer than {_LONGEST_TEXT} bytes")
        return bytes(self._data[item.body : item.stop])

    def text(self, item: Field | None) -> str:
        """The same as text; empty where there is no such field."""
        try:
            return "" if item is None else self.bytes_of(item).decode("utf-8")
        except UnicodeDecodeError:
            raise self.refused("a text in it is not UTF-8") from None

    def refused(self, why: str) -> ModelError:
        """The error to raise."""
        return ModelError(
            f"{self._name}: is no {self._what} that can be read: {why}; register the exported model again"
        )

    def _fields(self, position: int, end: int) -> Iterator[Field]:
        while position < end:
            self._left -= 1
            if self._left < 0:
                raise self.refused(f"it has more than {_MOST_FIELDS} fields")
            start = position
            tag, position = self._varint(position, end)
            number, wire, value = tag >> 3, tag & 7, 0
            body = position
            if wire == _VARINT:
                value, position = self._varint(position, end)
            elif wire == _BYTES:
                length, body = self._varint(position, end)
                position = body + length
            elif wire in (_FIXED64, _FIXED32):
                position += 8 if wire == _FIXED64 else 4
            else:
                raise self.refused(f"there is no field at byte {start}")
            if position > end or not number:
                raise self.refused(f"the field at byte {start} is longer than what holds it: it may be cut short")
            yield Field(number, start, body, position, value)

    def _varint(self, position: int, end: int) -> tuple[int, int]:
        value = shift = 0
        while position < end and shift < 70:
            byte = self._data[position]
            position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, position
            shift += 7
        raise self.refused(f"the number before byte {position} has no end: it may be cut short")


def varint(value: int) -> bytes:
    """A number as protobuf writes it."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def with_length(tag: bytes, content: bytes) -> bytes:
    """A field of text, bytes or a message."""
    return tag + varint(len(content)) + content


def copy_part(source: IO[bytes], start: int, stop: int, target: IO[bytes]) -> None:
    """Copy the bytes from `start` to `stop`. Raises ModelError if they are not all there."""
    source.seek(start)
    while start < stop:
        piece = source.read(min(_PIECE, stop - start))
        if not piece:
            raise ModelError(f"{getattr(source, 'name', 'a file')}: was cut short while it was read")
        target.write(piece)
        start += len(piece)
