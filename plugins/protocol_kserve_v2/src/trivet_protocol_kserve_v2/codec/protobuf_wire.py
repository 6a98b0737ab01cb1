"""The few parts of the protobuf wire format that a message class would make slow.

Large tensors travel in ``bytes`` fields, and parsing or building a message copies such a field two or three times.
The wire format allows better: a message is its fields one after the other, so a field can be cut out of what was
received as a view, and appended to what a message class has written. Source: protobuf documentation, "Encoding".
"""

from __future__ import annotations

from trivet.tensor import Buffer

VARINT, FIXED64, LENGTH_DELIMITED, FIXED32 = 0, 1, 2, 5
_SMALL = [bytes((value,)) for value in range(128)]


def tag(field: int) -> bytes:
    """What stands before the length of a length-delimited field."""
    return varint(field << 3 | LENGTH_DELIMITED)


def varint(value: int) -> bytes:
    """Base-128 encoding of a non-negative integer."""
    if value < 128:
        return _SMALL[value]
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _read_varint(data: bytes, offset: int) -> tuple[int, int]:
    """The integer at ``offset`` and the offset behind it. Raises ``IndexError`` where the data ends inside it."""
    byte = data[offset]
    offset += 1
    if byte < 128:
        return byte, offset
    value = byte & 127
    shift = 7
    while shift < 70:
        byte = data[offset]
        offset += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, offset
        shift += 7
    raise ValueError("a varint has at most ten bytes")


def cut_field(data: bytes, field: int) -> tuple[bytes, list[memoryview]]:
    """Take a length-delimited field out of a message without copying it.

    Returns the message without the field, and a view into ``data`` for each time that it occurs. Raises
    :class:`ValueError` where ``data`` is not a message.
    """
    view = memoryview(data)
    total = len(data)
    found: list[memoryview] = []
    rest: list[memoryview] = []
    kept = offset = 0
    try:
        while offset < total:
            key, body = _read_varint(data, offset)
            kind = key & 7
            if kind == LENGTH_DELIMITED:
                size, body = _read_varint(data, body)
                end = body + size
            elif kind == VARINT:
                _, end = _read_varint(data, body)
            elif kind == FIXED64:
                end = body + 8
            elif kind == FIXED32:
                end = body + 4
            else:
                raise ValueError(f"unexpected wire type {kind} at byte {offset}")
            if end > total:
                raise ValueError(f"field {key >> 3} at byte {offset} reaches beyond the end of the message")
            if kind == LENGTH_DELIMITED and key >> 3 == field:
                rest.append(view[kept:offset])
                found.append(view[body:end])
                kept = end
            offset = end
    except IndexError:
        raise ValueError("the message ends inside a varint") from None
    rest.append(view[kept:])
    return b"".join(rest), found


def byte_size(buffer: Buffer) -> int:
    """How many bytes a buffer holds, whatever its element type."""
    return buffer.nbytes if isinstance(buffer, memoryview) else len(buffer)


def append_field(parts: list[Buffer], header: bytes, buffer: Buffer) -> None:
    """Put a length-delimited field behind ``parts`` of a message; ``header`` is the field's :func:`tag`."""
    parts += (header, varint(byte_size(buffer)), buffer)
