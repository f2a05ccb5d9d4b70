"""One worker's view of the sessions: who is in, who gets in, who has to go.

A session that the worker knows to be alive costs no query and no pause: a look into a
dictionary. What it did is told to the store every second, which keeps it alive. A lease
is believed in for less long than the store keeps it, by more than that rhythm: whatever
is let in on it is renewed before it ends.

While the store is away, known sessions go on until their leases end; nobody else gets
in, and no running request is cut. Every second the worker also hears which sessions
were revoked, cuts their requests, and lets them in again only if the store does.
"""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from types import TracebackType
from typing import Protocol, TypeVar

import structlog

from claudeproxy import db
from claudeproxy.conf import conf
from sessions_limit import backends
from sessions_limit.backends.base import (
    Backend,
    Entered,
    Entry,
    Hold,
    News,
    Obstacle,
    Refused,
    Renewal,
    Standing,
    StoreAwayError,
)
from sessions_limit.errors import (
    SessionBlockedError,
    SessionBusyError,
    SessionError,
    SessionLimitReachedError,
    SessionStoreAwayError,
)
from sessions_limit.keys import Client, Scope, SessionId

_log = structlog.get_logger(__name__)

T = TypeVar("T")

# How often `Limiter.step` must run for a revocation to be heard of within a second.
INTERVAL_SECONDS = 0.8
# So much sooner than the store a worker takes a lease for ended.
_MARGIN = timedelta(seconds=5)
_MOST_SETTLING = 3


class Runner(Protocol):
    """Does blocking work beside the event loop, as `db.run_apart` does."""

    def __call__(self, work: Callable[[], T], /) -> Awaitable[T]: ...


@dataclass(frozen=True, slots=True)
class Rules:
    """What holds for every session."""

    ttl: timedelta
    max_requests: int = 0


@dataclass(eq=False, slots=True)
class Session:
    """What the worker knows of one session."""

    id: SessionId
    client: Client
    scope: Scope
    # Of the lease it has or had; None: it never got in through this worker.
    generation: int | None = None
    known_until: float = float("-inf")
    # Since the last renewal:
    used_at: float | None = None
    requests: int = 0
    account_names: list[str] = field(default_factory=list)
    admissions: set["Admission"] = field(default_factory=set)
    # One question to the store at a time; others wait for what it brings.
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    asking: int = 0
    refusal: Refused | None = None
    refused_until: float = float("-inf")

    @property
    def is_due(self) -> bool:
        """Is there anything to tell the store?"""
        is_active = self.used_at is not None or bool(self.admissions)
        return is_active and self.generation is not None

    def end(self) -> None:
        """The lease is void: the next request has to ask for another."""
        self.generation, self.known_until = None, float("-inf")


class Admission:
    """The right of one request to run; give it back with `release`."""

    __slots__ = ("_limiter", "_on_revoked", "_session")

    def __init__(
        self, limiter: "Limiter", session: Session, on_revoked: Callable[[], None]
    ) -> None:
        self._limiter = limiter
        self._session = session
        self._on_revoked = on_revoked

    @property
    def session_id(self) -> SessionId:
        return self._session.id

    def note_account(self, name: str) -> None:
        """Remember which account serves, for the operator's list."""
        names = self._session.account_names
        if name in names:
            names.remove(name)
        names.insert(0, name)

    def release(self) -> None:
        """The request has ended; said twice, it counts once."""
        self._limiter.release(self._session, self)

    def revoke(self) -> None:
        """Cut the request."""
        self._on_revoked()

    def __enter__(self) -> "Admission":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()


class Limiter:
    """Admits requests, for one worker."""

    def __init__(
        self,
        backend: Backend,
        rules: Rules,
        *,
        run: Runner = db.run_apart,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._backend = backend
        self._rules = rules
        self._run = run
        self._clock = clock
        self._margin = min(_MARGIN, rules.ttl / 2)
        self._worker = secrets.token_hex(4)
        self._sequence = 0
        self._sessions: dict[SessionId, Session] = {}
        self._epoch: str | None = None
        self._reports: set[asyncio.Task[None]] = set()
        self._is_store_away = False

    def __len__(self) -> int:
        """How many sessions the worker remembers."""
        return len(self._sessions)

    async def admit(
        self, client: Client, scope: Scope, on_revoked: Callable[[], None]
    ) -> Admission:
        """Let a request in, or raise the SessionError that says why not.

        `on_revoked` is called once, on the event loop, if an operator ends the session
        while the request runs.
        """
        session = self._recall(client, scope)
        # With a bound on its requests, each has to be counted where all workers look.
        if not self._rules.max_requests and session.known_until > self._clock():
            return self._let_in(session, on_revoked)
        session.asking += 1
        try:
            async with session.lock:
                if self._rules.max_requests or session.known_until <= self._clock():
                    await self._enter(session)
                return self._let_in(session, on_revoked)
        finally:
            session.asking -= 1

    def release(self, session: Session, admission: Admission) -> None:
        """A request of the session has ended; see `Admission.release`."""
        if admission not in session.admissions:
            return
        session.admissions.remove(admission)
        session.used_at = self._clock()  # it is alive for one TTL from now
        if self._rules.max_requests:
            # Others wait for its place, so it is told at once.
            report = asyncio.create_task(self._report(session))
            self._reports.add(report)
            report.add_done_callback(self._reports.discard)

    async def step(self) -> None:
        """Hear what was revoked, renew what is in use, forget the rest."""
        try:
            await self._hear(await self._run(self._backend.news))
            await self._renew([s for s in self._sessions.values() if s.is_due])
        except StoreAwayError as error:
            self._note_away(error)
        else:
            self._note_back()
        self._forget()

    async def aclose(self) -> None:
        """Tell the store what it has not heard yet."""
        if self._reports:
            await asyncio.wait(self._reports)
        await self.step()

    # --- getting in

    def _recall(self, client: Client, scope: Scope) -> Session:
        session_id = SessionId(scope.name, client.digest)
        session = self._sessions.get(session_id)
        if session is None:
            session = self._sessions[session_id] = Session(session_id, client, scope)
        else:
            session.client, session.scope = client, scope  # names and limits change
        return session

    def _let_in(self, session: Session, on_revoked: Callable[[], None]) -> Admission:
        admission = Admission(self, session, on_revoked)
        session.admissions.add(admission)
        session.used_at = self._clock()
        session.requests += 1
        return admission

    async def _enter(self, session: Session) -> None:
        """Ask the store for a lease; raises if there is none to be had."""
        if session.refusal is not None and self._clock() < session.refused_until:
            raise self._error(session, session.refusal)
        for _ in range(_MOST_SETTLING):
            began = self._clock()
            answer = await self._ask(session)
            if isinstance(answer, Entered):
                session.generation = answer.generation
                self._believe(session, began, self._rules.ttl)
                return
            if answer.why is not Obstacle.SETTLING:
                raise self._refuse(session, answer)
            await asyncio.sleep(answer.wait.total_seconds())
        raise SessionStoreAwayError

    async def _ask(self, session: Session) -> Entered | Refused:
        if self._is_store_away:
            # The next step finds out whether it is back. If everybody waited for it,
            # the queue would grow for as long as it is away.
            raise SessionStoreAwayError
        entry = Entry(
            id=session.id,
            client=session.client,
            limit=session.scope.limit,
            ttl=self._rules.ttl,
            hold=self._hold(session, more=1),
            max_requests=self._rules.max_requests,
        )
        # Should this end here without an answer, the count there is one too high.
        session.used_at = self._clock()
        try:
            return await self._run(partial(self._backend.acquire, entry))
        except StoreAwayError as error:
            self._note_away(error)
            raise SessionStoreAwayError from error

    def _refuse(self, session: Session, refused: Refused) -> SessionError:
        """Put the refusal into words; it counts until something can have changed."""
        # Places become free when a lease ends, or by a revocation, which is heard of
        # at every step. A client that knocks without pause does not burden the store.
        pause = min(INTERVAL_SECONDS, refused.wait.total_seconds())
        session.refusal, session.refused_until = refused, self._clock() + pause
        return self._error(session, refused)

    def _error(self, session: Session, refused: Refused) -> SessionError:
        match refused.why:
            case Obstacle.FULL:
                ttl = self._rules.ttl
                return SessionLimitReachedError(session.scope, ttl, refused.wait)
            case Obstacle.BLOCKED:
                return SessionBlockedError(refused.wait)
            case _:
                return SessionBusyError(self._rules.max_requests)

    # --- staying in

    async def _report(self, session: Session) -> None:
        try:
            await self._renew([session] if session.is_due else [])
        except StoreAwayError as error:
            self._note_away(error)  # the next step tells it

    async def _renew(self, sessions: list[Session]) -> None:
        if not sessions:
            return
        began = self._clock()
        used = [session.used_at for session in sessions]
        renewals = [self._renewal(session, began) for session in sessions]
        try:
            standings = await self._run(partial(self._backend.renew, renewals))
        except BaseException:
            for session, renewal, used_at in zip(sessions, renewals, used, strict=True):
                if session.used_at is None:
                    session.used_at = used_at
                session.requests += renewal.requests
                names = (*session.account_names, *renewal.account_names)
                session.account_names = list(dict.fromkeys(names))
            raise
        for session, renewal, standing in zip(
            sessions, renewals, standings, strict=True
        ):
            self._settle(session, renewal, standing, began)

    def _renewal(self, session: Session, now: float) -> Renewal:
        """Say what the session did; after that it has done nothing."""
        renewal = Renewal(
            id=session.id,
            client=session.client,
            limit=session.scope.limit,
            lifetime=self._lifetime(session, now),
            hold=self._hold(session),
            generation=session.generation or 0,
            requests=session.requests,
            account_names=tuple(session.account_names),
        )
        session.used_at, session.requests, session.account_names = None, 0, []
        return renewal

    def _lifetime(self, session: Session, now: float) -> timedelta:
        """How long the session has to live, if it does nothing more."""
        if session.admissions:
            return self._rules.ttl
        if session.used_at is None:
            left = timedelta(seconds=session.known_until - now) + self._margin
        else:
            left = timedelta(seconds=session.used_at - now) + self._rules.ttl
        return max(left, timedelta())

    def _settle(
        self, session: Session, renewal: Renewal, standing: Standing, began: float
    ) -> None:
        if session.generation != renewal.generation:
            return  # it ended, and perhaps got in again, meanwhile
        match standing:
            case Standing.ALIVE:
                self._believe(session, began, renewal.lifetime)
            case Standing.LOST:
                # What runs goes on, and asks for a place again at every renewal.
                session.known_until = float("-inf")
            case Standing.REVOKED:
                self._end(session)

    def _believe(self, session: Session, began: float, lifetime: timedelta) -> None:
        """The store keeps the lease for so long, from *began* on at the earliest."""
        until = began + (lifetime - self._margin).total_seconds()
        session.known_until = max(session.known_until, until)

    def _hold(self, session: Session, more: int = 0) -> Hold:
        self._sequence += 1
        return Hold(self._worker, len(session.admissions) + more, self._sequence)

    # --- having to go

    async def _hear(self, news: News) -> None:
        for revocation in news.revocations:
            session = self._sessions.get(revocation.id)
            if (
                session is not None
                and session.generation is not None
                and session.generation < revocation.generation
            ):
                self._end(session)
        if news.epoch != self._epoch:
            # The store has lost its leases, or is met for the first time.
            now = self._clock()
            await self._renew(
                [s for s in self._sessions.values() if s.known_until > now]
            )
            self._epoch = news.epoch

    def _end(self, session: Session) -> None:
        session.end()
        if session.admissions:
            _log.info(
                "session_cut",
                scope=session.id.scope,
                session=session.id.digest,
                requests=len(session.admissions),
            )
        for admission in tuple(session.admissions):
            admission.revoke()

    def _forget(self) -> None:
        now = self._clock()
        for session in tuple(self._sessions.values()):
            is_over = max(session.known_until, session.refused_until) <= now
            # What called while the store was away has still to be told.
            is_told = not (session.is_due and self._is_store_away)
            if is_over and is_told and not session.admissions and not session.asking:
                del self._sessions[session.id]

    def _note_away(self, error: StoreAwayError) -> None:
        if not self._is_store_away:
            _log.warning("session_store_away", error=str(error))
        self._is_store_away = True

    def _note_back(self) -> None:
        if self._is_store_away:
            _log.info("session_store_back")
        self._is_store_away = False


class Unlimited:
    """Stands where a `Limiter` would if SESSION_ENABLED is off: admits everybody."""

    async def admit(
        self, client: Client, scope: Scope, on_revoked: Callable[[], None]
    ) -> "Pass":
        return PASS

    async def step(self) -> None:
        """There is nothing to tell."""

    async def aclose(self) -> None:
        """There is nothing to tell."""


class Pass:
    """An `Admission` of nobody's session."""

    session_id = None

    def note_account(self, name: str) -> None:
        """Nobody looks."""

    def release(self) -> None:
        """Nobody waits."""

    def __enter__(self) -> "Pass":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


PASS = Pass()


def from_settings() -> Limiter | Unlimited:
    """Return the limiter that the settings ask for; the caller runs its steps."""
    if not conf.session_enabled:
        return Unlimited()
    rules = Rules(conf.session_ttl, conf.session_max_requests)
    return Limiter(backends.from_settings(), rules)
