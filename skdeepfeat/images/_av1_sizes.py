"""The sizes of the AV1 images in an AVIF file, which need not be what its boxes claim.

libavif takes the size of an image from a box, decodes the AV1 data, and then scales the
result. So a kilobyte that claims 16 x 16 pixels can take a gigabyte.

Sources: ISO/IEC 14496-12 (boxes), https://aomediacodec.github.io/av1-spec (OBUs).
"""

import struct

# Boxes of boxes, and the bytes before the first of them.
_CONTAINERS = {
    b"meta": 4, b"moov": 0, b"trak": 0, b"mdia": 0, b"minf": 0, b"stbl": 0,
}  # fmt: skip
_MAX_DEPTH = 8
# Of boxes, parts of items and OBUs together. A grid has an item for each tile, and a
# sequence has a few OBUs for each frame.
_MAX_STEPS = 2**17
_SEQUENCE_HEADER = 1


def av1_sizes(data):
    """Yield the largest (width, height) of each AV1 sequence in a file.

    Parameters
    ----------
    data : bytes

    Raises
    ------
    ValueError, IndexError, struct.error
        If the file is damaged.
    """
    budget = _Budget(4 * len(data))
    data = memoryview(data)
    boxes = list(_boxes(data, 0, len(data), budget))
    for part in _parts(data, boxes, budget):
        for content in _sequence_headers(part, budget):
            yield _size_of(content)


class _Budget:
    """What a file may cost: its boxes may overlap, and point anywhere."""

    def __init__(self, n_bytes):
        self._n_steps, self._n_bytes = _MAX_STEPS, n_bytes

    def take(self, n_bytes=0):
        """Take a step that copies some bytes, or raise ValueError."""
        self._n_steps -= 1
        self._n_bytes -= n_bytes
        if self._n_steps < 0 or self._n_bytes < 0:
            raise ValueError


def _parts(data, boxes, budget):
    """Yield what may be AV1 data: items, and the start of tracks."""
    starts_of_idat = [start for kind, start, _ in boxes if kind == b"idat"]
    for kind, start, end in boxes:
        if kind == b"iloc":
            for start_of_idat in starts_of_idat or [0]:
                yield from _items(data, start, start_of_idat, budget)
        elif kind in (b"stco", b"co64"):
            yield from _chunks(data, start, end, kind)


def _boxes(data, start, end, budget, depth=0):
    """Yield the kind, the start and the end of the content of each box."""
    if depth > _MAX_DEPTH:
        raise ValueError
    while start + 8 <= end:
        budget.take()
        size, kind = struct.unpack_from(">L4s", data, start)
        head = 8
        if size == 1:
            size, head = struct.unpack_from(">Q", data, start + 8)[0], 16
        last = min(end, start + size) if size else end
        yield kind, start + head, last
        if kind in _CONTAINERS:
            inner = start + head + _CONTAINERS[kind]
            yield from _boxes(data, inner, last, budget, depth + 1)
        start = max(last, start + head)


def _items(data, position, start_of_idat, budget):
    """Yield the content of each item of an item location box."""

    def number(n_bytes):
        nonlocal position
        found = int.from_bytes(data[position : position + n_bytes], "big")
        position += n_bytes
        return found

    version = number(1)
    number(3)
    sizes = number(2)
    n_offset, n_length, n_base, n_index = (sizes >> s & 15 for s in (12, 8, 4, 0))
    for _ in range(number(2 if version < 2 else 4)):
        budget.take()
        number(2 if version < 2 else 4)
        method = number(2) & 15 if version else 0
        number(2)
        base = number(n_base) + (start_of_idat if method else 0)
        parts = []
        for _ in range(number(2)):
            number(n_index if version else 0)
            start = base + number(n_offset)
            length = number(n_length) or len(data)
            parts.append(data[start : start + length])
            budget.take(len(parts[-1]))
        yield b"".join(parts)


def _chunks(data, start, end, kind):
    """Yield what is in the file from the start of each chunk of a track."""
    letter = "L" if kind == b"stco" else "Q"
    n_chunks = struct.unpack_from(">L", data, start + 4)[0]
    n_chunks = min(n_chunks, (end - start - 8) // struct.calcsize(f">{letter}"))
    # Only the first frame is decoded, and it is at the start of the first chunk.
    for offset in struct.unpack_from(f">{min(n_chunks, 1)}{letter}", data, start + 8):
        yield data[offset:]


def _sequence_headers(data, budget):
    """Yield the content of the sequence headers among OBUs."""
    position = 0
    while position < len(data):
        budget.take()
        head = data[position]
        position += 2 if head & 4 else 1
        size = len(data) - position
        if head & 2:
            size = shift = 0
            while True:
                byte = data[position]
                position += 1
                size |= (byte & 127) << shift
                shift += 7
                if byte < 128 or shift > 56:
                    break
        if head >> 3 & 15 == _SEQUENCE_HEADER:
            yield data[position : position + size]
        position += size


class _Bits:
    def __init__(self, data):
        self._bits = int.from_bytes(data[:1024], "big")
        self._left = 8 * min(len(data), 1024)

    def __call__(self, n):
        self._left -= n
        if self._left < 0:
            raise ValueError
        return self._bits >> self._left & ((1 << n) - 1)


def _size_of(data):
    """Return the largest size that a sequence header allows for a frame."""
    bits = _Bits(data)
    bits(4)  # profile, whether it is a still picture
    if bits(1):  # the header of a still picture
        bits(5)
    else:
        n_delay = 0
        if bits(1):  # timing
            bits(64)
            if bits(1):
                n_zeros = 0
                while not bits(1):
                    n_zeros += 1
                bits(n_zeros if n_zeros < 32 else 0)
            if bits(1):  # a model of the decoder
                n_delay = bits(5) + 1
                bits(42)
        has_delay = bits(1)
        for _ in range(bits(5) + 1):
            bits(12)
            if bits(5) > 7:
                bits(1)
            if n_delay and bits(1):
                bits(2 * n_delay + 1)
            if has_delay and bits(1):
                bits(4)
    lengths = bits(4) + 1, bits(4) + 1
    sides = [bits(length) + 1 for length in lengths]
    # A frame can be as large as there are bits for its sides. Encoders use no more bits
    # than needed.
    return [
        side
        if (side - 1).bit_length() == length or side == length == 1
        else 1 << length
        for side, length in zip(sides, lengths, strict=True)
    ]
