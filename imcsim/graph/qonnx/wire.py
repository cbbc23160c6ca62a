"""How many records a protobuf file holds, counted before it is parsed: a few bytes can make a large one."""

from typing import Any

MOST_FIELDS = 1_000_000
"""Fields of all messages, each of which takes up to about 200 bytes once it is parsed."""

MOST_PACKED_BYTES = 64 << 20
"""Bytes of whole numbers that are written one behind the other, each of which takes up to 8 times its size."""


class WireError(Exception):
    """The bytes are no messages, or too many; the text says what must hold."""


def check_size(content: bytes, descriptor: Any) -> None:
    """Raise WireError unless *content*, a message that *descriptor* describes, is whole and holds few enough fields.

    Source of the encoding: protobuf.dev/programming-guides/encoding.
    """
    n_fields = n_packed = 0
    waiting = [(0, len(content), descriptor)]
    while waiting:
        at, end, message = waiting.pop()
        while at < end:
            key, at = _varint(content, at, end)
            n_fields += 1
            if n_fields > MOST_FIELDS:
                raise WireError(f"must have at most {MOST_FIELDS} fields, got more; split the model")
            field = message.fields_by_number.get(key >> 3)
            match key & 7:
                case 0:
                    _, at = _varint(content, at, end)
                case 1:
                    at += 8
                case 2:
                    size, at = _varint(content, at, end)
                    if field is not None and field.message_type is not None:
                        waiting.append((at, min(at + size, end), field.message_type))
                    elif field is not None and field.type not in _TEXTS:
                        n_packed += size
                    at += size
                case 5:
                    at += 4
                case _:
                    raise WireError("must be a whole ONNX file, got something else; it is damaged or another format")
        if at != end:
            raise WireError("must be a whole ONNX file, got one that ends too early; it is cut off")
    if n_packed > MOST_PACKED_BYTES:
        raise WireError(
            f"must have at most {MOST_PACKED_BYTES >> 20} MiB of numbers outside of raw data, got {n_packed >> 20} MiB"
            "; write them as raw data"
        )


_TEXTS = (9, 12)
"""String and bytes, of FieldDescriptorProto.Type."""


def _varint(content: bytes, at: int, end: int) -> tuple[int, int]:
    """Return the number that begins at *at*, and where it ends."""
    value = shift = 0
    while at < end and shift < 70:
        byte = content[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
    raise WireError("must be a whole ONNX file, got one that ends too early; it is cut off")
