"""Cuts lists into pages, in the two forms that the API has. Pure."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, TypeVar

import msgspec

from claudeproxy.sandbox.errors import ApiError, readable

T = TypeVar("T")

PAGE_LIMIT: Final = 20
TOKEN: Final = re.compile(r"page_([0-9a-f]{12})([0-9a-f]{1,15})")

Query = Mapping[str, Sequence[str]]
Limit = Annotated[int, msgspec.Meta(ge=1, le=1000)]


class CursorQuery(msgspec.Struct, frozen=True):
    """The query parameters of a list whose pages lie before or after an id."""

    before_id: str | None = None
    after_id: str | None = None
    limit: Limit = PAGE_LIMIT


class TokenQuery(msgspec.Struct, frozen=True):
    """The query parameters of a list whose pages are named by a token."""

    page: str | None = None
    limit: Limit = PAGE_LIMIT


def by_cursor(items: Mapping[str, object], query: Query, noun: str) -> dict[str, Any]:
    """Build one page of *items*, which are in the order of the list.

    Shape: data, has_more, first_id, last_id; ids are null on an empty page.
    Errors: ApiError 400 for a bad limit or for an id that is not in the list.
    """
    asked = _read(query, CursorQuery)
    ids, has_more = _cut(list(items), asked, noun)
    return {
        "data": [items[found] for found in ids],
        "has_more": has_more,
        "first_id": ids[0] if ids else None,
        "last_id": ids[-1] if ids else None,
    }


def _cut(ids: list[str], asked: CursorQuery, noun: str) -> tuple[list[str], bool]:
    cursor = asked.before_id or asked.after_id
    if cursor is not None and cursor not in ids:
        name = "before_id" if asked.before_id else "after_id"
        raise ApiError(400, f"{name}: no {noun} {cursor} in this list")
    if asked.before_id:
        before = ids[: ids.index(asked.before_id)]
        return before[-asked.limit :], len(before) > asked.limit
    after = ids[ids.index(asked.after_id) + 1 :] if asked.after_id else ids
    return after[: asked.limit], len(after) > asked.limit


def by_token(items: Mapping[int, object], query: Query, owner: str) -> dict[str, Any]:
    """Build one page of *items* by falling number.

    A token is good for the list of its owner only, and also if items go meanwhile.
    Shape: data, next_page; the token is null on the last page.
    Errors: ApiError 400 for a bad limit or token.
    """
    asked = _read(query, TokenQuery)
    below = None if asked.page is None else _read_token(asked.page, owner)
    numbers = sorted(
        (number for number in items if below is None or number < below), reverse=True
    )
    shown = numbers[: asked.limit]
    more = len(numbers) > asked.limit
    return {
        "data": [items[number] for number in shown],
        "next_page": _token(shown[-1], owner) if more else None,
    }


def _token(number: int, owner: str) -> str:
    return f"page_{_mark(owner)}{number:x}"


def _read_token(token: str, owner: str) -> int:
    match = TOKEN.fullmatch(token)
    if match is None or match[1] != _mark(owner):
        raise ApiError(400, "page: not a token of this list")
    return int(match[2], 16)


def _mark(owner: str) -> str:
    return hashlib.sha256(owner.encode()).hexdigest()[:12]


def _read(query: Query, kind: type[T]) -> T:
    values = {name: found[-1] for name, found in query.items()}
    try:
        return msgspec.convert(values, kind, strict=False)
    except msgspec.ValidationError as exc:
        raise ApiError(400, readable(exc)) from exc
