"""The ways of requests that make, find, use and list what belongs to one account."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from http import HTTPStatus
from typing import cast

from accounts.pool import PooledAccount
from accounts.status import ObjectKind
from claudeproxy.conf import conf
from claudeproxy.errors import ClaudeProxyError
from clients.directory import KnownKey
from proxy import endpoints, errors, selection, sightings
from proxy.asks import Ask, Pin, Served
from proxy.attempts import Attempts
from proxy.endpoints import Endpoint
from proxy.errors import MalformedReplyError, Stage
from proxy.facts import REFERENCE, RequestFacts
from proxy.handler import GatewayRequest
from proxy.listing import Place
from proxy.lists import PoolList, read_query
from proxy.owners import Owners
from proxy.sightings import Sighting
from proxy.spool import Body, FileBody

# More objects than this are not looked up for one request.
MOST_REFERENCES = 5_000


async def pin_of(
    request: GatewayRequest, object_ids: Sequence[str], thread: str | None = None
) -> Pin | None:
    """Say which account has what a request names; None if that is not known.

    What nobody is known to have is not looked for: the upstream says what is wrong.

    Errors: RequestRefusedError (400) if several accounts have it, ThreadNotFoundError
    if one has the thread and another the rest.
    """
    named = [*object_ids, *([thread] if thread else ())]
    # What cannot be an id comes no further: databases do not take every text.
    named = [object_id for object_id in named if endpoints.is_object_id(object_id)]
    if not named:
        return None
    gateway = request.gateway
    owners = await gateway.owners.find(named, gateway.snapshot.contents.accounts)
    known = [object_id for object_id in named if object_id in owners]
    if not known:
        return None
    first = known[0]
    for other in known[1:]:
        if owners[other] != owners[first]:
            if other == thread:
                raise errors.ThreadNotFoundError(other)
            raise errors.owners_differ(first, other)
    return Pin(owners[first], first, is_thread=first == thread)


async def make(
    request: GatewayRequest, endpoint: Endpoint, key: KnownKey, body: Body
) -> Served:
    """Make an object: where what it refers to is, or else where its caller is at home.

    The object is in the database before its caller hears of it.
    """
    # Other bodies are no JSON: what is in an uploaded file refers to nothing.
    is_json = endpoint.kind is ObjectKind.BATCH
    pin = await pin_of(request, await _references(body) if is_json else ())
    ask = Ask(*(endpoint, key, RequestFacts(), body), pin=pin, is_making=True)
    attempts = Attempts(request, ask)
    served = await attempts.run()
    if _is_whole(served) and attempts.served_by is not None:
        made = sightings.read_object(served.start)
        if made is not None:
            await _remember(request, endpoint, attempts.served_by.id, [made])
    return served


async def by_id(
    request: GatewayRequest, endpoint: Endpoint, key: KnownKey, body: Body
) -> Served:
    """Ask the account that has the object that the path names."""
    kind, object_id = _object_of(request, endpoint)
    owner_id = await _owner_of(request, key, kind, object_id)
    ask = Ask(
        *(endpoint, key, RequestFacts(), body),
        pin=Pin(owner_id, object_id),
        is_making=endpoint.makes and request.method == "POST",
    )
    served = await Attempts(request, ask).run()
    status = served.reply.status
    is_gone = status == HTTPStatus.NOT_FOUND
    is_deleted = request.method == "DELETE" and status < HTTPStatus.BAD_REQUEST
    if endpoint is endpoints.of_object(kind, object_id)[0] and (is_gone or is_deleted):
        await request.gateway.owners.forget(kind, object_id, owner_id)
    return served


async def listed(
    request: GatewayRequest, endpoint: Endpoint, key: KnownKey, base_url: str
) -> bytes:
    """Return a page of what all accounts in use have.

    Errors: as of `PoolList.answer`.
    """
    kind = _kind_of(endpoint)
    query = read_query(request.scope["query_string"], pages_by_id=endpoint.pages_by_id)

    async def locate(object_id: str) -> Place:
        return await _place_of(request, key, kind, object_id)

    body, items = await PoolList(request, endpoint, key, query, base_url).answer(locate)
    await request.gateway.owners.remember(
        [
            possession
            for item in items
            if not item.is_shared
            and (possession := Sighting(item.id).possession(kind, item.account_id))
        ]
    )
    return body


async def watched(
    content: AsyncIterator[bytes],
    served: Served,
    owners: Owners,
    account_id: int,
    *,
    is_thread: bool,
) -> AsyncIterator[bytes]:
    """Return the content of a message; what it shows is stored before it leaves."""
    if served.frames is not None:
        return _watched_frames(content, owners, account_id, is_thread=is_thread)
    if _is_whole(served):
        now = datetime.now(UTC)
        await owners.remember(
            sightings.in_message(served.start, account_id, now, is_thread=is_thread)
        )
    return content


async def _watched_frames(
    content: AsyncIterator[bytes], owners: Owners, account_id: int, *, is_thread: bool
) -> AsyncIterator[bytes]:
    async with aclosing(cast(AsyncGenerator[bytes], content)):
        async for frames in content:
            now = datetime.now(UTC)
            await owners.remember(
                sightings.in_frames(frames, account_id, now, is_thread=is_thread)
            )
            yield frames


async def _references(body: Body) -> list[str]:
    """Find the ids that a body of any size names."""
    if isinstance(body, FileBody):
        found = await body.find_all(REFERENCE, limit=MOST_REFERENCES + 1)
    else:
        found = set(REFERENCE.findall(body))
    if len(found) > MOST_REFERENCES:
        raise errors.too_many_references(MOST_REFERENCES)
    return sorted(match.decode("ascii") for match in found)


async def _owner_of(
    request: GatewayRequest, key: KnownKey, kind: ObjectKind, object_id: str
) -> int:
    """Return who has an object; who is not known to is asked.

    Errors: RequestRefusedError (404) if nobody has it, NoAccountAvailableError if that
    could not be found out.
    """
    gateway = request.gateway
    accounts = gateway.snapshot.contents.accounts
    known = await gateway.owners.find([object_id], accounts)
    if object_id in known:
        return known[object_id]
    in_use = selection.in_use(accounts)
    if gateway.owners.is_missed(object_id, in_use):
        raise errors.object_not_found(kind, object_id)
    try:
        # For all of them together: each alone may take as long.
        async with asyncio.timeout(conf.request_timeout.total_seconds()):
            owner_id = await _search(request, key, kind, object_id, in_use)
    except TimeoutError:
        raise errors.object_not_looked_up(kind, object_id) from None
    if owner_id is None:
        gateway.owners.note_miss(object_id, in_use)
        raise errors.object_not_found(kind, object_id)
    return owner_id


async def _search(
    request: GatewayRequest,
    key: KnownKey,
    kind: ObjectKind,
    object_id: str,
    accounts: Sequence[PooledAccount],
) -> int | None:
    """Ask one account after another for an object; None if none of them has it.

    Errors: NoAccountAvailableError if one of them, who may have it, could not be asked.
    """
    are_all_asked = True
    for account in accounts:
        try:
            found = await _look_at(request, key, kind, object_id, account.id)
        except ClaudeProxyError:
            are_all_asked = False
            continue
        if found is not None:
            endpoint = endpoints.of_object(kind, object_id)[0]
            await _remember(request, endpoint, account.id, [found])
            return account.id
    if not are_all_asked:
        raise errors.object_not_looked_up(kind, object_id)
    return None


async def _look_at(
    request: GatewayRequest,
    key: KnownKey,
    kind: ObjectKind,
    object_id: str,
    account_id: int,
) -> Sighting | None:
    """Ask an account for an object; None if it has none of this id.

    Errors: ClaudeProxyError if it could not be asked.
    """
    endpoint, path = endpoints.of_object(kind, object_id)
    ask = Ask(
        *(endpoint, key, RequestFacts(), b""),
        pin=Pin(account_id, object_id),
        method="GET",
        target=path,
    )
    served = await Attempts(request, ask).run()
    status = served.reply.status
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        raise errors.object_not_looked_up(kind, object_id)
    if status >= HTTPStatus.BAD_REQUEST:
        return None  # not there, or not for this account, which then has none
    found = sightings.read_object(served.start) if _is_whole(served) else None
    if found is None:
        raise MalformedReplyError(Stage.ANSWER_BEGUN, "an object without an id")
    return found


async def _place_of(
    request: GatewayRequest, key: KnownKey, kind: ObjectKind, object_id: str
) -> Place:
    if not endpoints.is_object_id(object_id):
        raise errors.object_not_found(kind, object_id[:200])
    owner_id = await _owner_of(request, key, kind, object_id)
    found = await _look_at(request, key, kind, object_id, owner_id)
    if found is None or found.created_at is None:
        await request.gateway.owners.forget(kind, object_id, owner_id)
        raise errors.object_not_found(kind, object_id)
    return Place(object_id, found.created_at, owner_id)


async def _remember(
    request: GatewayRequest,
    endpoint: Endpoint,
    account_id: int,
    found: Sequence[Sighting],
) -> None:
    kind = _kind_of(endpoint)
    possessions = [sighting.possession(kind, account_id) for sighting in found]
    await request.gateway.owners.remember([p for p in possessions if p is not None])


def _is_whole(served: Served) -> bool:
    return served.reply.status < HTTPStatus.BAD_REQUEST and served.rest is None


def _kind_of(endpoint: Endpoint) -> ObjectKind:
    if endpoint.kind is None:
        raise ValueError(f"{endpoint.name} is about no object")
    return endpoint.kind


def _object_of(request: GatewayRequest, endpoint: Endpoint) -> tuple[ObjectKind, str]:
    return _kind_of(endpoint), endpoint.object_id(request.scope["raw_path"])
