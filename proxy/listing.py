"""One list made of the lists of several accounts: order, places and tokens. Pure.

Objects are ordered by the time they were made, newest first; what was made at the same
moment is ordered by account, and within an account as the upstream orders it. That
needs nothing of the upstream but lists by falling time, and is the same on every page.
"""

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

import msgspec

from proxy import endpoints

# A database id, and for each account a token of the upstream's.
_LONGEST_TOKEN = 16_384
_MARK = "page_"

# How far down: by time, then by account. The upstream orders what is alike.
Key = tuple[float, int]


@dataclass(frozen=True, slots=True)
class Place:
    """Right behind an object of an account."""

    id: str
    created_at: datetime
    account_id: int

    @property
    def key(self) -> Key:
        return (-self.created_at.timestamp(), self.account_id)


@dataclass(frozen=True, slots=True)
class Item(Place):
    """An object of an account's list, as it stood there."""

    raw: bytes = b""
    # Every account has it; one shows it.
    is_shared: bool = False


@dataclass(frozen=True, slots=True)
class Chunk:
    """A page of one account, and the token it was asked for with; None: the first."""

    token: str | None
    items: Sequence[Item]


@dataclass(slots=True)
class Source:
    """What was read of one account's list so far, and how to read on."""

    account_id: int
    next_token: str | None = None
    is_exhausted: bool = False
    chunks: list[Chunk] = field(default_factory=list)

    @property
    def items(self) -> list[Item]:
        return [item for chunk in self.chunks for item in chunk.items]

    def leads_back(self, token: str | None) -> bool:
        """Was what comes next read already, with *token* or before?"""
        return self.next_token in {token, *(chunk.token for chunk in self.chunks)}

    def token_of(self, item_id: str) -> str | None:
        """Return the token of the page that an object was read on."""
        for chunk in self.chunks:
            if any(item.id == item_id for item in chunk.items):
                return chunk.token
        return None


@dataclass(frozen=True, slots=True)
class Page:
    """A page for the caller, and whether there is more in the direction it goes."""

    items: Sequence[Item]
    has_more: bool


class Cursor(msgspec.Struct, array_like=True, frozen=True):
    """What a page token says: a place, and how to read on at each account.

    *tokens* holds null for an account that has nothing behind the place, and nothing
    for one that is to be read from its beginning. *shared_from* is the account that
    shows what all of them have.
    """

    id: str
    created_at: datetime
    account_id: int
    shared_from: int
    tokens: dict[str, str | None]

    @property
    def place(self) -> Place:
        return Place(self.id, self.created_at, self.account_id)


_cursor = msgspec.json.Decoder(Cursor)


def behind(items: Sequence[Item], place: Place | None) -> list[Item]:
    """Return those of one account's objects that are behind *place*.

    Should the object of the place have been deleted, what its account made at the same
    moment counts as behind: rather shown twice than never.
    """
    if place is None:
        return list(items)
    items = _without_copy(items, place)
    tied = [item for item in items if item.key == place.key]
    passed = [item.id for item in tied].index(place.id) + 1 if _has(tied, place) else 0
    return tied[passed:] + [item for item in items if item.key > place.key]


def before(items: Sequence[Item], place: Place) -> list[Item]:
    """Return those of one account's objects that are before the object of *place*."""
    items = _without_copy(items, place)
    newer = [item for item in items if item.key < place.key]
    tied = [item for item in items if item.key == place.key]
    if not _has(tied, place):
        return newer
    return newer + tied[: [item.id for item in tied].index(place.id)]


def _without_copy(items: Sequence[Item], place: Place) -> list[Item]:
    """Return an account's objects without that of *place*, should it be another's."""
    return [
        item
        for item in items
        if item.id != place.id or item.account_id == place.account_id
    ]


def _has(items: Sequence[Item], place: Place) -> bool:
    return any(item.id == place.id for item in items)


def shown(source: Source, shared_from: int) -> list[Item]:
    """Return an account's objects without those that another account shows."""
    return [
        item
        for item in source.items
        if not item.is_shared or source.account_id == shared_from
    ]


def merged(lists: Sequence[Sequence[Item]]) -> list[Item]:
    """Return the objects of several accounts, each in its own order, as one list.

    What several list, as those of one workspace do, is shown by the first of them.
    """
    # A stable sort: within an account and a moment, the upstream's order stays.
    ordered = sorted((item for items in lists for item in items), key=lambda i: i.key)
    unique: dict[str, Item] = {}
    for item in ordered:
        unique.setdefault(item.id, item)
    return list(unique.values())


def first_page(
    lists: Sequence[Sequence[Item]], limit: int | None, *, are_whole: bool
) -> Page:
    """Return the first *limit* objects, None for all.

    Each list must have so many or be whole; *are_whole* if all are.
    """
    ordered = merged(lists)
    shown_items = ordered if limit is None else ordered[:limit]
    return Page(shown_items, not are_whole or len(shown_items) < len(ordered))


def last_page(lists: Sequence[Sequence[Item]], limit: int, *, are_whole: bool) -> Page:
    """Return the last *limit* objects; otherwise as `first_page`."""
    ordered = merged(lists)
    return Page(ordered[-limit:], not are_whole or limit < len(ordered))


def next_token(page: Page, sources: Sequence[Source], shared_from: int) -> str | None:
    """Return the token of the page behind *page*; None if there is none."""
    if not page.has_more or not page.items:
        return None
    last = page.items[-1]
    place = Place(last.id, last.created_at, last.account_id)
    tokens: dict[str, str | None] = {}
    for source in sources:
        left = behind(shown(source, shared_from), place)
        if left:
            token = source.token_of(left[0].id)
            if token is None:
                continue  # from the beginning
        else:
            token = None if source.is_exhausted else source.next_token
        tokens[str(source.account_id)] = token
    return encode(
        Cursor(last.id, last.created_at, last.account_id, shared_from, tokens)
    )


def encode(cursor: Cursor) -> str:
    """Write a cursor as the token that callers hand back."""
    packed = base64.urlsafe_b64encode(msgspec.json.encode(cursor))
    return _MARK + packed.decode("ascii").rstrip("=")


def decode(token: str) -> Cursor:
    """Read a token of `encode`.

    Errors: ValueError for anything else, or anything too long.
    """
    packed = token.removeprefix(_MARK)
    if len(token) > _LONGEST_TOKEN or packed == token:
        raise ValueError("no token of this gateway")
    try:
        raw = base64.b64decode(packed + "=" * (-len(packed) % 4), b"-_", validate=True)
        cursor = _cursor.decode(raw)
        cursor.created_at.timestamp()
    except (
        *(binascii.Error, msgspec.DecodeError, UnicodeError),
        *(OverflowError, RecursionError),
    ) as error:
        raise ValueError("no token of this gateway") from error
    if not endpoints.is_object_id(cursor.id):
        raise ValueError("no token of this gateway")
    return cursor
