"""Asks every account for its part of a list, and answers with the whole.

What the order is, and what a page and its token are, is decided in `listing`.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, unquote_plus

import msgspec

from accounts.status import ObjectKind
from claudeproxy.conf import conf
from claudeproxy.errors import ClaudeProxyError, RequestRefusedError
from clients.directory import KnownKey
from proxy import errors, listing, results_url, selection
from proxy.asks import Ask, Pin, Served
from proxy.attempts import Attempts
from proxy.endpoints import Endpoint
from proxy.errors import MalformedReplyError, Stage
from proxy.facts import RequestFacts
from proxy.handler import GatewayRequest
from proxy.listing import Chunk, Cursor, Item, Page, Place, Source
from proxy.sightings import read_object

_DEFAULT_LIMIT, _MOST = 20, 1000
# So many accounts are asked at a time.
_AT_A_TIME = 4
_NUMBER = re.compile(r"0*[0-9]{1,4}")
_OURS = frozenset({"limit", "before_id", "after_id", "page"})
_IDS = frozenset({"ids", "ids[]"})
# An account that may not use this part of the API, or does not have it, has no objects.
# A 401 is only passed on here if it is about the path (`Attempts`).
_HAS_NONE = frozenset({401, 403, 404})

# Finds an object's place in the list; RequestRefusedError if nobody has it.
Locate = Callable[[str], Awaitable[Place]]


class RelayedError(Exception):
    """An account's answer is the answer for the caller."""

    def __init__(self, served: Served) -> None:
        super().__init__("relayed")
        self.served = served


class _List(msgspec.Struct):
    data: list[msgspec.Raw]
    has_more: bool | None = None
    next_page: str | None = None


_list = msgspec.json.Decoder(_List)


@dataclass(frozen=True, slots=True)
class Query:
    """What a caller asks of a list; *rest* goes to the accounts as it came."""

    rest: bytes
    limit: int = _DEFAULT_LIMIT
    before_id: str | None = None
    after_id: str | None = None
    page: str | None = None
    has_ids: bool = False


def read_query(raw: bytes, *, pages_by_id: bool) -> Query:
    """Read a list's query.

    Errors: RequestRefusedError (400) for a limit out of range, two directions at once,
    or what is no cursor.
    """
    found: dict[str, str] = {}
    rest: list[bytes] = []
    has_ids = False
    for pair in raw.split(b"&"):
        name, _, value = pair.decode("latin-1").partition("=")
        name = unquote_plus(name)
        has_ids = has_ids or name in _IDS
        if name in _OURS:
            found[name] = unquote_plus(value)
        elif pair:
            rest.append(pair)
    if has_ids and not pages_by_id:
        # Such a list is one page. What else does not go with it, the upstream says.
        return Query(raw, has_ids=True)
    limit = found.get("limit", str(_DEFAULT_LIMIT))
    if not (_NUMBER.fullmatch(limit) and 1 <= int(limit) <= _MOST):
        raise errors.bad_parameter("limit", f"must be a number from 1 to {_MOST}.")
    if "before_id" in found and "after_id" in found:
        raise errors.bad_parameter("before_id", "cannot be used with after_id.")
    return Query(
        b"&".join(rest),
        int(limit),
        found.get("before_id") or None,
        found.get("after_id") or None,
        found.get("page") or None,
    )


@dataclass
class PoolList:
    """One answer to a list's caller, in the making."""

    request: GatewayRequest
    endpoint: Endpoint
    key: KnownKey
    query: Query
    base_url: str
    room: asyncio.Semaphore = field(
        default_factory=lambda: asyncio.Semaphore(_AT_A_TIME)
    )
    # Answers of accounts that have no such objects at all.
    refusals: dict[int, Served] = field(default_factory=dict)
    has_more_is_said: bool = False

    async def answer(self, locate: Locate) -> tuple[bytes, Sequence[Item]]:
        """Return the answer's body, and the objects in it.

        Errors: NoAccountAvailableError if an account in use could not be asked,
        RelayedError for what the upstream says of the request, RequestRefusedError for
        a cursor that is none.
        """
        record = self.request.record
        try:
            async with asyncio.timeout(conf.request_timeout.total_seconds()):
                if self.endpoint.pages_by_id:
                    return await self._paged_by_id(locate)
                return await self._paged_by_token()
        except TimeoutError:
            raise errors.list_incomplete() from None
        finally:
            record.account, record.routing = None, "pool"

    # --- by the ids of objects

    async def _paged_by_id(self, locate: Locate) -> tuple[bytes, Sequence[Item]]:
        query = self.query
        place = await self._cursor_place(locate)
        sources = self._sources()
        if place is not None and query.before_id:
            await self._each(partial(self._read_before, place=place), sources)
            lists = [source.items for source in sources]
            page = listing.last_page(lists, query.limit, are_whole=_are_whole(sources))
        else:
            await self._each(partial(self._read_behind, place=place), sources)
            lists = [source.items for source in sources]
            page = listing.first_page(lists, query.limit, are_whole=_are_whole(sources))
        self._require_somebody(sources)
        ids = [item.id for item in page.items]
        body = {
            "data": self._raw(page),
            "has_more": page.has_more,
            "first_id": ids[0] if ids else None,
            "last_id": ids[-1] if ids else None,
        }
        return msgspec.json.encode(body), page.items

    async def _cursor_place(self, locate: Locate) -> Place | None:
        name = "before_id" if self.query.before_id else "after_id"
        cursor = self.query.before_id or self.query.after_id
        if not cursor:
            return None
        try:
            return await locate(cursor)
        except RequestRefusedError as error:
            raise errors.bad_parameter(name, str(error)) from error

    async def _read_behind(self, source: Source, place: Place | None) -> None:
        """Read an account's list until there is enough of it behind *place*.

        The upstream knows a place in the list of its own account only. Others are read
        from the top, in large pages.
        """
        is_owner = place is None or place.account_id == source.account_id
        size = self.query.limit if is_owner else _MOST
        if place is not None and is_owner:
            source.next_token = place.id
        while not source.is_exhausted and len(source.items) < self.query.limit:
            chunk = await self._fetch(source, "after_id", size)
            source.chunks.append(Chunk(chunk.token, listing.behind(chunk.items, place)))

    async def _read_before(self, source: Source, place: Place) -> None:
        if place.account_id == source.account_id:
            source.next_token = place.id
            source.chunks.append(
                await self._fetch(source, "before_id", self.query.limit)
            )
            return
        while not source.is_exhausted:
            chunk = await self._fetch(source, "after_id", _MOST)
            newer = listing.before(chunk.items, place)
            source.chunks.append(Chunk(chunk.token, newer))
            source.is_exhausted |= len(newer) < len(chunk.items)

    # --- by tokens

    async def _paged_by_token(self) -> tuple[bytes, Sequence[Item]]:
        query = self.query
        cursor = _read_cursor(query.page) if query.page else None
        place = cursor.place if cursor else None
        sources = self._sources(cursor.tokens if cursor else {})
        await self._each(
            self._read_first, [one for one in sources if not one.is_exhausted]
        )
        self._require_somebody(sources)
        shared_from = self._shared_from(sources, cursor)
        limit = None if query.has_ids else query.limit
        read_on = partial(
            self._read_on, place=place, limit=limit, shared_from=shared_from
        )
        await self._each(read_on, sources)
        page = listing.first_page(
            [
                listing.behind(listing.shown(source, shared_from), place)
                for source in sources
            ],
            limit,
            are_whole=_are_whole(sources),
        )
        body: dict[str, Any] = {
            "data": self._raw(page),
            "next_page": listing.next_token(page, sources, shared_from),
        }
        if self.has_more_is_said:
            body["has_more"] = body["next_page"] is not None
        return msgspec.json.encode(body), page.items

    async def _read_first(self, source: Source) -> None:
        source.chunks.append(await self._fetch(source, "page", self.query.limit))

    async def _read_on(
        self, source: Source, place: Place | None, limit: int | None, shared_from: int
    ) -> None:
        def is_enough() -> bool:
            found = listing.behind(listing.shown(source, shared_from), place)
            return limit is not None and len(found) >= limit

        while not source.is_exhausted and not is_enough():
            source.chunks.append(await self._fetch(source, "page", self.query.limit))

    def _shared_from(self, sources: Sequence[Source], cursor: Cursor | None) -> int:
        ids = [s.account_id for s in sources if s.account_id not in self.refusals]
        if cursor is not None and cursor.shared_from in ids:
            return cursor.shared_from
        return min(ids, default=0)

    # --- asking

    def _sources(self, tokens: dict[str, str | None] | None = None) -> list[Source]:
        contents = self.request.gateway.snapshot.contents
        accounts = selection.in_use(contents.accounts)
        if not accounts:
            decision = self.request.gateway.choose_for_list(
                datetime.now(UTC), already_tried=()
            )
            raise errors.nobody(decision.excluded, datetime.now(UTC))
        tokens = tokens or {}
        return [
            Source(
                account.id,
                tokens.get(str(account.id)),
                is_exhausted=tokens.get(str(account.id), "") is None,
            )
            for account in accounts
        ]

    async def _each(
        self, read: Callable[[Source], Awaitable[None]], sources: Iterable[Source]
    ) -> None:
        """Read of all of them, a few at a time; the first error ends the rest."""
        tasks = [asyncio.create_task(self._in_turn(read, one)) for one in sources]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _in_turn(
        self, read: Callable[[Source], Awaitable[None]], source: Source
    ) -> None:
        async with self.room:
            await read(source)

    async def _fetch(self, source: Source, cursor: str, size: int) -> Chunk:
        """Read an account's next page; what comes after it is noted in *source*."""
        token = source.next_token
        served = await self._ask(source.account_id, self._target(cursor, token, size))
        if served.reply.status in _HAS_NONE:
            self.refusals[source.account_id] = served
            source.is_exhausted = True
            return Chunk(token, ())
        if served.reply.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise errors.list_incomplete()
        if served.reply.status >= HTTPStatus.BAD_REQUEST:
            raise RelayedError(served)
        found = _read_list(served)
        items = [_item(bytes(raw), source.account_id) for raw in found.data]
        if self.endpoint.pages_by_id:
            source.next_token = items[-1].id if items else None
            source.is_exhausted = not (found.has_more and items)
        else:
            self.has_more_is_said |= found.has_more is not None
            source.next_token = found.next_page
            source.is_exhausted = not found.next_page
        if not source.is_exhausted and source.leads_back(token):
            raise MalformedReplyError(Stage.ANSWER_BEGUN, "a list without an end")
        return Chunk(token, items)

    async def _ask(self, account_id: int, target: bytes) -> Served:
        ask = Ask(
            *(self.endpoint, self.key, RequestFacts(), b""),
            pin=Pin(account_id, self.endpoint.template),
            target=target,
        )
        try:
            return await Attempts(self.request, ask).run()
        except ClaudeProxyError as error:
            incomplete = errors.list_incomplete()
            incomplete.retry_after = error.retry_after or incomplete.retry_after
            raise incomplete from error

    def _target(self, cursor: str, token: str | None, size: int) -> bytes:
        pairs = [self.query.rest] if self.query.rest else []
        if not self.query.has_ids:
            pairs.append(b"limit=%d" % size)
        if token is not None:
            pairs.append(f"{cursor}={quote(token, safe='')}".encode("ascii"))
        path: bytes = self.request.scope["raw_path"]
        return path + (b"?" + b"&".join(pairs) if pairs else b"")

    # --- answering

    def _require_somebody(self, sources: Sequence[Source]) -> None:
        """If nobody may list such objects, what one of them was told is the answer."""
        if self.refusals and len(self.refusals) == len(sources):
            raise RelayedError(min(self.refusals.items())[1])

    def _raw(self, page: Page) -> list[msgspec.Raw]:
        if self.endpoint.kind is not ObjectKind.BATCH:
            return [msgspec.Raw(item.raw) for item in page.items]
        return [
            msgspec.Raw(results_url.rewritten(item.raw, item.id, self.base_url))
            for item in page.items
        ]


def _are_whole(sources: Sequence[Source]) -> bool:
    return all(source.is_exhausted for source in sources)


def _read_cursor(page: str) -> Cursor:
    try:
        return listing.decode(page)
    except ValueError:
        raise errors.bad_parameter(
            "page", "must be the next_page of an earlier answer of this gateway."
        ) from None


def _read_list(served: Served) -> _List:
    try:
        if served.rest is None:
            return _list.decode(served.start)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    raise _unreadable()


def _item(raw: bytes, account_id: int) -> Item:
    found = read_object(raw)
    if found is None or found.created_at is None:
        raise _unreadable()
    return Item(found.id, found.created_at, account_id, raw, found.is_shared)


def _unreadable() -> MalformedReplyError:
    return MalformedReplyError(Stage.ANSWER_BEGUN, "a list without ids and times")
