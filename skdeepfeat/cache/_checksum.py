"""The checksum that every stored value has: a CRC-32 of the value and its key.

As it covers the key, a damaged index cannot pass off one value as another's.
"""

import zlib


def checksum(key: bytes, data: bytes, seed: int = 0) -> int:
    """Return the checksum of a value."""
    return zlib.crc32(data, zlib.crc32(key, seed))


def seed_of(namespace_key: str) -> int:
    """Return what the checksums of a namespace's rows begin with."""
    return zlib.crc32(namespace_key.encode())


def is_valid(key: object, crc: object, data: object, seed: int = 0) -> bool:
    """Return whether a value is what was stored."""
    return (
        type(key) is bytes and type(data) is bytes and checksum(key, data, seed) == crc
    )
