"""The database's store, step by step against a model that is too simple to be wrong."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from django.db import connections
from django.utils import timezone
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from sessions_limit.backends import dialects
from sessions_limit.backends.base import Entered, Obstacle, Refused, Standing
from sessions_limit.backends.database import DatabaseBackend
from sessions_limit.models import ClientSession, SessionScope
from tests.sessions_limit.stores import (
    TTL,
    alive,
    enter,
    renew,
    session_id,
)

LIMIT = 2
NAMES = st.sampled_from("abcd")
SPANS = st.sampled_from([1, 60, 299, 300, 301, 3600]).map(
    lambda seconds: timedelta(seconds=seconds)
)


@dataclass
class Known:
    """What the model knows of a session; times are of a clock that only goes on."""

    ends_at: timedelta = timedelta()
    generation: int = 0
    blocked_until: timedelta = timedelta()
    is_stored: bool = False


class Sessions(RuleBasedStateMachine):
    """Time stands still but for the steps that move it."""

    alias: str

    def __init__(self) -> None:
        super().__init__()
        self.backend = DatabaseBackend(self.alias)
        self.now = timedelta(days=1)  # of the model: what really has passed
        self.sessions = {name: Known() for name in "abcd"}

    @initialize()
    def empty(self) -> None:
        ClientSession.objects.using(self.alias).all().delete()
        SessionScope.objects.using(self.alias).all().delete()

    def living(self) -> list[str]:
        return [name for name, it in self.sessions.items() if it.ends_at > self.now]

    @rule(name=NAMES)
    def acquire(self, name: str) -> None:
        it, living = self.sessions[name], self.living()
        answer = enter(self.backend, name, limit=LIMIT)
        if it.blocked_until > self.now:
            assert answer == Refused(Obstacle.BLOCKED, it.blocked_until - self.now)
        elif name in living or len(living) < LIMIT:
            assert answer == Entered(it.generation)
            # One that may live for longer already does.
            it.ends_at = max(it.ends_at, self.now + TTL)
            it.is_stored = True
        else:
            first = min(self.sessions[other].ends_at for other in living)
            assert answer == Refused(Obstacle.FULL, first - self.now)

    @rule(name=NAMES, lifetime=SPANS)
    def renew(self, name: str, lifetime: timedelta) -> None:
        it, living = self.sessions[name], self.living()
        if not it.is_stored:
            return
        standing = renew(
            self.backend,
            name,
            limit=LIMIT,
            lifetime=lifetime,
            generation=it.generation,
        )
        if name in living or len(living) < LIMIT:
            assert standing is Standing.ALIVE
            if name not in living:
                # Who knows of the revocation was let in after it: the block is over.
                it.blocked_until = timedelta()
            it.ends_at = max(it.ends_at, self.now + lifetime)
        else:
            assert standing is Standing.LOST

    @rule(name=NAMES)
    def renew_without_having_heard(self, name: str) -> None:
        it = self.sessions[name]
        if it.generation:
            late = it.generation - 1
            assert renew(self.backend, name, generation=late) is Standing.REVOKED

    @rule(name=NAMES, block=st.none() | SPANS)
    def revoke(self, name: str, block: timedelta | None) -> None:
        it = self.sessions[name]
        assert self.backend.revoke(session_id(name), block=block) is it.is_stored
        if it.is_stored:
            it.generation += 1
            it.ends_at = min(it.ends_at, self.now)
            it.blocked_until = self.now + (block or timedelta())

    @rule(span=SPANS)
    def wait(self, span: timedelta) -> None:
        self.now += span
        self.backend.offset += span

    @precondition(lambda self: all(not it.generation for it in self.sessions.values()))
    @rule(span=SPANS)
    def clock_is_set_back(self, span: timedelta) -> None:
        # Whatever looks at the scope before and after sees how far.
        self.backend.revoke(session_id("nobody"))
        self.backend.offset -= span
        self.backend.revoke(session_id("nobody"))

    @precondition(lambda self: not any(it.generation for it in self.sessions.values()))
    @rule()
    def prune(self) -> None:
        self.backend.prune()
        for it in self.sessions.values():
            it.is_stored = it.is_stored and it.ends_at > self.now

    @invariant()
    def the_same_are_alive(self) -> None:
        assert alive(self.backend) == self.living()
        assert len(self.living()) <= LIMIT


@pytest.fixture
def stopped_clock(backend: Any, monkeypatch: Any) -> Iterator[None]:
    """Time stands still but for the backend's offset."""
    if connections[backend._using].vendor == "sqlite":
        stopped = timezone.now()
        monkeypatch.setattr(dialects.SQLite, "now", lambda _, offset: stopped + offset)
        yield
        return
    # PostgreSQL has a clock of its own, and looks here for it first.
    with connections[backend._using].cursor() as cursor:
        cursor.execute(
            "CREATE SCHEMA stopped; "
            "CREATE FUNCTION stopped.clock_timestamp() RETURNS timestamptz "
            "LANGUAGE sql AS $$ SELECT timestamptz '2026-11-26 12:00' $$; "
            "CREATE FUNCTION stopped.statement_timestamp() RETURNS timestamptz "
            "LANGUAGE sql STABLE AS $$ SELECT timestamptz '2026-11-26 12:00' $$; "
            "SET search_path TO stopped, pg_catalog, public"
        )
        yield
        cursor.execute("RESET search_path; DROP SCHEMA stopped CASCADE")


@pytest.mark.usefixtures("stopped_clock")
@pytest.mark.parametrize("words", ["sqlite", "postgres"], indirect=True)
def test_the_store_does_what_the_model_does(backend):
    machine = type("OnThisStore", (Sessions,), {"alias": backend._using})
    run_state_machine_as_test(
        machine, settings=settings(max_examples=40, stateful_step_count=25)
    )
