"""Two days of a team's requests, stored as the ledger stores them."""

import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone
from django_q.models import Task

from accounts import lifecycle
from accounts.models import Account
from accounts.status import AccountKind, AccountStatus
from clients.models import ClientKey
from tests.factories import make_account, make_client_key
from usage import pricing, rollups, rows, store
from usage.entries import Attempt, Finished
from usage.tokens import Tokens, Usage

# How busy the hours of a day are.
_MORNING = (2, 1, 1, 1, 2, 4, 9, 18, 30, 38, 40, 33)
_EVENING = (28, 36, 41, 39, 31, 22, 15, 12, 9, 7, 5, 3)
_HOURS = (*_MORNING, *_EVENING)
_BUSIEST = 75  # requests in an hour
_MODELS = {
    "claude-opus-5-5": (26, 1500),
    "claude-sonnet-5-5": (60, 800),
    "claude-haiku-5-5": (14, 300),
}
_KEYS = {
    "laptop of Alice": 34,
    "laptop of Bob": 27,
    "build server": 21,
    "nightly evaluations": 12,
    "support bot": 6,
}
# How a request ends, and how often out of a thousand.
_ENDS = {
    ("complete", 200): 948,
    ("complete", 400): 14,
    ("rejected", 429): 6,
    ("client_gone", 200): 20,
    ("upstream_error", 529): 9,
    ("truncated", 200): 3,
}


def fill(*, days: int = 2, seed: int = 5) -> None:
    """Make a pool and keys, and let them have served for so many days."""
    now = timezone.now()
    accounts = _make_accounts(now)
    keys = [make_client_key(name).row for name in _KEYS]
    pricing.sync()
    prices = pricing.load()
    made = list(_requests(accounts, keys, now, days, random.Random(seed)))  # noqa: S311
    store.insert([rows.of_finished(entry, prices) for entry in made])
    assert rollups.roll_up(seconds=60).is_done


def add(count: int) -> None:
    """Let so many more requests be served just now, not summed up yet."""
    account = Account.objects.filter(status=AccountStatus.ACTIVE)[0]
    key = ClientKey.objects.all()[0]
    rng = random.Random(count)  # noqa: S311
    now, prices = timezone.now(), pricing.load()
    made = [_request(rng, now, account, key) for _ in range(count)]
    store.insert([rows.of_finished(entry, prices) for entry in made])


def run_jobs() -> None:
    """Let a background job have ended well just now."""
    at = timezone.now()
    Task.objects.create(
        id="heartbeat",
        name="heartbeat",
        func="math.sqrt",
        success=True,
        started=at,
        stopped=at,
    )


def _make_accounts(now: datetime) -> list[Account]:
    organization: dict[str, Any] = {
        "organization_uuid": "7c2f0d5e-8d0b-4a4c-9d50-0f5a3c1be001",
        "organization_name": "Orbital Works",
    }
    plans = [
        make_account(
            f"plan of {name}",
            kind=AccountKind.OAUTH,
            holder=f"holder-{name}",
            last_used_at=now - timedelta(seconds=40),
            **organization,
        )
        for name in ("Ada", "Grace")
    ]
    key = make_account("console key", last_used_at=now - timedelta(minutes=3))
    _see_limits(plans[0], plans[1], key, now)
    old = make_account("key of last year", status=AccountStatus.INACTIVE)
    for account in (*plans, key, old):
        lifecycle.record_added(account, actor="admin", now=now - timedelta(days=9))
    lifecycle.limit(
        plans[1],
        until=now + timedelta(hours=1, minutes=42, seconds=30),
        actor="gateway",
        reason="five-hour limit reached",
        now=now - timedelta(minutes=11),
    )
    return [*plans, key]


def _see_limits(ada: Account, grace: Account, key: Account, now: datetime) -> None:
    hour, seen = timedelta(hours=1), {"seen_at": now}
    spans = (("5h", 0.42, hour), ("7d", 0.81, 70 * hour), ("7d_opus", 1.0, 70 * hour))
    for name, used, left in spans:
        ada.quota.create(name=name, utilization=used, resets_at=now + left, **seen)
    grace.quota.create(
        name="5h",
        utilization=0.98,
        status="rejected",
        resets_at=now - hour / 4,
        seen_at=now - hour,
    )
    key.quota.create(
        name="input-tokens",
        model_group="Sonnet 4.x",
        utilization=0.2,
        limit=450_000,
        remaining=360_000,
        resets_at=now + hour / 60,
        **seen,
    )


def _requests(
    accounts: list[Account],
    keys: list[ClientKey],
    now: datetime,
    days: int,
    rng: random.Random,
) -> Iterator[Finished]:
    hour = now.replace(minute=0, second=0, microsecond=0) - timedelta(days=days)
    while hour <= now:
        weight = _HOURS[hour.hour] / max(_HOURS) * rng.uniform(0.75, 1.25)
        for _ in range(round(_BUSIEST * weight)):
            at = hour + timedelta(seconds=rng.uniform(0, 3600))
            if at < now:
                yield _request(rng, at, rng.choice(accounts), _pick(rng, keys))
        hour += timedelta(hours=1)


def _pick(rng: random.Random, keys: list[ClientKey]) -> ClientKey:
    return rng.choices(keys, list(_KEYS.values()))[0]


def _request(
    rng: random.Random, at: datetime, account: Account, key: ClientKey
) -> Finished:
    end, status = rng.choices(list(_ENDS), list(_ENDS.values()))[0]
    model = rng.choices(list(_MODELS), [share for share, _ in _MODELS.values()])[0]
    first_byte = rng.lognormvariate(0, 0.45) * _MODELS[model][1]
    is_rejected = end == "rejected"
    failed = Attempt(account.name, "upstream", "upstream answered 529", 90.0)
    return Finished(
        request_id=f"req_{rng.getrandbits(96):024x}",
        started_at=at,
        endpoint="/v1/messages",
        key_id=key.pk,
        key_name=key.name,
        model_asked=model,
        is_stream=True,
        request_bytes=rng.randrange(2_000, 200_000),
        end_reason=end,
        status=status,
        duration_ms=first_byte + rng.lognormvariate(9, 0.6),
        first_byte_ms=None if is_rejected else first_byte,
        account_id=None if is_rejected else account.pk,
        account_name=None if is_rejected else account.name,
        account_kind=None if is_rejected else account.kind,
        attempts=(failed,) if rng.random() < 0.03 else (),
        answer_bytes=rng.randrange(500, 60_000),
        model_answered=model if status == 200 else None,
        usage=_usage(rng) if status == 200 else None,
    )


def _usage(rng: random.Random) -> Usage:
    return Usage(
        Tokens(
            input=rng.randrange(200, 4_000),
            read=int(rng.lognormvariate(10, 0.7)),
            write_5m=rng.randrange(500, 6_000),
            write_1h=rng.randrange(2_000) if rng.random() < 0.2 else 0,
            output=rng.randrange(100, 3_000),
        )
    )
