"""What identifies a row: the namespace of its network, its key, and its checksum.

The checksum of every stored value is a CRC-32 of the value and its key. As it covers
the key, a damaged index cannot pass off one value as another's.
"""

import zlib

from .._utils._digests import digest_description


class Namespace:
    """The part of the cache that belongs to one way of computing rows.

    Parameters
    ----------
    description : dict
        Everything that a row's values depend on except the image, in JSON types. Two
        namespaces are equal if their descriptions are.
    label : str
        The same for people: ``"efficientnet_lite0, layer3, avg, float32"``.
    work : str or None, default=None
        Identifies the network that computes the rows, in letters and digits.
        Namespaces of one network are computed by one thread or process at a time. None
        means that the namespace shares its network with no other.

    Attributes
    ----------
    key : str
        Hexadecimal digest of the description.
    work : str
        What is computed by one thread or process at a time.
    """

    def __init__(self, description: dict, label: str, work: str | None = None):
        self.description = description
        self.label = label
        self.key = digest_description(description)
        self.work = work or self.key

    def variant(self, name: str) -> "Namespace":
        """Return the namespace of one of the networks that share this description."""
        description = {**self.description, "variant": name}
        return Namespace(description, self.label, self.work)

    def __eq__(self, other):
        return isinstance(other, Namespace) and self.key == other.key

    def __hash__(self):
        return hash(self.key)

    def __repr__(self):
        return f"Namespace({self.label!r}, key={self.key[:12]!r})"


def checksum(key: bytes, data: bytes, seed: int = 0) -> int:
    """Return the checksum of a value."""
    return zlib.crc32(data, zlib.crc32(key, seed))


def seed_of(namespace_key: str) -> int:
    """Return what the checksums of a namespace's rows begin with."""
    return zlib.crc32(namespace_key.encode())


def is_valid(key: object, crc: object, data: object, seed: int = 0) -> bool:
    """Return whether a value is what was stored."""
    # As `checksum`, without the call: this runs for every file and variant.
    return (
        type(key) is bytes
        and type(data) is bytes
        and zlib.crc32(data, zlib.crc32(key, seed)) == crc
    )
