"""Text that comes from the provider, made safe to keep and to show. Pure."""

import re
from collections.abc import Iterable

# What the provider's keys and tokens look like.
_SECRET = re.compile(r"\bsk-[\w-]{8,}")
_MOST_READ = 4000


def clean(text: object, *, length: int = 200) -> str:
    """Return a text as one line that every database can hold; empty if it is none.

    Control characters and halves of characters are left out.
    """
    if not isinstance(text, str):
        return ""
    return "".join(c for c in text[:_MOST_READ] if c.isprintable())[:length]


def quote(text: object, *, sent: Iterable[str] = (), length: int = 200) -> str:
    """Return what the provider says, without secrets it repeats.

    *sent* is what was sent; besides, whatever looks like a key is left out.
    """
    words = clean(text, length=_MOST_READ)
    for secret in sent:
        words = words.replace(secret, "[secret]")
    return _SECRET.sub("[secret]", words)[:length]


def is_word(text: object) -> bool:
    """Could the text be a credential? One word of plain characters, as headers take."""
    return (
        isinstance(text, str)
        and text != ""
        and text.isascii()
        and text.isprintable()
        and " " not in text
    )
