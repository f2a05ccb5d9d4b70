"""Fills the database with as many requests as are asked for, to measure with.

    DATABASE_URL=… python -m tests.usage.many 1000000 --days 90

Use a database of its own: rows are added to whatever is there.
"""

import argparse
import os
import random
import secrets
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice

import django
from django.core.management import call_command

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "claudeproxy.settings")
django.setup()

from usage import pricing, rollups, rows, store  # noqa: E402
from usage.entries import Attempt, Finished  # noqa: E402
from usage.tokens import Tokens, Usage  # noqa: E402

MODELS = (
    "claude-opus-5-5",
    "claude-sonnet-5-5",
    "claude-haiku-5-5",
    "claude-unheard-of",
)
ACCOUNTS, KEYS = 8, 20
# How a request ends, and how often out of a hundred.
ENDS = (
    (("complete", 200), 90),
    (("complete", 400), 3),
    (("client_gone", 200), 3),
    (("upstream_error", 503), 2),
    (("rejected", 429), 2),
)


def entries(count: int, days: int, seed: int) -> Iterator[Finished]:
    """Make requests up, spread over the days that end now, the oldest first."""
    rng = random.Random(seed)  # noqa: S311  # made up, not secret
    now = datetime.now(UTC)
    for number in range(count):
        (reason, status), *_ = rng.choices(
            [end for end, _ in ENDS], [share for _, share in ENDS]
        )
        account, key = rng.randrange(1, ACCOUNTS + 1), rng.randrange(1, KEYS + 1)
        model = rng.choice(MODELS)
        is_rejected = reason == "rejected"
        first_byte = rng.lognormvariate(6, 0.7)
        failed = Attempt(f"account-{account}", "upstream", "overloaded", 80.0)
        yield Finished(
            request_id=f"req_{secrets.token_hex(12)}",
            started_at=now - timedelta(days=days) * (1 - number / count),
            endpoint="/v1/messages",
            key_id=key,
            key_name=f"key-{key}",
            model_asked=model,
            is_stream=True,
            request_bytes=rng.randrange(1_000, 100_000),
            end_reason=reason,
            status=status,
            duration_ms=first_byte * rng.uniform(1, 20),
            first_byte_ms=None if is_rejected else first_byte,
            account_id=None if is_rejected else account,
            account_name=None if is_rejected else f"account-{account}",
            account_kind=None if is_rejected else ("oauth", "api_key")[account % 2],
            routing=None if is_rejected else "affinity",
            attempts=(failed,) if rng.random() < 0.05 else (),
            answer_bytes=rng.randrange(500, 50_000),
            model_answered=model if status == 200 else None,
            usage=_usage(rng) if status == 200 else None,
        )


def _usage(rng: random.Random) -> Usage:
    tokens = Tokens(
        input=rng.randrange(5_000),
        read=rng.randrange(50_000),
        write_5m=rng.randrange(5_000),
        output=rng.randrange(4_000),
    )
    return Usage(tokens)


def fill(count: int, *, days: int, seed: int = 1) -> None:
    """Store so many requests and sum them up."""
    prices = pricing.load()
    made = entries(count, days, seed)
    while batch := [rows.of_finished(it, prices) for it in islice(made, 2_000)]:
        store.insert(batch)
    while not rollups.roll_up(seconds=60).is_done:
        pass


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("count", type=int)
    parser.add_argument("--days", type=int, default=90)
    options = parser.parse_args()
    call_command("migrate", verbosity=0)
    fill(options.count, days=options.days)
    sys.stdout.write(f"{options.count} requests\n")


if __name__ == "__main__":
    main()
