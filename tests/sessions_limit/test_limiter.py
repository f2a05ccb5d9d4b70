"""One worker's limiter, before each of the stores."""

import asyncio
import contextlib
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from structlog.testing import capture_logs

from claudeproxy import db
from sessions_limit import backends, limiter
from sessions_limit.backends.base import StoreAwayError
from sessions_limit.backends.database import DatabaseBackend
from sessions_limit.backends.redis import RedisBackend
from sessions_limit.errors import (
    SessionBlockedError,
    SessionBusyError,
    SessionLimitReachedError,
    SessionStoreAwayError,
)
from sessions_limit.keys import GLOBAL, Scope
from sessions_limit.limiter import Admission, Limiter, Rules, Unlimited
from tests.sessions_limit import stores
from tests.sessions_limit.stores import TTL, alive, client_named, session_id

MINUTE = timedelta(minutes=1)
SHARED = Scope(GLOBAL, 3)


class Watched:
    """A store that counts what it is asked, and can be away."""

    def __init__(self, backend: Any) -> None:
        self.backend = backend
        self.calls: list[str] = []
        self.is_away = False

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def ask(*args: Any, **options: Any) -> Any:
            self.calls.append(name)
            if self.is_away:
                raise StoreAwayError("OperationalError")
            return getattr(self.backend, name)(*args, **options)

        return ask


class Worker:
    """A limiter whose clock goes with that of the store, and what it cut."""

    def __init__(self, backend: Any, max_requests: int = 0) -> None:
        self.store = Watched(backend)
        self.limiter = Limiter(
            self.store,
            Rules(TTL, max_requests),
            run=partial(_run, backend),
            clock=lambda: 1000.0 + backend.offset.total_seconds(),
        )
        self.cut: list[str] = []

    async def admit(self, name: str, scope: Scope = SHARED) -> Admission:
        return await self.limiter.admit(
            client_named(name), scope, lambda: self.cut.append(name)
        )

    async def call(self, *names: str) -> None:
        """Requests that are over at once."""
        for name in names:
            (await self.admit(name)).release()

    async def step(self) -> None:
        await self.limiter.step()
        self.store.calls.clear()


def _run(backend: Any, work: Callable[[], Any]) -> Any:
    return (db.run_long if isinstance(backend, RedisBackend) else db.run)(work)


@pytest.fixture
def worker(backend: Any) -> Worker:
    return Worker(backend)


@pytest.fixture
def other(backend: Any) -> Worker:
    return Worker(backend)


async def listed(backend: Any) -> list[str]:
    return await db.run(partial(alive, backend))


async def revoke(backend: Any, name: str, **options: Any) -> None:
    assert await db.run(partial(backend.revoke, session_id(name), **options))


# --- getting in


async def test_a_known_session_asks_nobody_and_waits_for_nothing(worker):
    await worker.call("a")
    worker.store.calls.clear()
    admission = worker.admit("a")
    with pytest.raises(StopIteration):
        admission.send(None)  # it never gave the event loop back

    assert worker.store.calls == []


async def test_requests_that_come_together_ask_once(worker):
    await asyncio.gather(*(worker.admit("a") for _ in range(50)))

    assert worker.store.calls == ["acquire"]


async def test_one_session_too_many_hears_when_and_what_to_do(worker):
    await worker.call("a", "b", "c")
    with pytest.raises(SessionLimitReachedError) as caught:
        await worker.admit("d")
    error = caught.value

    assert (error.http_status, error.error_type) == (429, "rate_limit_error")
    assert error.retry_after is not None
    assert TTL - 10 * stores.SECOND < error.retry_after <= TTL
    assert error.should_retry is False
    assert "3 at a time" in str(error)
    assert "SESSION_MAX_CONCURRENT" in str(error)
    assert "close a client" in str(error)


async def test_a_wait_that_sdks_may_sleep_out_is_theirs_to_decide(backend, worker):
    await worker.call("a", "b", "c")
    backend.offset = TTL - 30 * stores.SECOND
    with pytest.raises(SessionLimitReachedError) as caught:
        await worker.admit("d")

    assert caught.value.should_retry is None


async def test_a_key_hears_of_its_own_limit(worker):
    own = Scope("key:7", 1)
    await worker.admit("a", own)
    with pytest.raises(SessionLimitReachedError, match="limit of this client key"):
        await worker.admit("b", own)


async def test_who_knocks_without_pause_does_not_burden_the_store(backend, worker):
    await worker.call("a", "b", "c")
    worker.store.calls.clear()
    for _ in range(20):
        with pytest.raises(SessionLimitReachedError):
            await worker.admit("d")
    assert worker.store.calls == ["acquire"]

    backend.offset = 2 * stores.SECOND
    with pytest.raises(SessionLimitReachedError):
        await worker.admit("d")
    assert worker.store.calls == ["acquire"] * 2


async def test_a_session_of_another_worker_is_let_in(worker, other):
    await other.call("a", "b", "c")

    await worker.call("a")


# --- staying in


async def test_a_session_that_called_is_prolonged_by_the_next_step(backend, worker):
    await worker.call("a")
    await worker.step()
    backend.offset = 4 * MINUTE
    await worker.call("a")
    await worker.step()
    backend.offset = 8 * MINUTE

    assert await listed(backend) == ["a"]


async def test_a_session_that_does_not_call_ends(backend, worker):
    await worker.call("a")
    for minutes in range(1, 6):
        backend.offset = minutes * MINUTE
        await worker.step()

    assert await listed(backend) == []
    assert len(worker.limiter) == 0


async def test_a_running_request_keeps_its_session_alive(backend, worker):
    admission = await worker.admit("a")
    for minutes in range(1, 20):
        backend.offset = minutes * MINUTE
        await worker.step()
    assert await listed(backend) == ["a"]

    admission.release()
    await worker.step()
    backend.offset += TTL - 2 * stores.SECOND
    assert await listed(backend) == ["a"]


async def test_a_worker_believes_in_no_lease_that_the_store_has_ended(backend, worker):
    await worker.call("a")
    await worker.step()
    worker.store.calls.clear()
    backend.offset = TTL - 6 * stores.SECOND
    await worker.call("a")
    assert worker.store.calls == []

    await worker.step()
    backend.offset += TTL - 4 * stores.SECOND
    await worker.call("a")
    assert worker.store.calls == ["acquire"]


async def test_a_session_that_lost_its_place_goes_on_and_asks_again(
    backend, worker, other
):
    running = await worker.admit("a")
    backend.offset = TTL
    await other.call("b", "c", "d")
    await worker.step()
    assert worker.cut == []
    with pytest.raises(SessionLimitReachedError):
        await worker.admit("a")

    await revoke(backend, "d")
    await worker.step()
    assert await listed(backend) == ["a", "b", "c"]
    running.release()


async def test_what_a_session_did_is_told(backend, worker, other):
    with await worker.admit("a") as admission:
        admission.note_account("ada")
        admission.note_account("grace")
        admission.note_account("ada")
        await other.admit("a")
        await worker.step()
        await other.step()
        (shown,) = await db.run(backend.live)
        assert (shown.requests, shown.in_flight) == (2, 2)
        assert shown.account_names == ("ada", "grace")
        assert admission.session_id == shown.id
    await worker.limiter.aclose()
    (shown,) = await db.run(backend.live)

    assert (shown.requests, shown.in_flight) == (2, 1)


async def test_a_request_that_is_released_twice_counts_once(worker):
    one, two = await worker.admit("a"), await worker.admit("a")
    one.release()
    one.release()
    await worker.step()
    (shown,) = await db.run(worker.store.backend.live)

    assert shown.in_flight == 1
    two.release()


async def test_strangers_leave_nothing_in_memory(backend, worker):
    await worker.call("a", "b", "c")
    for number in range(50):
        with pytest.raises(SessionLimitReachedError):
            await worker.admit(f"stranger-{number}")
    backend.offset = stores.SECOND
    await worker.step()

    assert len(worker.limiter) == 3


# --- having to go


async def test_a_session_revoked_elsewhere_is_cut_at_the_next_step(backend, worker):
    first, second = await worker.admit("a"), await worker.admit("a")
    await worker.call("b", "c")
    await revoke(backend, "a", block=timedelta(hours=1))
    with capture_logs() as lines:
        await worker.step()
    await worker.step()

    assert worker.cut == ["a", "a"]
    assert [line["event"] for line in lines] == ["session_cut"]
    assert lines[0]["requests"] == 2
    await worker.call("d")
    first.release()
    second.release()
    with pytest.raises(SessionBlockedError, match="come back in 1h") as caught:
        await worker.admit("a")
    assert (caught.value.http_status, caught.value.should_retry) == (403, False)


async def test_a_session_that_came_back_is_not_cut_again(backend, worker, other):
    old = await worker.admit("a")
    idle = other
    await idle.call("a")
    await revoke(backend, "a")
    await worker.step()
    old.release()
    new = await worker.admit("a")
    await worker.step()
    await idle.step()
    await worker.step()

    assert worker.cut == ["a"]
    assert await listed(backend) == ["a"]
    new.release()


async def test_a_revocation_beats_the_renewals_of_those_who_have_not_heard(
    backend, worker
):
    running = await worker.admit("a")

    def revoke_first(work: Callable[[], Any]) -> Any:
        def both() -> Any:
            backend.revoke(session_id("a"))
            return work()

        return _run(backend, both)

    worker.limiter._run = revoke_first
    await worker.limiter._renew([worker.limiter._sessions[session_id("a")]])

    assert worker.cut == ["a"]
    assert await listed(backend) == []
    running.release()


# --- a bound on requests


@pytest.fixture
def bounded(backend: Any) -> Any:
    return [Worker(backend, max_requests=2) for _ in range(2)]


async def test_requests_of_a_session_are_bounded_over_all_workers(bounded):
    one, two = bounded
    first = await one.admit("a")
    second = await two.admit("a")
    for worker in bounded:
        with pytest.raises(SessionBusyError, match="2 requests") as caught:
            await worker.admit("a")
        assert caught.value.http_status == 429

    first.release()
    await asyncio.wait(one.limiter._reports)
    third = await two.admit("a")
    for admission in (second, third):
        admission.release()
    await two.limiter.aclose()


async def test_of_requests_that_come_together_as_many_as_may_begin(bounded):
    one, two = bounded
    tries = [worker.admit("a") for worker in (one, two) * 10]
    results = await asyncio.gather(*tries, return_exceptions=True)
    begun = [it for it in results if isinstance(it, Admission)]

    assert len(begun) == 2
    for admission in begun:
        admission.release()
    await one.limiter.aclose()
    await two.limiter.aclose()
    await asyncio.gather(one.admit("a"), two.admit("a"))


async def test_a_request_whose_caller_left_meanwhile_is_not_counted(backend, bounded):
    one, _ = bounded
    running = await one.admit("a")
    leaving = asyncio.create_task(one.admit("a"))
    await asyncio.sleep(0)
    leaving.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await leaving
    for _ in range(100):  # what it asked has been done by then
        await _run(backend, backend.news)
    await one.step()

    (await one.admit("a")).release()
    running.release()
    await one.limiter.aclose()


# --- a store that is away


async def test_while_the_store_is_away_known_sessions_go_on_and_others_wait(
    backend, worker
):
    running = await worker.admit("a")
    await worker.step()
    worker.store.is_away = True
    with capture_logs() as lines:
        for _ in range(3):
            await worker.step()
        await worker.call("a")
        with pytest.raises(SessionStoreAwayError) as caught:
            await worker.admit("b")
    assert (caught.value.http_status, caught.value.error_type) == (503, "api_error")
    assert caught.value.retry_after == timedelta(seconds=2)
    assert [line["event"] for line in lines] == ["session_store_away"]

    backend.offset = TTL
    with pytest.raises(SessionStoreAwayError):
        await worker.admit("a")
    assert worker.cut == []
    worker.store.is_away = False
    await worker.step()
    assert await listed(backend) == ["a"]
    running.release()


async def test_what_was_done_while_the_store_was_away_is_told_afterwards(
    backend, worker
):
    await worker.call("a")
    worker.store.is_away = True
    await worker.call("a", "a")
    await worker.step()
    worker.store.is_away = False
    await worker.call("a")
    await worker.step()
    (shown,) = await db.run(backend.live)

    assert shown.requests == 4


async def test_newcomers_do_not_queue_for_a_store_that_is_away(worker):
    worker.store.is_away = True
    await worker.step()
    worker.store.calls.clear()
    with pytest.raises(SessionStoreAwayError):
        await worker.admit("a")
    assert worker.store.calls == []

    worker.store.is_away = False
    await worker.step()
    await worker.call("a")


async def test_a_store_that_forgot_everything_gives_known_sessions_their_places(
    words, backend
):
    if "redis" not in words:
        pytest.skip("a database does not forget")
    with stores.opened(words, settling=timedelta(seconds=0.3)) as forgetful:
        worker, newcomer = Worker(forgetful), Worker(forgetful)
        await worker.call("a", "b", "c")
        await worker.step()
        await worker.step()  # nothing is left to tell
        stores.forget(forgetful._redis, words["prefix"])

        knocking = asyncio.create_task(newcomer.admit("d"))
        await asyncio.sleep(0.05)
        await worker.step()
        with pytest.raises(SessionLimitReachedError):
            await knocking
        assert await listed(forgetful) == ["a", "b", "c"]


async def test_a_redis_that_does_not_answer_is_away():
    backend = RedisBackend("redis://:s3cret@127.0.0.1:1/0", ttl=TTL)
    with pytest.raises(StoreAwayError) as caught:
        await db.run_long(backend.news)

    assert str(caught.value) == "ConnectionError"


# --- what the settings ask for


def test_without_a_limit_everybody_gets_in(settings):
    settings.SESSION_ENABLED = False
    free = limiter.from_settings()
    assert isinstance(free, Unlimited)

    async def use() -> None:
        scope = Scope(GLOBAL, 1)
        with await free.admit(client_named("a"), scope, lambda: None) as admission:
            admission.note_account("ada")
        await free.step()
        await free.aclose()

    asyncio.run(use())


def test_redis_keeps_the_sessions_if_there_is_one(settings):
    assert isinstance(backends.from_settings(), DatabaseBackend)
    settings.REDIS_URL = "redis://127.0.0.1:6379/0"
    assert isinstance(backends.from_settings(), RedisBackend)
    assert isinstance(limiter.from_settings(), Limiter)
