"""IDX files, in which MNIST comes."""

import math

import numpy as np
from numpy.typing import NDArray


def parse(content: bytes) -> NDArray[np.uint8]:
    """Return the read-only uint8 array of an IDX file, such as images N x 28 x 28 or labels N.

    IDX: two zero bytes, the type (8: unsigned bytes), the number of dimensions, each dimension as a
    big-endian uint32, then the values in C order. Raise ValueError for any other content.
    """
    if len(content) < 4 or content[:2] != b"\0\0" or content[3] == 0:
        raise ValueError(f"not an IDX file: it begins with {content[:4]!r}")
    if content[2] != 8:
        raise ValueError(f"IDX values of type {content[2]:#04x}; allowed: 0x08, unsigned bytes")
    start = 4 + 4 * content[3]
    shape = tuple(int.from_bytes(content[at : at + 4], "big") for at in range(4, start, 4))
    if len(content) != (needed := start + math.prod(shape)):
        raise ValueError(f"IDX file of {len(content)} bytes; its shape {shape} needs {needed}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
