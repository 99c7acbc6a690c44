"""Seals: checksums that tell whether state on disk is what was written, and where it was written.

A seal is a keyed BLAKE2b hash (RFC 7693) of the content. Its key is the place: so content that was copied or
moved to another place doesn't check either.
"""

import hashlib

SEAL_BYTES = 8
"""The length of a seal, 64 bits: against accidents, not against forgers."""

LENGTH = 2 * SEAL_BYTES + 1
"""The length of a seal before content: hexadecimal digits and a space."""


class Unreadable(Exception):
    """State on disk that this version can't read; the message says why."""


class Damaged(Unreadable):
    """State on disk that is not what was written."""


def seal_of(content: bytes, place: str) -> str:
    """Return the seal of content at a place, in hexadecimal digits."""
    key = hashlib.blake2b(place.encode(), digest_size=hashlib.blake2b.MAX_KEY_SIZE).digest()
    return hashlib.blake2b(content, digest_size=SEAL_BYTES, key=key).hexdigest()


def sealed(content: bytes, place: str) -> bytes:
    """Return content with its seal before it."""
    return f"{seal_of(content, place)} ".encode() + content


def unsealed(written: bytes, place: str) -> bytes:
    """Return the content of what `sealed` returned.

    Raises:
        Damaged: if it was not written at this place, or has changed.
    """
    seal, content = written[:LENGTH], written[LENGTH:]
    if seal != f"{seal_of(content, place)} ".encode():
        raise Damaged("its checksum is not that of its content")
    return content
