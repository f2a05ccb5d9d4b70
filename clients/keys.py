"""Client keys as text: make, check, hash.

Shape: `cp_`, 43 random characters, 6 of checksum; all of them letters and digits, so
that a double click selects the whole. 43 characters of 62 are 256 bits. The checksum
is CRC-32 over what stands before it: it tells a typo from a key nobody issued, and
keeps no secret.
"""

import hashlib
import re
import secrets
import string
import zlib
from collections.abc import Callable, Sequence

PREFIX = "cp_"
_ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
_RANDOM_LENGTH = 43
_CHECKSUM_LENGTH = 6
_KEY = re.compile(rf"{PREFIX}[0-9A-Za-z]{{{_RANDOM_LENGTH + _CHECKSUM_LENGTH}}}")


def generate(choose: Callable[[Sequence[str]], str] = secrets.choice) -> str:
    """Return a new key."""
    body = PREFIX + "".join(choose(_ALPHABET) for _ in range(_RANDOM_LENGTH))
    return body + _checksum(body)


def is_intact(text: str) -> bool:
    """Could the gateway have issued this key? False for a typo or a foreign key."""
    if not _KEY.fullmatch(text):
        return False
    return text[-_CHECKSUM_LENGTH:] == _checksum(text[:-_CHECKSUM_LENGTH])


def digest(text: str) -> bytes:
    """SHA-256 of the key, which is all that is stored.

    A slow hash would add nothing: nobody guesses 256 random bits.
    """
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()


def _checksum(body: str) -> str:
    number = zlib.crc32(body.encode())
    digits = []
    for _ in range(_CHECKSUM_LENGTH):
        number, rest = divmod(number, len(_ALPHABET))
        digits.append(_ALPHABET[rest])
    return "".join(reversed(digits))
