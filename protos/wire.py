"""Protobuf's wire format, as far as tensors are joined to messages without protobuf's help."""


def varint(value: int) -> bytes:
    """A length or number as protobuf writes it: seven bits a byte, lowest first."""
    if value < 0x80:
        return _ONE_BYTE[value]
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


_ONE_BYTE = [bytes([value]) for value in range(0x80)]
